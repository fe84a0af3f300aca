"""Calls that a script makes by mistake, and streams that are not there: each ends in one clear sentence."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import User, program


@pytest.mark.parametrize(
    "arguments",
    [
        ["init", ""],
        ["mount", ""],
        ["umount", ""],
        ["restore", "latest", "--target", ""],
        ["stats", "--repository", ""],
        ["stats", "--password-file", ""],
        ["stats", "--cache-dir="],
    ],
)
def test_an_empty_name_is_never_the_working_directory(user: User, tmp_path: Path, arguments: list[str]) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    done = user.run(*arguments, code=2, cwd=folder)
    assert "empty" in done.err
    assert [] == list(folder.iterdir())


@pytest.mark.parametrize("arguments", [["--json", "key"], ["--json"], ["--json", "snapshot"]])
def test_a_missing_command_with_json_is_a_document(newcomer: User, arguments: list[str]) -> None:
    error = json.loads(newcomer.run(*arguments, code=2).err)["error"]
    assert "command" in error["message"]


@pytest.mark.parametrize("closing", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams_are_no_error(user: User, closing: str) -> None:
    line = " ".join(shlex.quote(word) for word in [*program(), "stats"])
    command = ["sh", "-c", f"{line} {closing}"]
    done = subprocess.run(command, capture_output=True, env=user.environment, check=False, text=True)
    assert (0, "") == (done.returncode, done.stderr)


def test_a_password_command_that_is_not_there_is_named(user: User) -> None:
    done = user.run("stats", "--password-command", "no-such-program --now", code=1)
    assert "no-such-program: No such file or directory" in done.err
    assert "Errno" not in done.err


def test_nobody_to_ask_for_a_new_password_names_the_options_for_it(user: User) -> None:
    assert "--new-password-file" in user.run("key", "add", code=2).err


def test_a_path_that_is_not_there_is_named_as_it_was_given(user: User, tree: Path) -> None:
    user.snapshot(str(tree))
    done = user.run("ls", "latest:/no//such/folder/", code=1)
    assert "/no/such/folder" in done.err
    assert "backthen ls" in done.err


def test_slashes_that_mean_nothing_do_not_come_back(user: User, tree: Path) -> None:
    user.snapshot(str(tree))
    document = user.run("ls", "--json", f"latest:/{tree}//").document
    assert str(tree) == document["path"]


def test_a_relative_path_after_a_snapshot_is_explained(user: User, tree: Path) -> None:
    user.snapshot(str(tree))
    assert "absolute" in user.run("ls", "latest:below", code=1).err


def test_a_restore_into_the_repository_is_refused(user: User, tree: Path) -> None:
    user.snapshot(str(tree))
    target = user.home / "repository" / "packs" / "here"
    done = user.run("restore", "latest", "--target", str(target), code=1)
    assert "inside the repository" in done.err
    assert not target.exists()


def test_a_mistyped_recovery_key_is_a_wrong_password(user: User) -> None:
    key = str(user.run("key", "recovery-key", "--json").document["recovery_key"])
    mistyped = ("B" if key[0] == "A" else "A") + key[1:]
    variables = {"BACKTHEN_PASSWORD_FILE": "", "BACKTHEN_PASSWORD": mistyped}
    assert "mistyped" in user.run("stats", code=12, variables=variables).err


def test_an_unknown_key_in_the_configuration_is_not_told_to_the_quiet(user: User) -> None:
    folder = user.home / "config" / "backthen"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text('colour = "blue"\n')
    assert "colour" in user.run("stats").err
    assert "" == user.run("stats", "-q").err


def test_verbose_says_what_is_done(user: User, tree: Path) -> None:
    assert "" == user.run("snapshot", "create", str(tree)).err
    assert str(user.home / "repository") in user.run("snapshot", "create", "-v", str(tree)).err
    assert "letter.txt" in user.run("snapshot", "create", "-vv", "--parent", "none", str(tree)).err


def test_an_interrupt_while_the_program_is_loaded_is_told_in_one_sentence(newcomer: User) -> None:
    code = """
import sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
from backthen.cli.main import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=newcomer.environment, check=False
    )
    assert (130, "backthen: interrupted\n") == (done.returncode, done.stderr)


def test_a_mountpoint_is_named_without_the_folders_that_were_only_passed_through(user: User, past: Path) -> None:
    passed = user.home / "passed"
    passed.mkdir()
    document = user.run("mount", "--json", "../Past", cwd=passed).document
    assert str(past) == document["mountpoint"]
    assert ".." not in str(document["log"])
    passed.rmdir()
    user.run("umount", str(document["mountpoint"]))


@pytest.mark.parametrize(
    ("location", "variables"),
    [
        ("s3://bucket", {}),
        ("s3://bucket", {"AWS_ACCESS_KEY_ID": "half"}),
        ("s3://bucket", {"AWS_PROFILE": "nobody"}),
        ("gs://bucket", {}),
        ("gs://bucket", {"GOOGLE_APPLICATION_CREDENTIALS": "/nowhere"}),
        ("az://container", {}),
        ("az://container", {"AZURE_STORAGE_ACCOUNT": "me"}),
        ("sftp://nas/folder", {}),
    ],
)
def test_credentials_that_are_missing_here_are_a_wrong_usage_of_every_storage(
    newcomer: User, location: str, variables: dict[str, str]
) -> None:
    (newcomer.home / ".ssh").mkdir()
    (newcomer.home / ".ssh" / "config").write_text("Port many\n")
    error = newcomer.run("-r", location, "snapshot", "list", code=2, variables=variables).err
    assert error.count("\n") == 2  # a sentence, and what can be done


@pytest.mark.parametrize(
    "location", ["sftp:me@nas:/backups", "s3:bucket/prefix", "s3:/bucket", "rest:http://host/", "me@nas:/backups"]
)
def test_a_location_as_other_programs_write_it_is_no_folder(newcomer: User, location: str, tmp_path: Path) -> None:
    done = newcomer.run("init", location, code=2, cwd=tmp_path)
    assert "the location is not one" in done.err
    assert location not in done.err
    newcomer.run("-r", location, "snapshot", "list", code=2, cwd=tmp_path)
    assert ["home"] == [path.name for path in tmp_path.iterdir()]
