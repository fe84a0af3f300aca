"""Cuts: every byte in one chunk, within bounds, where the content says and nowhere else."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from functools import cache

import pyfastcdc
import pyfastcdc.py.fastcdc as slow_fastcdc
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from backthen.repository import format as fmt
from backthen.repository.chunking import Cutter, check_fastcdc, cutter
from backthen.repository.errors import InvalidRequest
from tests.support.fixed_keys import fixed_keys

KEYS = fixed_keys()
SAMPLES = settings(max_examples=12, deadline=None)


@cache
def _random_bytes(length: int, seed: int = 0) -> bytes:
    return blake3(b"%d" % seed).digest(length)


def _reader(data: bytes, steps: Sequence[int] = (1 << 30,)) -> Callable[[memoryview], int]:
    """A `read_into` that gives at most so many bytes at a time, in turn."""
    state = [0, 0]

    def read_into(buffer: memoryview) -> int:
        offset, turn = state
        count = min(len(buffer), steps[turn % len(steps)], len(data) - offset)
        buffer[:count] = data[offset : offset + count]
        state[:] = [offset + count, turn + 1]
        return count

    return read_into


def _cutter(number: int = 0) -> Cutter:
    keys = fixed_keys(number)
    return Cutter(keys.chunker_seed, keys.chunker_prf)


def _chunks(data: bytes, steps: Sequence[int] = (1 << 30,), own: Cutter | None = None) -> list[bytes]:
    return [bytes(chunk) for chunk in (own or _cutter()).cut(_reader(data, steps))]


def _check_bounds(chunks: Sequence[bytes]) -> None:
    assert all(fmt.CHUNK_BYTES_MIN <= len(chunk) <= fmt.CHUNK_BYTES_MAX for chunk in chunks[:-1])
    assert all(0 < len(chunk) <= fmt.CHUNK_BYTES_MAX for chunk in chunks[-1:])


MIB = fmt.MIB
EDGES = [
    0,
    1,
    255 * 1024,
    256 * 1024,
    256 * 1024 + 1,
    2 * MIB - 1,
    2 * MIB,
    2 * MIB + 1,
    8 * MIB - 1,
    8 * MIB,
    8 * MIB + 1,
]


@SAMPLES
@given(
    st.one_of(st.sampled_from(EDGES), st.integers(0, 20 * MIB)),
    st.lists(st.integers(50_000, 9 * MIB) | st.just(fmt.MIB), min_size=1, max_size=4),
)
def test_chunks_are_the_input_whatever_the_reads_give(length: int, steps: list[int]) -> None:
    data = _random_bytes(24 * MIB)[:length]
    chunks = _chunks(data, steps)
    assert data == b"".join(chunks)
    _check_bounds(chunks)
    assert list(map(len, _chunks(data))) == list(map(len, chunks)), "the same cuts as with whole reads"


def test_reads_of_a_few_bytes_cut_no_otherwise() -> None:
    data = _random_bytes(1 * MIB + 17)
    assert _chunks(data) == _chunks(data, [1, 7, 13, 4096, 100])


@pytest.mark.parametrize("fill", [b"\0", b"a", b"ab", b"abc", bytes(range(256))])
def test_data_that_repeats_is_cut_within_bounds(fill: bytes) -> None:
    data = (fill * (11 * MIB // len(fill) + 1))[: 11 * MIB + 5]
    chunks = _chunks(data)
    assert data == b"".join(chunks)
    _check_bounds(chunks)


@pytest.mark.parametrize("window", [4 * MIB, 5 * MIB + 1, 32 * MIB])
def test_cuts_do_not_depend_on_the_size_of_the_buffer(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = _random_bytes(20 * MIB)
    usual = _chunks(data)
    monkeypatch.setattr(cutter, "_WINDOW_BYTES", window)
    assert usual == _chunks(data)


def test_a_cutter_cuts_one_stretch_after_another() -> None:
    own = _cutter()
    for seed in range(3):
        data = _random_bytes(5 * MIB, seed)
        assert _chunks(data) == _chunks(data, own=own)
    assert [] == _chunks(b"", own=own)


def test_a_cutter_that_was_left_half_way_begins_anew() -> None:
    own = _cutter()
    data = _random_bytes(9 * MIB)
    next(own.cut(_reader(data)))
    assert _chunks(data) == _chunks(data, own=own)


@SAMPLES
@given(st.binary(min_size=1, max_size=300), st.integers(0, 200_000))
def test_an_insertion_changes_the_chunks_around_it_only(inserted: bytes, offset: int) -> None:
    data = _random_bytes(24 * MIB)
    before = set(_chunks(data))
    after = _chunks(data[:offset] + inserted + data[offset:])
    assert len([chunk for chunk in after if chunk not in before]) <= 3


def test_a_change_in_the_middle_changes_the_chunks_around_it_only() -> None:
    data = bytearray(_random_bytes(24 * MIB))
    before = _chunks(bytes(data))
    data[12 * MIB] ^= 1
    after = _chunks(bytes(data))
    assert len(set(after) - set(before)) <= 2
    assert before[0] == after[0]
    assert before[-1] == after[-1]


def test_chunks_have_the_size_that_the_format_aims_at() -> None:
    """A candidate each 16 times about 38 KiB, after the first 256 KiB, 2 MiB at most."""
    chunks = _chunks(_random_bytes(24 * MIB))
    assert 500 * fmt.KIB < 24 * MIB / len(chunks) < 1100 * fmt.KIB


def test_other_keys_cut_elsewhere() -> None:
    data = _random_bytes(8 * MIB)
    one = {hashlib.sha256(chunk).digest() for chunk in _chunks(data)}
    two = {hashlib.sha256(chunk).digest() for chunk in _chunks(data, own=_cutter(1))}
    assert not one & two


def test_few_cuts_are_where_fastcdc_would_cut() -> None:
    """What would give its seed away (FORMAT.md, section 7)."""
    data = _random_bytes(24 * MIB)
    fastcdc = cutter._make_fastcdc(KEYS.chunker_seed)
    proposals = {chunk.offset + chunk.length for chunk in fastcdc.cut_buf(data)}
    cuts, position = [], 0
    for chunk in _chunks(data):
        position += len(chunk)
        cuts.append(position)
    assert not proposals & set(cuts[:-1])


def _cuts_by_the_format(data: bytes) -> list[int]:
    """FORMAT.md, section 7, written down once more, for data that is in memory whole."""
    cuts: list[int] = []
    last = 0

    def force(before: int) -> None:
        nonlocal last
        while before - last > 2 * MIB:
            last += 2 * MIB
            cuts.append(last)

    fastcdc = cutter._make_fastcdc(KEYS.chunker_seed)
    for proposal in [chunk.offset + chunk.length for chunk in fastcdc.cut_buf(data)][:-1]:
        digest = blake3(data[proposal - 64 : proposal], key=KEYS.chunker_prf).digest(16)
        if int.from_bytes(digest[:8], "big") % 16:
            continue
        cut = proposal + int.from_bytes(digest[8:], "big") % (64 * fmt.KIB)
        if cut - last < 256 * fmt.KIB or cut >= len(data):
            continue
        force(cut)
        if cut - last >= 256 * fmt.KIB:
            cuts.append(cut)
            last = cut
    force(len(data))
    return [*cuts, len(data)]


@pytest.mark.parametrize("seed", range(3))
def test_cuts_are_those_of_the_format(seed: int) -> None:
    data = _random_bytes(20 * MIB, seed) if seed else bytes(3 * MIB) + _random_bytes(15 * MIB, 9) + bytes(5 * MIB)
    position = 0
    cuts = []
    for chunk in _chunks(data):
        position += len(chunk)
        cuts.append(position)
    assert _cuts_by_the_format(data) == cuts


@SAMPLES
@given(st.randoms(use_true_random=False), st.integers(1, 12 * MIB))
def test_the_rule_keeps_its_bounds_whatever_is_wished(rng: random.Random, end: int) -> None:
    rule = cutter.CutRule()
    cuts: list[int] = []
    position = 0
    while (position := position + rng.randint(16, 900_000)) < end:
        cuts.extend(
            rule.wish(position + rng.randrange(fmt.CUT_SPREAD_BYTES)) if rng.random() < 0.5 else rule.reach(position)
        )
    lengths = [right - left for left, right in zip([0, *cuts], cuts, strict=False)]
    assert all(fmt.CHUNK_BYTES_MIN <= length <= fmt.CHUNK_BYTES_MAX for length in lengths)


def test_the_installed_fastcdc_cuts_as_it_should() -> None:
    check_fastcdc()


def test_a_fastcdc_that_cuts_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutter, "_NORMALIZATION", 2)
    with pytest.raises(InvalidRequest):
        check_fastcdc()


def test_a_fastcdc_in_pure_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyfastcdc, "FastCDC", slow_fastcdc.FastCDC)
    with pytest.raises(InvalidRequest):
        check_fastcdc()
