"""Names on a terminal and in JSON."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backthen.cli.names import is_printable, name_fields, shown_lines, shown_name, shown_text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"letter.txt", "letter.txt"),
        ("Übung 日本語".encode(), "Übung 日本語"),
        ("wide\u3000space".encode(), "wide\u3000space"),
        ("family \U0001f468\u200d\U0001f469.jpg".encode(), "family \U0001f468\u200d\U0001f469.jpg"),
        (b"back\\slash", "back\\slash"),
        (b"a\nb", "a\\nb"),
        (b"red\x1b[31m", "red\\x1b[31m"),
        (b"a\\\nb", "a\\\\\\nb"),
        (b"caf\xe9", "caf\\xe9"),
        ("txt.\u202eexe".encode(), "txt.\\u202eexe"),
        ("c1\u009b31m".encode(), "c1\\x9b31m"),
    ],
)
def test_a_name_is_shown_so_that_no_terminal_obeys_it(name: bytes, expected: str) -> None:
    assert expected == shown_name(name)


@given(st.binary())
def test_a_shown_name_is_always_printable(name: bytes) -> None:
    assert is_printable(shown_name(name))


@given(st.binary(), st.binary())
def test_names_that_differ_never_look_alike_when_escaped(one: bytes, other: bytes) -> None:
    escaped = [shown_name(name) != name.decode(errors="replace") for name in (one, other)]
    if one != other and all(escaped):
        assert shown_name(one) != shown_name(other)


def test_text_with_undecodable_bytes_can_be_printed() -> None:
    assert shown_text("no \udcff here \\") == "no \\xff here \\"


def test_lines_stay_lines() -> None:
    assert shown_lines("one\ntwo\x1b") == "one\ntwo\\x1b"


def test_a_name_that_is_text_has_no_bytes_in_json() -> None:
    assert name_fields("path", b"/a\nb") == {"path": "/a\nb"}


@given(st.binary())
def test_json_always_tells_the_bytes_of_a_name(name: bytes) -> None:
    fields = name_fields("path", name)
    told = base64.b64decode(fields["path_bytes"]) if "path_bytes" in fields else fields["path"].encode()
    assert name == told
