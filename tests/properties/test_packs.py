"""Packs: what goes in comes out, what was changed is noticed, nothing repeats, little is wasted."""

from __future__ import annotations

import hashlib
import io
import random
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import Buffer

from backthen.repository import format as fmt
from backthen.repository.compression import Compression, looks_compressed
from backthen.repository.crypto import (
    BlobKind,
    ObjectKind,
    RepositoryKeys,
    new_pack_cipher,
    seal_object,
)
from backthen.repository.errors import (
    DamageError,
    MalformedError,
    NewerFormatError,
    RepositoryError,
    StorageError,
    TamperedError,
)
from backthen.repository.objects.writer import _Lane
from backthen.repository.packs import (
    BuiltPack,
    PackBuilder,
    RunPiece,
    Segment,
    decode_body,
    make_run,
    make_solid,
    verify_body,
)
from backthen.repository.packs.segment import FORM_RUN, FORM_SOLID
from tests.support.built_packs import blob_record, build_pack, make_units, open_directory, random_bytes, read_blobs
from tests.support.cipher_record import CipherRecord
from tests.support.fixed_keys import fixed_keys

KEYS = fixed_keys()
SAMPLES = settings(max_examples=25, deadline=None)
VERSION_AT, SCHEME_AT = 4, 6


SIZES = st.one_of(st.integers(0, 5000), st.sampled_from([262_143, 262_144, 262_145, 524_288, 524_289, 2 * fmt.MIB]))


@SAMPLES
@given(
    st.lists(st.tuples(SIZES, st.booleans()), min_size=1, max_size=12),
    st.sampled_from([0, 1, 3]),
    st.sampled_from([BlobKind.CHUNK, BlobKind.PAGE, BlobKind.LIST, BlobKind.XATTR]),
)
def test_blobs_come_out_of_a_pack_as_they_went_in(sizes: list[tuple[int, bool]], level: int, kind: BlobKind) -> None:
    blobs = [
        (b"%d " % number * size)[:size] if compressible else random_bytes(size, number)
        for number, (size, compressible) in enumerate(sizes)
    ]
    pack_class = fmt.PACK_CLASS_DATA if kind == BlobKind.CHUNK else fmt.PACK_CLASS_TREE
    data, built = build_pack(make_units(blobs, kind, Compression(level)), pack_class)
    found = read_blobs(data)
    assert {KEYS.blob_id(kind, blob): blob for blob in blobs} == found
    assert len(data) == built.length == fmt.padded_pack_length(len(data))
    assert hashlib.sha256(data).digest() == built.indexed.id
    _, directory = open_directory(data)
    assert pack_class == directory.pack_class
    assert directory.indexed(built.indexed.id) == built.indexed
    assert {kind} == {record.kind for record in directory.blobs}


@pytest.mark.parametrize("compressible", [True, False])
def test_a_segment_is_compressed_only_when_that_makes_it_smaller(compressible: bool) -> None:
    blob = b"text " * 40_000 if compressible else random_bytes(200_000)
    segment = make_solid([blob], [blob_record(BlobKind.CHUNK, blob)], Compression())
    assert (segment.plaintext[0] == 1) is compressible
    assert (len(segment.plaintext) < len(blob)) is compressible
    assert looks_compressed(memoryview(blob)) is not compressible


def test_blobs_side_by_side_compress_together() -> None:
    blobs = [b"the same licence text in every file %d\n" % number * 3 for number in range(100)]
    together = make_solid(blobs, [blob_record(BlobKind.CHUNK, blob) for blob in blobs], Compression())
    apart = [make_solid([blob], [blob_record(BlobKind.CHUNK, blob)], Compression()) for blob in blobs]
    assert len(together.plaintext) * 5 < sum(len(segment.plaintext) for segment in apart)


def test_a_run_has_pieces_of_256_kib_and_its_blob_in_the_first() -> None:
    blob = random_bytes(600_000)
    record = blob_record(BlobKind.CHUNK, blob)
    segments = make_run(blob, record)
    assert [(record,), (), ()] == [segment.blobs for segment in segments]
    pieces = [verify_body(decode_body(segment.plaintext), FORM_RUN) for segment in segments]
    assert [262_144, 262_144, 75_712] == [len(piece.data) for piece in pieces if isinstance(piece, RunPiece)]


# What was changed is noticed


def _small_pack() -> bytes:
    blobs = [b"one", b"two" * 30, b""]
    data, _ = build_pack(make_units(blobs, BlobKind.CHUNK, Compression()))
    assert fmt.PACK_BYTES_MIN == len(data)
    return data


def _check_noticed(data: bytes) -> None:
    with pytest.raises((TamperedError, MalformedError)):
        read_blobs(data)


def test_every_flipped_bit_is_noticed() -> None:
    pack = _small_pack()
    for at in range(len(pack)):
        for bit in range(8):
            changed = bytearray(pack)
            changed[at] ^= 1 << bit
            with pytest.raises(RepositoryError) as caught:
                read_blobs(bytes(changed))
            expected = (NewerFormatError, TamperedError) if at in (VERSION_AT, SCHEME_AT) else DamageError
            assert isinstance(caught.value, expected), (at, bit)


def test_every_truncation_is_noticed() -> None:
    pack = _small_pack()
    for length in range(len(pack)):
        _check_noticed(pack[:length])
    _check_noticed(pack + bytes(1))
    _check_noticed(pack + pack)


@SAMPLES
@given(st.data())
def test_flipped_bits_of_a_larger_pack_are_noticed(data: st.DataObject) -> None:
    pack, _ = build_pack(make_units([random_bytes(300_000), b"text" * 1000], BlobKind.CHUNK, Compression()))
    changed = bytearray(pack)
    at = data.draw(st.integers(0, len(pack) - 1).filter(lambda at: at not in (VERSION_AT, SCHEME_AT)))
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    _check_noticed(bytes(changed))


def _segment_ranges(data: bytes) -> list[slice]:
    ranges, offset = [], fmt.PACK_HEADER_BYTES
    for length in open_directory(data)[1].lengths:
        ranges.append(slice(offset, offset + length))
        offset += length
    return ranges


@pytest.mark.parametrize(
    "blobs",
    [[random_bytes(1 << 20)], [random_bytes(3000, number) for number in range(9)]],
    ids=["pieces of a run", "solid segments"],
)
def test_segments_that_change_places_are_noticed(blobs: list[bytes]) -> None:
    pack, _ = build_pack(make_units(blobs, BlobKind.CHUNK, Compression()))
    one, two = _segment_ranges(pack)[:2]
    assert pack[one] != pack[two] and one.stop - one.start == two.stop - two.start
    swapped = bytearray(pack)
    swapped[one], swapped[two] = pack[two], pack[one]
    _check_noticed(bytes(swapped))


def test_parts_of_another_pack_are_noticed() -> None:
    """Two packs of the same blobs: neither segments nor directory nor trailer of one are taken in the other."""
    units = make_units([random_bytes(5000, number) for number in range(6)], BlobKind.CHUNK, Compression())
    one, two = build_pack(units).data, build_pack(units).data
    assert len(one) == len(two)
    ranges = _segment_ranges(one)
    end = ranges[-1].stop
    trailer = len(one) - fmt.PACK_TRAILER_BYTES
    for part in (*ranges, slice(end, trailer), slice(trailer, len(one)), slice(12, fmt.PACK_HEADER_BYTES)):
        mixed = bytearray(one)
        mixed[part] = two[part]
        assert mixed != one
        _check_noticed(bytes(mixed))


def test_a_pack_of_another_repository_is_noticed() -> None:
    same_keys = RepositoryKeys(fixed_keys(1).repository_id, KEYS.bundle)
    for keys in (fixed_keys(1), same_keys):
        with pytest.raises(TamperedError):
            read_blobs(_small_pack(), keys)


def test_a_directory_is_not_taken_for_a_segment() -> None:
    cipher = new_pack_cipher(KEYS, fmt.PACK_CLASS_DATA, b"")
    part = cipher.seal(0, b"directory", last=True)
    with pytest.raises(TamperedError):
        cipher.open(0, part)
    with pytest.raises(TamperedError):
        cipher.open(1, part, last=True)


def test_the_class_of_a_pack_is_bound() -> None:
    pack = bytearray(_small_pack())
    pack[5] = fmt.PACK_CLASS_TREE
    with pytest.raises(TamperedError):
        read_blobs(bytes(pack))


def test_a_key_generation_that_is_not_there_is_noticed() -> None:
    pack = bytearray(_small_pack())
    pack[11] = 9
    with pytest.raises(TamperedError, match="generation 9"):
        read_blobs(bytes(pack))


# Nothing repeats, and little is wasted


def test_no_key_and_nonce_seal_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    record = CipherRecord()
    record.watch(monkeypatch)
    units = make_units(
        [random_bytes(1 << 20), *(b"%d" % number * 100 for number in range(30))], BlobKind.CHUNK, Compression()
    )
    assert len({build_pack(units).data for _ in range(5)}) == 5, "equal blobs, different packs"
    for kind in ObjectKind:
        seal_object(KEYS, kind, b"the same payload")
        seal_object(KEYS, kind, b"the same payload")
    record.check_unique(at_least=5 * (4 + 10 + 2) + 2 * len(ObjectKind))


class _FullDisk(io.BytesIO):
    """A file that takes so many bytes and no more, and later takes more again."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def write(self, data: Buffer, /) -> int:
        view = memoryview(data)
        if len(view) > self.room:
            super().write(view[: self.room])
            self.room = 1 << 40
            raise OSError(28, "No space left on device")
        self.room -= len(view)
        return super().write(view)


def test_a_pack_whose_file_failed_seals_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the number of the segment that failed, which is its nonce, would be used again."""
    record = CipherRecord()
    record.watch(monkeypatch)
    units = make_units([random_bytes(3000, number) for number in range(9)], BlobKind.CHUNK, Compression())
    builder = PackBuilder(KEYS, fmt.PACK_CLASS_DATA, Path("pack"), _FullDisk(12_000))
    builder.add(units[0])
    for unit in units[1:]:
        with pytest.raises(StorageError):
            builder.add(unit)
    with pytest.raises(StorageError):
        builder.finish()
    record.check_unique(at_least=2)


def test_packs_are_filled_to_the_last_percent(tmp_path: Path) -> None:
    """Best fit among a few waiting units; the rest is padding, which nothing outside tells from content."""
    lengths: list[int] = []

    def store(_pack_class: int, built: BuiltPack, file: BinaryIO) -> None:
        file.close()
        built.path.unlink()
        lengths.append(built.length)

    lane = _Lane(KEYS, fmt.PACK_CLASS_DATA, tmp_path, store)
    rng = random.Random(5)
    pool = random_bytes(1 << 20)
    used = 0
    while len(lengths) < 8:
        pieces = rng.choice([1, 1, 1, 2, 4, 8])
        unit = [
            Segment(FORM_SOLID, pool[: rng.randint(100_000, 300_000 if pieces > 1 else 1 << 20)], ())
            for _ in range(pieces)
        ]
        used += PackBuilder.cost(unit)
        lane.place(unit)
    unfinished = sum(fmt.PACK_BYTES_TARGET - pack.builder.room for pack in lane._idle)
    waiting = sum(cost for cost, _ in lane._ready) + unfinished
    lane.discard()
    assert {fmt.PACK_BYTES_TARGET} == set(lengths), "all of one length: nothing says what is in them"
    assert (sum(lengths) - (used - waiting)) / sum(lengths) < 0.01


def test_a_unit_larger_than_a_pack_is_not_split(tmp_path: Path) -> None:
    """Its pack is longer, and still of a Padmé length."""
    packs: list[BuiltPack] = []

    def store(_pack_class: int, built: BuiltPack, file: BinaryIO) -> None:
        file.close()
        built.path.unlink()
        packs.append(built)

    lane = _Lane(KEYS, fmt.PACK_CLASS_DATA, tmp_path, store)
    pool = random_bytes(1 << 20)
    lane.place([Segment(FORM_SOLID, pool, ()) for _ in range(33)])
    lane.place([Segment(FORM_SOLID, pool, ())])
    lane.finish()
    assert [33 * 4, 4] == [len(built.indexed.lengths) for built in packs]
    assert packs[0].length == fmt.padme(packs[0].length) > fmt.PACK_BYTES_TARGET
