"""What holds for every command: help, global options, errors, exit codes."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import User, program


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_starting_imports_nothing_heavy(newcomer: User, option: str) -> None:
    code = f"import sys; from backthen.cli import main; main.run(['{option}']); print(sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=newcomer.environment, check=True
    )
    modules = done.stdout.splitlines()[-1]
    for heavy in ("backthen.repository", "backthen.fsmount", "msgspec", "rich", "trio", "subprocess", "logging"):
        assert f"'{heavy}'" not in modules


def test_the_version_is_printed_wherever_it_is_asked(newcomer: User) -> None:
    first = newcomer.run("--version").text
    assert first.startswith("backthen ")
    assert first == newcomer.run("snapshot", "list", "--version").text


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["snapshot"],
        ["snapshot", "create"],
        ["ls"],
        ["cat", "latest"],
        ["restore", "latest"],
        ["snapshot", "list", "--nonsense"],
        ["check", "--read-data", "--read-data-subset", "5%"],
        ["check", "--read-data-subset", "500%"],
        ["restore", "latest", "--target", "x", "--overwrite", "perhaps"],
    ],
)
def test_wrong_usage_is_two(newcomer: User, arguments: list[str]) -> None:
    done = newcomer.run(*arguments, code=2)
    assert done.out == b""
    assert done.err


def test_wrong_usage_with_json_is_a_document(newcomer: User) -> None:
    error = json.loads(newcomer.run("--json", "restore", "latest", code=2).err)["error"]
    assert error["code"] == 2
    assert "--target" in error["message"]


def test_no_repository_is_ten(newcomer: User) -> None:
    done = newcomer.run("snapshot", "list", code=10, variables={"BACKTHEN_PASSWORD": "x"})
    assert "backthen init" in done.err


def test_no_password_and_nobody_to_ask_is_two(user: User) -> None:
    done = user.run("snapshot", "list", code=2, variables={"BACKTHEN_PASSWORD_FILE": ""})
    assert "--password-file" in done.err


def test_a_wrong_password_is_twelve(user: User) -> None:
    variables = {"BACKTHEN_PASSWORD_FILE": "", "BACKTHEN_PASSWORD": "mistaken"}
    done = user.run("snapshot", "list", "--debug", code=None, variables=variables)
    assert done.code == 12
    assert "mistaken" not in done.err


def test_a_wrong_password_with_json_is_a_document(user: User) -> None:
    variables = {"BACKTHEN_PASSWORD_FILE": "", "BACKTHEN_PASSWORD": "mistaken"}
    done = user.run("--json", "snapshot", "list", code=12, variables=variables)
    assert (json.loads(done.err)["error"]["code"], json.loads(done.err)["error"]["kind"]) == (12, "WrongPassword")
    assert done.out == b""


@pytest.mark.parametrize("place", ["before", "between", "after"])
def test_global_options_stand_anywhere(user: User, place: str) -> None:
    option = ["-r", str(user.home / "repository")]
    variables = {"BACKTHEN_REPOSITORY": "/nowhere"}
    arguments = {
        "before": [*option, "snapshot", "list"],
        "between": ["snapshot", *option, "list"],
        "after": ["snapshot", "list", *option],
    }
    user.run(*arguments[place], variables=variables)


def test_of_an_option_given_twice_the_later_holds(user: User) -> None:
    user.run("-r", "/nowhere", "snapshot", "list", "-r", str(user.home / "repository"))
    user.run("-r", str(user.home / "repository"), "snapshot", "list", "-r", "/nowhere", code=10)


def test_a_reader_that_goes_away_is_no_fuss(user: User, tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / "many").mkdir(exist_ok=True)
        (tmp_path / "many" / f"{number:0200}").touch()
    user.snapshot(str(tmp_path / "many"))
    process = subprocess.Popen(
        [*program(), "ls", "latest", "--recursive"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=user.environment,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1


def test_output_that_cannot_be_written_is_an_error(user: User) -> None:
    with open("/dev/full", "wb") as full:
        process = subprocess.run(
            [*program(), "snapshot", "list"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=user.environment,
            check=False,
        )
    assert process.returncode == 1
    assert process.stderr == b"backthen: standard output cannot be written: No space left on device\n"


def test_the_password_is_not_inherited_by_what_we_start(user: User) -> None:
    seen = user.home / "seen"
    script = user.home / "script"
    script.write_text(f'#!/bin/sh\nenv > {seen}\nexec cat "{user.home}/password"\n')
    script.chmod(0o700)
    variables = {
        "BACKTHEN_PASSWORD_FILE": "",
        "BACKTHEN_PASSWORD_COMMAND": str(script),
        "BACKTHEN_PASSWORD": "unused secret",
    }
    user.run("snapshot", "list", variables=variables)
    assert "unused secret" not in seen.read_text()
    assert f"HOME={user.home}" in seen.read_text()


def test_a_locale_without_unicode_does_not_matter(user: User, tree: Path) -> None:
    (tree / "Übung").touch()
    user.snapshot(str(tree))
    variables = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    assert "Übung".encode() in user.run("ls", f"latest:{tree}", variables=variables).out
    entries = user.run("ls", f"latest:{tree}", "--json", variables=variables).document["entries"]
    assert isinstance(entries, list)
    assert f"{tree}/Übung" in [entry["path"] for entry in entries]


def open_when_read(fifo: Path, process: subprocess.Popen[bytes]) -> int:
    """Open a FIFO for writing once the program reads it: then it is at work."""
    while process.poll() is None:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            assert error.errno == errno.ENXIO
    raise AssertionError("the program ended without reading its password")


def wait_until_asleep(pid: int) -> None:
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
        pass


def test_an_interrupt_is_130(user: User, tree: Path) -> None:
    fifo = user.home / "fifo"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [*program(), "snapshot", "create", str(tree), "--password-file", str(fifo)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=user.environment,
    )
    writer = open_when_read(fifo, process)
    wait_until_asleep(process.pid)  # A signal between Python's last look for one and its read is told after the read.
    process.send_signal(2)
    _, err = process.communicate(timeout=60)
    os.close(writer)
    assert (process.returncode, err) == (130, b"backthen: interrupted\n")


def test_what_is_to_be_done_at_the_end_is_done() -> None:
    script = "import atexit, sys; from backthen.cli.main import main; atexit.register(print, 'done'); main()"
    done = subprocess.run([sys.executable, "-c", script, "nonsense"], capture_output=True, text=True, check=False)
    assert (2, "done\n") == (done.returncode, done.stdout)
