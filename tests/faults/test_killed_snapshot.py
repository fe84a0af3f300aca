"""The program killed at any moment: nothing reported is lost, nothing half-done is shown, the next run goes on.

A snapshot that was logged but not yet reported when the kill came may be shown: then it is whole.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.conftest import User, program, settle
from tests.support.damage_scene import Contents, contents_of
from tests.support.killing import Moment, kill_at, moments, sample
from tests.support.prepared_program import PreparedProgram
from tests.support.victims import copy_of, restored, shown_ids, stored_bytes

MIB = 1 << 20
SNAPSHOT_KILLS = 22
INIT_KILLS = 5
PASSWORD_KILLS = 5


def _with_first_snapshot(user: User, tree: Path) -> tuple[str, Contents]:
    """A snapshot that was reported; then the tree changes, so that the next one stores data and pages."""
    for number in range(4):
        (tree / f"folder {number}").mkdir()
        (tree / f"folder {number}" / "note").write_text(f"{number}\n")
    first, contents = user.snapshot(str(tree)), contents_of(tree)
    (tree / "new").write_bytes(random.Random(1).randbytes(900_000))
    (tree / "folder 2" / "note").write_text("changed\n")
    os.link(tree / "new", tree / "folder 3" / "further name")
    return first, contents


def test_a_snapshot_killed_anywhere_harms_nothing_and_the_next_one_goes_on(
    tmp_path: Path, prepared: PreparedProgram, user: User, tree: Path
) -> None:
    first, contents = _with_first_snapshot(user, tree)
    command = ("snapshot", "create", "-q", str(tree))
    undisturbed = copy_of(user, tmp_path / "undisturbed")
    found = moments(undisturbed, tmp_path / "log", [undisturbed.home], *command)
    bytes_max = stored_bytes(undisturbed) + 16_384  # a few roots, index objects and pages more
    assert len(found) > 2 * SNAPSHOT_KILLS
    kills, logged = 0, 0
    for number, moment in enumerate(_with_commits(found)):
        victim = copy_of(user, tmp_path / f"victim {number}")
        kills += kill_at(victim, moment, *command)
        shown = shown_ids(prepared, victim)
        logged += len(shown) - 1
        assert shown[0] == first and len(shown) <= 2, moment
        assert contents == restored(prepared, victim, first, tree)
        assert [contents_of(tree)] * (len(shown) - 1) == [restored(prepared, victim, id_, tree) for id_ in shown[1:]]
        prepared.run(victim, "check", "--read-data")
        prepared.run(victim, *command)
        assert contents_of(tree) == restored(prepared, victim, shown_ids(prepared, victim)[-1], tree)
        prepared.run(victim, "check", "--read-data")
        assert [] == list((victim.home / "repository" / "tmp").iterdir()), f"left after {moment}"
        assert stored_bytes(victim) <= bytes_max, f"stored twice after {moment}"
        shutil.rmtree(victim.home)
    assert kills > SNAPSHOT_KILLS * 2 // 3, "most kills must come before the end"
    assert 0 < logged < kills / 2, "the kills fell only on one side of the log entry"


def _with_commits(found: Sequence[Moment]) -> list[Moment]:
    """A sample of all, and in any case every moment in which an object gets its name."""
    named = [moment for moment in found if moment.call in ("link", "linkat")]
    after = [found[found.index(moment) + 1] for moment in named]
    return list(dict.fromkeys([*sample(found, SNAPSHOT_KILLS - len(named)), *named, *after[-1:]]))


def test_packs_of_a_killed_snapshot_are_not_stored_again(tmp_path: Path, prepared: PreparedProgram, user: User) -> None:
    """100 MiB of random data are four packs, none of them indexed before the end."""
    tree = tmp_path / "large tree"
    tree.mkdir()
    for number in range(4):
        (tree / str(number)).write_bytes(random.Random(number).randbytes(25 * MIB))
    kills: list[tuple[str, int]] = [("linkat", 3), ("linkat", 5)]
    for call, number in kills:
        victim = copy_of(user, tmp_path / f"victim {number}")
        assert kill_at(victim, Moment(call, number, False, True, ""), "snapshot", "create", str(tree))
        assert [] == shown_ids(prepared, victim)
        before = _stored_packs(victim)
        assert len(before) == min(number - 1, 4)
        done = prepared.run(victim, "snapshot", "create", "--json", str(tree))
        added = done.events[-1]["bytes_added"]
        assert isinstance(added, int)
        assert before.keys() <= _stored_packs(victim).keys()
        assert sum(before.values()) + added < 102 * MIB
        assert stored_bytes(victim) < 102 * MIB
        prepared.run(victim, "check", "--read-data")
        if number == 3:
            assert contents_of(tree) == restored(prepared, victim, "latest", tree)
        shutil.rmtree(victim.home)


def _stored_packs(user: User) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in (user.home / "repository" / "packs").glob("*/*")}


# A run of many hours: what it has put as unfinished


CHECKPOINTING = """
import os, signal, sys
from backthen.cli.main import run
from backthen.repository.backup import snapshot
from backthen.repository.catalog import Catalog
snapshot._CHECKPOINT_NS = 0
put_partial = Catalog.put_partial
def put_and_die(self, root):
    put_partial(self, root)
    if root.statistics.files == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
Catalog.put_partial = put_and_die
sys.exit(run(sys.argv[2:]))
"""


@dataclass(frozen=True)
class Interrupted:
    """A tree of eight files in folders, and a user whose snapshot of it was killed after the fifth."""

    user: User
    tree: Path


@pytest.fixture
def interrupted(tmp_path: Path, newcomer: User, request: pytest.FixtureRequest) -> Interrupted:
    tree = tmp_path / "tree"
    for number in range(8):
        folder = tree / f"folder {number}"
        folder.mkdir(parents=True)
        (folder / "data").write_bytes(random.Random(number).randbytes(300_000))
    user = request.getfixturevalue("user")  # only now: what was made in the tick of a snapshot's begin is read again
    done = subprocess.run(
        [sys.executable, "-c", CHECKPOINTING, "5", "snapshot", "create", str(tree)],
        env=user.environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return Interrupted(user, tree)


def test_what_a_long_run_put_is_not_shown_and_is_taken_up(interrupted: Interrupted) -> None:
    user, tree = interrupted.user, interrupted.tree
    assert user.run("snapshot", "list", "--json").document == {"snapshots": []}
    user.run("snapshot", "show", "latest", code=1)
    assert len(list((user.home / "repository" / "roots").iterdir())) >= 5
    user.run("check", "--read-data")
    summary = user.run("snapshot", "create", "--json", str(tree)).events[-1]
    assert (5, 3, 3 * 300_000) == (summary["files_unchanged"], summary["files_new"], summary["bytes_read"])
    assert isinstance(summary["bytes_added"], int)
    assert 3 * 300_000 < summary["bytes_added"] < 3.2 * 300_000
    user.run("restore", "latest", "--target", str(user.home / "target"))
    assert contents_of(tree) == contents_of(user.home / "target" / str(tree).lstrip("/"))
    user.run("check", "--read-data")


def test_what_a_long_run_put_vouches_for_nothing(interrupted: Interrupted) -> None:
    """A pack that it stored and that is gone since is found missing, and its files are read again."""
    user, tree = interrupted.user, interrupted.tree
    largest = max((user.home / "repository" / "packs").glob("*/*"), key=lambda path: path.stat().st_size)
    largest.unlink()
    summary = user.run("snapshot", "create", "--json", str(tree)).events[-1]
    assert isinstance(summary["files_unchanged"], int)
    assert summary["files_unchanged"] < 5
    user.run("restore", "latest", "--target", str(user.home / "target"))
    assert contents_of(tree) == contents_of(user.home / "target" / str(tree).lstrip("/"))


# Everything else that writes


def test_init_killed_anywhere_leaves_none_or_one_that_works(
    tmp_path: Path, prepared: PreparedProgram, newcomer: User
) -> None:
    undisturbed = _prospective(newcomer, tmp_path / "undisturbed")
    found = moments(undisturbed, tmp_path / "log", [undisturbed.home], "init")
    named = [moment for moment in found if moment.call in ("link", "linkat")]
    assert len(named) == 2, "the key slot, then the configuration"
    outcomes, half_made = set(), 0
    for number, moment in enumerate(dict.fromkeys([*named, *sample(found, INIT_KILLS)])):
        user = _prospective(newcomer, tmp_path / f"victim {number}")
        kill_at(user, moment, "init")
        slots, config = user.home / "repository" / "keys", user.home / "repository" / "config"
        half_made += slots.exists() and any(slots.iterdir()) and not config.exists()
        # 1: there is one already, and it was left as it is
        outcomes.add(prepared.run(user, "init", code=None).code)
        prepared.run(user, "snapshot", "create", "-q", user.variables["BACKTHEN_PASSWORD_FILE"])
        prepared.run(user, "check", "--read-data")
        assert len(list(slots.iterdir())) == 1
    assert {0, 1} == outcomes
    assert half_made


def _prospective(newcomer: User, home: Path) -> User:
    """Somebody in a home of his own who is about to make a repository."""
    user = copy_of(newcomer, home)
    settle(user)
    return user


def test_a_password_change_killed_anywhere_leaves_a_way_in(
    tmp_path: Path, prepared: PreparedProgram, user: User
) -> None:
    new = user.home / "new password"
    new.write_text("a new password\n")
    command = ("key", "change-password", "--new-password-file", str(new))
    undisturbed = copy_of(user, tmp_path / "undisturbed")
    found = moments(undisturbed, tmp_path / "log", [undisturbed.home / "repository"], *command)
    opened = set()
    for number, moment in enumerate(sample(found, PASSWORD_KILLS)):
        victim = copy_of(user, tmp_path / f"victim {number}")
        assert kill_at(victim, moment, *command)
        ways = (victim.variables["BACKTHEN_PASSWORD_FILE"], str(new))
        codes = [
            prepared.run(victim, "snapshot", "list", code=None, variables={"BACKTHEN_PASSWORD_FILE": way}).code
            for way in ways
        ]
        assert 0 in codes and set(codes) <= {0, 12}, moment
        opened.add(tuple(codes))
        prepared.run(victim, "check", variables={"BACKTHEN_PASSWORD_FILE": ways[codes.index(0)]})
    assert (0, 12) in opened, "some kills come before there is a new way in"
    assert opened & {(0, 0), (12, 0)}, "some kills come after"


def test_a_mount_killed_while_it_is_read_leaves_everything_whole(
    prepared: PreparedProgram, user: User, tree: Path, past: Path
) -> None:
    (tree / "large").write_bytes(random.Random(3).randbytes(30 * MIB))
    prepared.run(user, "snapshot", "create", "-q", str(tree))
    started = prepared.run(user, "mount", "--json", str(past)).document
    large = past / "latest" / str(tree).lstrip("/") / "large"
    has_begun = threading.Event()
    failures: list[int | None] = []

    def read_for_ever() -> None:
        try:
            while True:
                descriptor = os.open(large, os.O_RDONLY)
                try:
                    while os.read(descriptor, MIB):
                        has_begun.set()
                finally:
                    os.close(descriptor)
        except OSError as error:
            failures.append(error.errno)

    reader = threading.Thread(target=read_for_ever)
    reader.start()
    assert has_begun.wait(60)
    os.kill(int(str(started["pid"])), signal.SIGKILL)
    reader.join(60)
    assert not reader.is_alive(), "a reader hangs on a mount that was killed"
    assert len(failures) == 1
    prepared.run(user, "snapshot", "create", "-q", str(tree))
    prepared.run(user, "check", "--read-data")
    prepared.run(user, "mount", str(past))
    assert large.read_bytes() == (tree / "large").read_bytes()
    prepared.run(user, "umount", str(past))


def test_interrupted_by_the_user_it_says_so_and_the_next_one_goes_on(
    prepared: PreparedProgram, user: User, tmp_path: Path
) -> None:
    tree = tmp_path / "large tree"
    tree.mkdir()
    for number in range(3):
        (tree / str(number)).write_bytes(random.Random(number).randbytes(20 * MIB))
    process = subprocess.Popen(
        [*program(), "snapshot", "create", "--json", str(tree)],
        env=user.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while not _stored_packs(user) and process.poll() is None:
        pass
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    assert b"Traceback" not in err
    assert [] == shown_ids(prepared, user)
    summary = json.loads(prepared.run(user, "snapshot", "create", "--json", str(tree)).out.splitlines()[-1])
    assert summary["bytes_added"] < 45 * MIB
    assert [] == list((user.home / "repository" / "tmp").iterdir())
