"""How hard data is compressed, from what a user says to what is done with a segment."""

from __future__ import annotations

import pytest

from backthen.repository.compression import Compression, parse_compression
from backthen.repository.errors import InvalidRequest
from tests.support.built_packs import random_bytes

TEXT = b"the same words again and again " * 4000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auto", Compression()),
        ("off", Compression(0, 0)),
        ("fast", Compression(1, 1)),
        ("max", Compression(19, 19)),
        ("1", Compression(1, 1)),
        ("22", Compression(22, 22)),
    ],
)
def test_a_word_or_a_level_is_understood(text: str, expected: Compression) -> None:
    assert expected == parse_compression(text)


@pytest.mark.parametrize("text", ["", "0", "23", "-1", "+3", "3.0", " 3", "٣", "1" * 5000, "AUTO", "zstd,3", "none"])
def test_anything_else_is_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_compression(text)
    assert repr(text) in str(caught.value)
    assert "Choose auto, off, fast, max, or a zstd level from 1 to 22." == caught.value.hint


@pytest.mark.parametrize("text", ["auto", "fast", "max", "1", "22"])
def test_what_looks_compressed_is_not_worth_it_at_any_level(text: str) -> None:
    assert parse_compression(text).is_worthwhile(memoryview(TEXT))
    assert not parse_compression(text).is_worthwhile(memoryview(random_bytes(len(TEXT))))


def test_nothing_is_worth_it_when_it_is_off() -> None:
    assert not parse_compression("off").is_worthwhile(memoryview(TEXT))
