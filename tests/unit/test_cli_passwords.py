"""Where passwords come from when nobody is asked."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from backthen.cli import passwords
from backthen.cli.failures import NoPassword, PasswordSourceError, UsageFailure
from backthen.cli.passwords import (
    GivenPassword,
    PasswordCommand,
    PasswordFile,
    Terminal,
    choose_source,
    read_new_password,
    read_password,
    without_newline,
)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"x", b"x"),
        (b"x\n", b"x"),
        (b"x\r\n", b"x"),
        (b"x\n\n", b"x\n"),
        (b"x\r", b"x\r"),
        (b" x \n", b" x "),
        (b"\n", b""),
    ],
)
def test_exactly_one_newline_is_no_part_of_a_password(data: bytes, expected: bytes) -> None:
    assert expected == without_newline(data)


def make_file(tmp_path: Path, data: bytes, mode: int = 0o600) -> PasswordFile:
    path = tmp_path / "password"
    path.write_bytes(data)
    path.chmod(mode)
    return PasswordFile(path)


def test_a_file_gives_its_content(tmp_path: Path) -> None:
    assert read_password(make_file(tmp_path, b"correct horse\n"), "") == b"correct horse"


def test_composed_and_decomposed_letters_are_one_password(tmp_path: Path) -> None:
    assert "é".encode() == read_password(make_file(tmp_path, "e\u0301".encode()), "")


def test_bytes_that_are_not_utf8_stay_as_they_are(tmp_path: Path) -> None:
    assert read_password(make_file(tmp_path, b"\xff\xfe"), "") == b"\xff\xfe"


@pytest.mark.parametrize(("mode", "is_warned"), [(0o600, False), (0o604, True), (0o640, True)])
def test_a_file_that_others_can_read_is_warned_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: int, is_warned: bool
) -> None:
    read_password(make_file(tmp_path, b"x", mode), "")
    assert is_warned == ("can be read by others" in capsys.readouterr().err)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PasswordSourceError, match="nowhere cannot be read"):
        read_password(PasswordFile(tmp_path / "nowhere"), "")


def test_a_file_that_is_no_password_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PasswordSourceError, match="longer than"):
        read_password(make_file(tmp_path, bytes(100_000)), "")


def test_a_command_gives_what_it_prints() -> None:
    command = f"{sys.executable} -c \"print('from a  command')\""
    assert read_password(PasswordCommand(command), "") == b"from a  command"


@pytest.mark.parametrize("command", ["false", "/no/such/program", "'unbalanced", " "])
def test_a_command_that_fails_gives_no_password(command: str) -> None:
    with pytest.raises(PasswordSourceError):
        read_password(PasswordCommand(command), "")


def test_a_new_password_is_not_empty(tmp_path: Path) -> None:
    with pytest.raises(PasswordSourceError, match="empty"):
        read_new_password(make_file(tmp_path, b"\n"), "")


def test_nobody_is_asked_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "has_terminal", lambda: False)
    with pytest.raises(NoPassword, match="no terminal"):
        read_password(Terminal(), "")


def test_a_file_and_a_command_at_once_are_refused() -> None:
    with pytest.raises(UsageFailure):
        choose_source("file", "command")


def test_an_empty_place_is_no_place() -> None:
    assert choose_source("", None, "") is None


def test_a_password_is_not_in_its_representation() -> None:
    assert "secret" not in repr(GivenPassword(b"secret"))
