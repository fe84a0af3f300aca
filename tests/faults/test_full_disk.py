"""Disks that are full, read-only or failing, under the repository, the cache, the state and the source.

Each is told in one clear sentence, nothing hangs, and what was saved before is whole. The disks are tmpfs in a mount
namespace in which the program runs.
"""

from __future__ import annotations

import os
import random
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import PASSWORD, User, program
from tests.support.damage_scene import CHANGES, Scene, contents_of, spoil
from tests.support.prepared_program import PreparedProgram

KIB = 1024
PAGE = 4 * KIB
NAMESPACE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]


def _in_namespace(script: str) -> list[str]:
    """A command that makes mounts and then becomes what is given to it."""
    return [*NAMESPACE, "sh", "-e", "-c", f'{script}\nexec "$@"', "sh"]


@contextmanager
def _with_disk(tmp_path: Path, disk: Path, size: int) -> Iterator[PreparedProgram]:
    """The program where a disk of that many bytes is mounted."""
    disk.mkdir()
    (tmp_path / "output").mkdir()
    script = f"mount -t tmpfs -o size={size} none {shlex.quote(str(disk))}"
    with PreparedProgram(tmp_path / "output", prefix=_in_namespace(script)) as prepared:
        prepared.run(User(tmp_path), "--version")  # answered once the disk is there
        yield prepared


def _leave_room(disk: Path, free: int) -> None:
    """Fill a disk up to so many bytes."""
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    room = os.statvfs(disk)
    size = room.f_bavail * room.f_frsize - free
    assert size >= 0
    filler.write_bytes(bytes(size))


def _assert_one_sentence(message: str) -> None:
    """One line that says what happened, one that says what to do."""
    lines = message.splitlines()
    assert (2, True, True) == (len(lines), lines[0].startswith("backthen: "), lines[1].startswith("  ")), message


def _ids(prepared: PreparedProgram, user: User) -> list[str]:
    snapshots = prepared.run(user, "snapshot", "list", "--json").document["snapshots"]
    assert isinstance(snapshots, list)
    return [snapshot["id"] for snapshot in snapshots]


@pytest.fixture
def prospective(newcomer: User) -> User:
    """A newcomer with a password file who has named a repository on a disk of its own."""
    password = newcomer.home / "password"
    password.write_text(PASSWORD)
    password.chmod(0o600)
    newcomer.variables["BACKTHEN_PASSWORD_FILE"] = str(password)
    newcomer.variables["BACKTHEN_REPOSITORY"] = str(newcomer.home / "disk" / "repository")
    return newcomer


# The repository


@pytest.mark.timeout(100)
def test_a_repository_whose_disk_fills_up(tmp_path: Path, prospective: User, tree: Path) -> None:
    user, disk = prospective, prospective.home / "disk"
    with _with_disk(tmp_path, disk, 8 << 20) as prepared:
        prepared.run(user, "init")
        prepared.run(user, "snapshot", "create", "-q", str(tree))
        contents, before = contents_of(tree), _ids(prepared, user)
        (tree / "too large").write_bytes(random.Random(1).randbytes(20 << 20))
        done = prepared.run(user, "snapshot", "create", str(tree), code=14)
        assert "the disk is full" in done.err or "No space left" in done.err
        _assert_one_sentence(done.err)
        assert before == _ids(prepared, user)
        assert [] == os.listdir(f"{prepared.root}{disk}/repository/tmp"), "what did not fit gives its room back"
        prepared.run(user, "check", "--read-data")
        prepared.run(user, "restore", before[0], "--target", str(user.home / "target"))
        assert contents == contents_of(user.home / "target" / str(tree).lstrip("/"))
        prepared.run(user, "snapshot", "create", "-q", "--exclude", "too large", str(tree))


@pytest.mark.timeout(100)
def test_a_disk_that_fills_up_at_any_object(tmp_path: Path, prospective: User, tree: Path) -> None:
    """From no room at all to enough: data, pages, index objects, root and log entry do not fit in turn."""
    user, disk = prospective, prospective.home / "disk"
    with _with_disk(tmp_path, disk, 4 << 20) as prepared:
        prepared.run(user, "init")
        prepared.run(user, "snapshot", "create", "-q", str(tree))
        codes = []
        for number, pages in enumerate((0, 1, 2, 4, 6, 8, 9, 10, 11, 12, 13, 14, 16, 40)):
            (tree / "letter.txt").write_bytes(random.Random(number).randbytes(9000))
            before = _ids(prepared, user)
            _leave_room(Path(f"{prepared.root}{disk}"), pages * PAGE)
            done = prepared.run(user, "snapshot", "create", "-q", str(tree), code=None)
            codes.append(done.code)
            after = _ids(prepared, user)
            if done.code == 0:
                assert before == after[:-1]
            else:
                assert (14, before) == (done.code, after[: len(before)])
                _assert_one_sentence(done.err)
            prepared.run(user, "check", "--read-data")
        assert {14, 0} == set(codes)
        assert codes == sorted(codes, reverse=True)


@pytest.mark.timeout(100)
def test_init_on_a_full_disk(tmp_path: Path, prospective: User, tree: Path) -> None:
    """It leaves nothing in the way of the next attempt."""
    user, disk = prospective, prospective.home / "disk"
    with _with_disk(tmp_path, disk, 1 << 20) as prepared:
        codes: list[int] = []
        while 0 not in codes:
            _leave_room(Path(f"{prepared.root}{disk}"), len(codes) * PAGE)
            done = prepared.run(user, "init", code=None)
            codes.append(done.code)
            if done.code:
                assert "the disk is full" in done.err
                _assert_one_sentence(done.err)
        assert [*[14] * (len(codes) - 1), 0] == codes
        assert len(codes) > 1
        (Path(f"{prepared.root}{disk}") / "filler").unlink()
        prepared.run(user, "snapshot", "create", "-q", str(tree))
        prepared.run(user, "check", "--read-data")


def _run_in_namespace(user: User, script: str, *lines: str) -> list[str]:
    """What each command of a shell printed, when it ended as it should; `PROGRAM` is the program."""
    whole = "\n".join([script, *lines])
    command = [*NAMESPACE, "sh", "-c", f"set -e\n{whole.replace('PROGRAM', shlex.join(program()))}"]
    done = subprocess.run(command, env=user.environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr
    return (done.stdout + done.stderr).splitlines()


def test_a_read_only_repository_can_be_read(user: User, tree: Path, past: Path) -> None:
    user.snapshot(str(tree))
    repository, target = user.home / "repository", user.home / "target"
    said = _run_in_namespace(
        user,
        f"mount --bind {repository} {repository}; mount -o remount,ro,bind {repository}",
        "PROGRAM snapshot list",
        "PROGRAM ls latest > /dev/null",
        f"PROGRAM cat latest:{tree}/letter.txt",
        "PROGRAM check --read-data",
        "PROGRAM stats > /dev/null",
        f"PROGRAM restore latest -q --target {target}",
        f"PROGRAM mount -q {past}",
        f"diff -r --no-dereference {tree} {past}/latest{tree}",
        f"PROGRAM umount {past}",
        f"PROGRAM snapshot create {tree} || echo ended with $?",
        "PROGRAM key recovery-key || echo ended with $?",
    )
    assert contents_of(tree) == contents_of(target / str(tree).lstrip("/"))
    assert "Dear all," in said
    assert 2 == said.count("ended with 14"), said
    assert 2 == sum("read-only" in line.lower() for line in said), said


# Cache and state


@pytest.mark.timeout(100)
def test_a_cache_on_a_full_disk(tmp_path: Path, prepared: PreparedProgram, user: User, tree: Path) -> None:
    """From no room at all to enough. A full disk under memory-mapped files must not kill the process."""
    user.snapshot(str(tree))
    disk = user.home / "cache disk"
    variables = {"BACKTHEN_CACHE_DIR": str(disk)}
    codes: dict[str, list[int]] = {"list": [], "create": []}
    with _with_disk(tmp_path, disk, 4 << 20) as confined:
        inside = Path(f"{confined.root}{disk}")
        for pages in (*range(0, 12, 2), *range(12, 72, 6), 200):
            shutil.rmtree(next(inside.glob("[0-9a-f]*"), inside / "none"), ignore_errors=True)
            _leave_room(inside, pages * PAGE)
            for name, command in (("list", ["snapshot", "list"]), ("create", ["snapshot", "create", "-q", str(tree)])):
                done = confined.run(user, *command, code=None, variables=variables)
                codes[name].append(done.code)
                assert done.code in (0, 1), f"{command} with {pages} pages: {done.code} {done.err}"
                if done.code:
                    assert "cache" in done.err
                    _assert_one_sentence(done.err)
    assert [{0, 1}] * 2 == [set(found) for found in codes.values()]
    prepared.run(user, "check", "--read-data")
    assert 1 + codes["create"].count(0) == len(_ids(prepared, user))


@pytest.mark.parametrize("obstacle", ["read-only", "a file"])
def test_a_cache_that_cannot_be_written_is_named(user: User, tree: Path, obstacle: str) -> None:
    cache = user.home / "another cache"
    if obstacle == "a file":
        cache.write_text("")
        script = ""
    else:
        cache.mkdir()
        script = f"mount --bind '{cache}' '{cache}'; mount -o remount,ro,bind '{cache}'"
    commands = ("snapshot list", f"snapshot create {tree}", f"restore latest --target {user.home}/target", "check")
    user.variables["BACKTHEN_CACHE_DIR"] = str(cache)
    said = _run_in_namespace(user, script, *(f"PROGRAM {command} || echo ended with $?" for command in commands))
    assert len(commands) == said.count("ended with 1")
    assert len(commands) == sum(str(cache) in line for line in said)
    assert len(commands) == sum("--cache-dir" in line for line in said)


def test_a_state_that_cannot_be_written_is_warned_about_and_all_works(user: User, tree: Path) -> None:
    user.snapshot(str(tree))
    state = user.home / "state"
    said = _run_in_namespace(
        user,
        f"mount --bind {state} {state}; mount -o remount,ro,bind {state}",
        f"PROGRAM snapshot create -q {tree}",
        "PROGRAM snapshot list -q",
        f"PROGRAM restore latest -q --target {user.home}/target",
        "PROGRAM check --read-data",
    )
    assert any("cannot be written" in line and str(state) in line and "client id" in line for line in said)
    assert "No fault was found" in said
    assert contents_of(tree) == contents_of(user.home / "target" / str(tree).lstrip("/"))
    # What was remembered before is still held against the repository, and the next run remembers again.
    user.snapshot(str(tree))
    assert "3 snapshots" in user.run("snapshot", "list").text


def test_a_state_that_cannot_be_written_still_notices_a_rollback(user: User, tree: Path) -> None:
    user.snapshot(str(tree))
    shutil.rmtree(user.home / "repository" / "log")
    state = user.home / "state"
    said = _run_in_namespace(
        user,
        f"mount --bind {state} {state}; mount -o remount,ro,bind {state}",
        "PROGRAM snapshot list || echo ended with $?",
    )
    assert "ended with 13" in said
    assert any("older or another past" in line for line in said)


# The source


def test_files_that_fail_while_they_are_read_are_named_and_the_rest_is_saved(
    tmp_path: Path, scene: Scene, mountpoint: Path
) -> None:
    """The failing disk is a mount of Backthen's own whose repository has lost a pack of data."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("this user cannot open /dev/fuse")
    largest = max(scene.objects("packs"), key=lambda name: (scene.kept / "repository" / name).stat().st_size)
    spoil(scene, largest, CHANGES["bit in the middle"], is_cache_cold=False)
    scene.run("mount", str(mountpoint), "--snapshot", f"{scene.ids[1]}:{scene.tree}")
    readable = {}
    for name, data in scene.contents[scene.ids[1]].items():
        try:
            readable[name] = (mountpoint / name).read_bytes()
            assert readable[name] == data
        except OSError:
            continue
    failing = scene.contents[scene.ids[1]].keys() - readable.keys()
    assert failing
    home = tmp_path / "home"
    home.mkdir()
    password = scene.user.variables["BACKTHEN_PASSWORD_FILE"]
    repository = str(home / "repository")
    user = User(home, {"BACKTHEN_PASSWORD_FILE": password, "BACKTHEN_REPOSITORY": repository})
    scene.prepared.run(user, "init")
    done = scene.prepared.run(user, "snapshot", "create", str(mountpoint), code=3)
    assert [] == [name for name in failing if f"{mountpoint}/{name}: " not in done.err]
    assert len(failing) == done.err.count("nput/output error")
    done = scene.prepared.run(user, "restore", "latest", "--target", str(home / "target"), code=3)
    found = contents_of(home / "target" / str(mountpoint).lstrip("/"))
    assert readable == {name: data for name, data in found.items() if name in readable}
    assert failing.isdisjoint(found), "what could not be read does not come back as if it had been"
    scene.prepared.run(user, "check", "--read-data")
    scene.run("umount", str(mountpoint))
