"""Every error has an exit code, and none becomes a traceback."""

from __future__ import annotations

import json
import sys

import click
import pytest

from backthen import fsmount, repository
from backthen.cli import main
from backthen.cli.exits import EXIT_CODES, exit_code_of
from backthen.cli.failures import CommandError, ConfigurationError, ExitCode, OutputClosed
from backthen.cli.program import program
from backthen.repository import RepositoryError, WrongPassword


def errors_of(module: object) -> set[type[Exception]]:
    return {value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Exception)}


def subclasses(kind: type[Exception]) -> set[type[Exception]]:
    below = {kind for child in kind.__subclasses__() for kind in subclasses(child)}
    return below | {kind}


def test_every_error_of_the_repository_is_in_the_table() -> None:
    public = {kind for kind in errors_of(repository) if issubclass(kind, RepositoryError)}
    assert subclasses(RepositoryError) <= public, "an error is missing from the face"
    assert set() == public - EXIT_CODES.keys()


def test_every_error_of_mounts_has_an_exit_code() -> None:
    for kind in subclasses(fsmount.MountError):
        assert exit_code_of(kind("x")) == ExitCode.MOUNT


def test_the_numbers_are_those_of_the_contract() -> None:
    expected = {"DONE": 0, "FAILED": 1, "USAGE": 2, "INCOMPLETE": 3, "NO_REPOSITORY": 10, "WRONG_PASSWORD": 12}
    expected |= {"DAMAGED": 13, "STORAGE": 14, "MOUNT": 15, "INTERRUPTED": 130}
    assert expected == {code.name: code.value for code in ExitCode}


def run_failing(monkeypatch: pytest.MonkeyPatch, error: BaseException, *options: str) -> int:
    def fail() -> None:
        raise error

    command = click.Command("fail", callback=fail)
    for name in ("--json", "--debug"):
        command.params.append(click.Option([name], is_flag=True, expose_value=False))
    monkeypatch.setattr(program, "get_command", lambda _context, _name: command)
    return main.run(["fail", *options])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (WrongPassword("wrong"), 12),
        (repository.TamperedError("changed", name="packs/aa"), 13),
        (repository.ObjectMissing("gone"), 14),
        (fsmount.NotMounted("nothing"), 15),
        (ConfigurationError("broken"), 2),
        (CommandError("no"), 1),
        (PermissionError(13, "Permission denied", "/x"), 1),
        (ZeroDivisionError("division by zero"), 1),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
    ],
)
def test_an_error_is_told_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, expected: int
) -> None:
    assert expected == run_failing(monkeypatch, error)
    told = capsys.readouterr().err
    assert told.startswith("backthen: ")
    assert "Traceback" not in told


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), OutputClosed()])
def test_a_reader_that_went_away_is_not_told(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: Exception
) -> None:
    monkeypatch.setattr(main, "_drop_output", lambda: None)
    assert run_failing(monkeypatch, error) == 1
    assert capfd.readouterr().err == ""


def test_debug_shows_where_an_error_came_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_failing(monkeypatch, ZeroDivisionError("x"), "--debug")
    assert "Traceback" in capsys.readouterr().err


def test_with_json_an_error_is_a_document(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run_failing(monkeypatch, WrongPassword("wrong\x1b", hint="Try."), "--json")
    error = json.loads(capsys.readouterr().err)["error"]
    assert error == {"code": 12, "kind": "WrongPassword", "message": "wrong\x1b", "hint": "Try."}


def test_without_json_a_message_cannot_command_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_failing(monkeypatch, WrongPassword("wrong\x1b[2J"))
    assert "\x1b" not in capsys.readouterr().err


def test_a_broken_installation_is_told_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "backthen.cli.exits", None)
    assert run_failing(monkeypatch, ImportError("libfuse3.so.3: cannot open shared object file")) == 1
    assert "libfuse3.so.3" in capsys.readouterr().err
