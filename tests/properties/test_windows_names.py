"""Names as Windows can hold them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backthen.fsmount.adapters.windows_names import decode_name, decode_target, encode_name, encode_target, folded

NAMES = (
    st.one_of(
        st.binary(min_size=1, max_size=255).map(lambda name: name.replace(b"/", b"|").replace(b"\0", b":")),
        st.text(
            st.sampled_from('abAB. :*?"<>|\\\x01\x1f\x7fé\uf000\uf001\uf02e\uf0ff\uf100\U0001f600'),
            min_size=1,
            max_size=60,
        ).map(str.encode),
    )
    .filter(lambda name: name not in (b".", b".."))
    .map(lambda name: name[:255])
)
FORBIDDEN = set('"*:<>?\\|/') | set(map(chr, range(0x20)))


@given(NAMES)
@example(b"...")
@example(b"nul")
@example("\uf03a".encode())
@example(b"\xed\xa0\x80")
def test_any_name_comes_back(name: bytes) -> None:
    assert decode_name(encode_name(name)) == name


@given(NAMES)
@example(b"com1 .txt")
@example(b"AUX.")
def test_windows_can_hold_any_encoded_name(name: bytes) -> None:
    encoded = encode_name(name)

    assert not FORBIDDEN & set(encoded)
    assert encoded[-1] not in ". "
    assert len(encoded.encode("utf-16-le")) // 2 <= len(name)
    assert encoded.split(".")[0].rstrip(" ").upper() not in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT9", "CONIN$"}


@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        (b"report.odt", "report.odt"),
        ("Grüße.txt".encode(), "Grüße.txt"),
        (b"12:30?", "12\uf03a30\uf03f"),
        (b"a. .", "a. \uf02e"),
        (b"nul.txt", "\uf06eul.txt"),
        (b"null", "null"),
        (b"COM7", "\uf043OM7"),
        (b"console", "console"),
        (b"\xff", "\uf0ff"),
        ("\uf0ff".encode(), "\uf0ef\uf083\uf0bf"),
    ],
)
def test_only_what_windows_cannot_hold_is_changed(name: bytes, encoded: str) -> None:
    assert encode_name(name) == encoded


@given(st.lists(st.one_of(NAMES, st.sampled_from([b"", b".", b".."])), min_size=1).map(b"/".join))
def test_any_target_comes_back_and_its_backslashes_are_names(target: bytes) -> None:
    encoded = encode_target(target)

    assert decode_target(encoded) == target
    assert encoded.count("\\") == target.count(b"/")
    assert ":" not in encoded


@pytest.mark.parametrize(
    ("one", "other", "are_same"),
    [("README", "readme", True), ("ÄRGER", "ärger", True), ("straße", "STRASSE", False), ("a", "b", False)],
)
def test_case_makes_no_difference(one: str, other: str, are_same: bool) -> None:
    assert (folded(one) == folded(other)) is are_same
