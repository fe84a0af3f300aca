"""How times, hosts and tags become names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backthen.fsmount.view.names import (
    NAME_BYTES_MAX,
    day_names,
    distinct_prefixes,
    escape,
    label_name,
    time_name,
    unescape,
)
from tests.support.history import NS, keyed

LABELS = st.text(st.characters(exclude_categories=["Cs"]))


def _prf(data: bytes) -> int:
    return keyed("test", data)


@given(LABELS)
def test_escaped_label_is_a_safe_name_and_can_be_read_back(label: str) -> None:
    name = escape(label)

    assert unescape(name) == label
    assert name
    assert not name.startswith(".")
    assert not set(name) & {"/", "_", "\0", "\n", "\x7f"}


@pytest.mark.parametrize(
    ("label", "name"),
    [("a_b/c", "a%5Fb%2Fc"), ("50%", "50%25"), (".", "%2E"), ("..", "%2E."), (".x", "%2Ex"), ("", "%"), ("\n", "%0A")],
)
def test_labels_are_escaped_like_urls(label: str, name: str) -> None:
    assert escape(label) == name


@given(LABELS.filter(bool), st.integers(1, 200))
def test_name_of_any_label_fits_beside_a_time_and_an_id(label: str, count: int) -> None:
    assert len(label_name(label * count, _prf).encode()) + len("2026-11-23T22.20.05Z__") + 64 <= NAME_BYTES_MAX


def test_long_labels_that_begin_alike_have_distinct_names() -> None:
    assert label_name("a" * 300 + "1", _prf) != label_name("a" * 300 + "2", _prf)


@pytest.mark.parametrize(
    ("seconds", "name"),
    [(1_795_472_405, "2026-11-23T22.20.05Z"), (0, "1970-01-01T00.00.00Z"), (-1, "1969-12-31T23.59.59Z")],
)
def test_times_are_written_in_utc(seconds: int, name: str) -> None:
    assert time_name(seconds * NS) == name


@given(st.integers(-(2**70), 2**70), st.integers(-(2**70), 2**70))
def test_names_of_times_sort_as_the_times_do(one_ns: int, other_ns: int) -> None:
    earlier, later = sorted((one_ns, other_ns))

    assert time_name(earlier) <= time_name(later)
    assert day_names(earlier) <= day_names(later)


@given(st.lists(st.binary(min_size=32, max_size=32), unique=True))
def test_ids_are_called_by_distinct_prefixes(ids: list[bytes]) -> None:
    prefixes = distinct_prefixes(ids)

    assert len(set(prefixes)) == len(ids)
    assert all(id_.hex().startswith(prefix) for id_, prefix in zip(ids, prefixes, strict=True))


def test_later_id_with_the_same_beginning_gets_more_digits() -> None:
    first, second = bytes(32), bytes(4) + b"\x0f" + bytes(27)

    assert distinct_prefixes([first, second]) == ["00000000", "000000000"]
    assert distinct_prefixes([second, first]) == ["00000000", "000000000"]
