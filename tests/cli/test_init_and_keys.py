"""`init` and `key`, and how a password is asked for on a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import time
from collections.abc import Sequence

import pytest

from tests.cli.conftest import PASSWORD, User, program

RECOVERY_KEY = re.compile(r"(?:[A-Z2-7]{5}-){7}[A-Z2-7]{5}")
TIMEOUT_S = 60


class Session:
    """The program on a terminal of its own, with somebody who types."""

    def __init__(self, user: User, arguments: Sequence[str]) -> None:
        self.shown = ""
        self._seen = 0
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            command = [*program(), *arguments]
            os.execve(command[0], command, user.environment)

    def wait_for(self, text: str) -> None:
        """Read until `text` is shown after what was waited for before."""
        deadline = time.monotonic() + TIMEOUT_S
        while text not in self.shown[self._seen :]:
            assert self._read(deadline), f"{text!r} never came, but: {self.shown!r}"
        self._seen = self.shown.index(text, self._seen) + len(text)

    def type(self, text: str) -> None:
        os.write(self.terminal, text.encode() + b"\n")

    def end(self) -> int:
        """Read to the end; the exit code."""
        deadline = time.monotonic() + TIMEOUT_S
        while self._read(deadline):
            pass
        os.close(self.terminal)
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def _read(self, deadline: float) -> bool:
        if not select.select([self.terminal], [], [], max(deadline - time.monotonic(), 0))[0]:
            os.kill(self.pid, signal.SIGKILL)
            raise AssertionError(f"the program waits for something; it showed {self.shown!r}")
        try:
            data = os.read(self.terminal, 4096)
        except OSError:  # Linux' way of saying that the other side is closed.
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)


def test_init_asks_twice_and_offers_a_recovery_key_that_opens(newcomer: User) -> None:
    session = Session(newcomer, ["init", str(newcomer.home / "backups")])
    session.wait_for("New password")
    session.type(PASSWORD)
    session.wait_for("The same again")
    session.type(PASSWORD)
    session.wait_for("cannot be recovered")
    session.wait_for("Make a recovery key now?")
    session.type("y")
    assert session.end() == 0
    assert PASSWORD not in session.shown
    found = RECOVERY_KEY.search(session.shown)
    assert found is not None
    newcomer.run("snapshot", "list", variables={"BACKTHEN_PASSWORD": found[0]})
    newcomer.run("snapshot", "list", variables={"BACKTHEN_PASSWORD": found[0].lower()})
    newcomer.run("snapshot", "list", variables={"BACKTHEN_PASSWORD": PASSWORD})


def test_init_asks_again_when_the_two_differ(newcomer: User) -> None:
    session = Session(newcomer, ["init"])
    session.wait_for("New password")
    session.type("one")
    session.wait_for("The same again")
    session.type("other")
    session.wait_for("not the same")
    session.wait_for("New password")
    session.type(PASSWORD)
    session.wait_for("The same again")
    session.type(PASSWORD)
    session.wait_for("Make a recovery key now?")
    session.type("n")
    assert session.end() == 0
    newcomer.run("snapshot", "list", variables={"BACKTHEN_PASSWORD": PASSWORD})


def test_a_mistyped_password_may_be_typed_again(user: User) -> None:
    user.variables["BACKTHEN_PASSWORD_FILE"] = ""
    session = Session(user, ["snapshot", "list"])
    session.wait_for("Password of")
    session.type("mistyped")
    session.wait_for("try again")
    session.wait_for("Password of")
    session.type(PASSWORD)
    assert session.end() == 0


def test_a_password_that_is_wrong_three_times_is_twelve(user: User) -> None:
    user.variables["BACKTHEN_PASSWORD_FILE"] = ""
    session = Session(user, ["snapshot", "list"])
    for _ in range(3):
        session.wait_for("Password of")
        session.type("mistyped")
    assert session.end() == 12


def test_ctrl_c_at_the_password_is_130(user: User) -> None:
    user.variables["BACKTHEN_PASSWORD_FILE"] = ""
    session = Session(user, ["snapshot", "list"])
    session.wait_for("Password of")
    os.write(session.terminal, b"\x03")
    assert session.end() == 130


def test_names_on_a_terminal_cannot_command_it(user: User) -> None:
    folder = user.home / "folder"
    folder.mkdir()
    (folder / "red\x1b[31m").touch()
    user.snapshot(str(folder))
    session = Session(user, ["ls", f"latest:{folder}"])
    assert session.end() == 0
    assert "red\\x1b[31m" in session.shown
    assert "\x1b" not in session.shown


def test_init_says_that_the_password_cannot_be_recovered(newcomer: User) -> None:
    done = newcomer.run("init", variables={"BACKTHEN_PASSWORD": PASSWORD})
    assert "cannot be recovered" in done.text
    assert "backthen key recovery-key" in done.text


def test_init_without_a_location_uses_the_data_folder(newcomer: User) -> None:
    newcomer.run("init", variables={"BACKTHEN_PASSWORD": PASSWORD})
    assert (newcomer.home / "data/backthen/repository/config").is_file()
    newcomer.run("snapshot", "list", variables={"BACKTHEN_PASSWORD": PASSWORD})


def test_init_records_the_first_repository_and_no_other(newcomer: User) -> None:
    variables = {"BACKTHEN_PASSWORD": PASSWORD}
    first = newcomer.run("init", "one", "--json", variables=variables, cwd=newcomer.home).document
    second = newcomer.run("init", "two", "--json", variables=variables, cwd=newcomer.home).document
    assert str(newcomer.home / "config/backthen/config.toml") == first["recorded_in"]
    assert second["recorded_in"] is None
    repository = newcomer.run("stats", "--json", variables=variables).document["repository"]
    assert first["repository"] == repository


def test_init_leaves_a_repository_as_it_is(user: User) -> None:
    done = user.run("init", code=1)
    assert "already" in done.err
    user.run("snapshot", "list")


def test_init_takes_no_empty_password(newcomer: User) -> None:
    empty = newcomer.home / "empty"
    empty.write_text("\n")
    newcomer.run("init", "--new-password-file", str(empty), code=1)
    assert not (newcomer.home / "data/backthen/repository/config").exists()


def test_a_password_may_be_composed_in_either_way(newcomer: User) -> None:
    newcomer.run("init", variables={"BACKTHEN_PASSWORD": "caf\u00e9"})
    newcomer.run("snapshot", "list", variables={"BACKTHEN_PASSWORD": "cafe\u0301"})


def keys_of(user: User) -> list[dict[str, object]]:
    keys = user.run("key", "list", "--json").document["keys"]
    assert isinstance(keys, list)
    return keys


def test_passwords_are_added_listed_and_removed(user: User) -> None:
    user.run("key", "add", "--new-password-command", "echo another")
    assert [key["kind"] for key in keys_of(user)] == ["password", "password"]
    assert [key["current"] for key in keys_of(user)] == [True, False]
    other = {"BACKTHEN_PASSWORD_FILE": "", "BACKTHEN_PASSWORD": "another"}
    user.run("snapshot", "list", variables=other)
    user.run("key", "remove", str(keys_of(user)[1]["id"])[:8])
    user.run("snapshot", "list", variables=other, code=12)
    assert len(keys_of(user)) == 1
    assert str(keys_of(user)[0]["id"])[:8] in user.run("key", "list").text


def test_the_last_way_in_is_not_removed(user: User) -> None:
    user.run("key", "remove", str(keys_of(user)[0]["id"]), code=1)
    user.run("snapshot", "list")


def test_a_password_is_changed(user: User) -> None:
    user.run("key", "change-password", "--new-password-command", "echo changed")
    user.run("snapshot", "list", code=12)
    user.run("snapshot", "list", variables={"BACKTHEN_PASSWORD_FILE": "", "BACKTHEN_PASSWORD": "changed"})
    assert user.run("check", "-q", variables={"BACKTHEN_PASSWORD_FILE": "", "BACKTHEN_PASSWORD": "changed"}).text == ""


def test_a_recovery_key_opens(user: User) -> None:
    document = user.run("key", "recovery-key", "--json").document
    assert RECOVERY_KEY.fullmatch(str(document["recovery_key"]))
    variables = {"BACKTHEN_PASSWORD_FILE": "", "BACKTHEN_PASSWORD": str(document["recovery_key"])}
    user.run("snapshot", "list", variables=variables)
    assert [key["kind"] for key in keys_of(user)] == ["password", "recovery key"]
    new = user.home / "new"
    new.write_text("a new one")
    new.chmod(0o600)
    user.run("key", "change-password", "--new-password-file", str(new), variables=variables)
    assert [key["kind"] for key in keys_of(user)] == ["password", "recovery key", "password"]


@pytest.mark.parametrize("command", [["key", "add"], ["key", "change-password"]])
def test_a_new_password_is_not_asked_for_without_a_terminal(user: User, command: list[str]) -> None:
    user.run(*command, code=2)
