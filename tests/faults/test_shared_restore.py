"""A restore of many small files, which other processes make, and what becomes of it when they are stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from backthen.repository.processes import WORKERS
from tests.cli.conftest import TIMEOUT_S, User, program
from tests.support.comparison import Aspects, differences
from tests.support.generator import make_tree

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) == 1, reason="one core is not shared")

FILES = 4_000
FOLDERS = 150


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A tree large enough to be shared out."""
    tree = tmp_path / "many"
    make_tree(tree, files=FILES, folders=FOLDERS)
    (tree / "0").mkdir(exist_ok=True)
    os.link(next(path for path in tree.rglob("*") if path.is_file()), tree / "0" / "further name")
    return tree


def _begin(user: User, tree: Path, target: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*program(), "restore", f"latest:{tree}", "--target", str(target)],
        env=user.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _wait_for_children(process: subprocess.Popen[bytes]) -> list[int]:
    deadline = time.monotonic() + TIMEOUT_S
    while len(children := _children(process.pid)) < WORKERS:
        assert process.poll() is None and time.monotonic() < deadline, "the work was not shared"
    return children


def _are_gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_what_is_shared_comes_back_the_same(user: User, many: Path, tmp_path: Path) -> None:
    user.snapshot(str(many))
    target = tmp_path / "target"
    with _begin(user, many, target) as process:
        children = _wait_for_children(process)
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert (0, b"") == (process.returncode, err)
    assert [] == list(differences(os.fsencode(many), os.fsencode(target), Aspects()))
    assert _are_gone(children)
    files, folders = (sum(map(is_kind, many.rglob("*"))) for is_kind in (Path.is_file, Path.is_dir))
    assert f"{files:,} files, {folders:,} folders".encode() in out
    done = user.run("restore", f"latest:{many}", "--target", str(target))
    assert "" == done.err
    assert [] == list(differences(os.fsencode(many), os.fsencode(target), Aspects()))


def test_a_process_that_is_killed_ends_the_restore_in_one_sentence(user: User, many: Path, tmp_path: Path) -> None:
    user.snapshot(str(many))
    with _begin(user, many, tmp_path / "target") as process:
        children = _wait_for_children(process)
        os.kill(children[0], signal.SIGKILL)
        _, err = process.communicate(timeout=TIMEOUT_S)
    lines = err.decode().splitlines()
    assert (1, 2) == (process.returncode, len(lines)), lines
    assert lines[0] == "backthen: a process that did part of the work was ended by SIGKILL"
    assert _are_gone(children)
    user.run("restore", f"latest:{many}", "--target", str(tmp_path / "target"))
    found = differences(os.fsencode(many), os.fsencode(tmp_path / "target"), Aspects())
    assert [] == [difference for difference in found if not difference.startswith("b''")], "but for the target itself"


def test_an_interrupted_one_leaves_no_process_and_no_half_file(user: User, many: Path, tmp_path: Path) -> None:
    user.snapshot(str(many))
    target = tmp_path / "target"
    process = subprocess.Popen(
        [*program(), "restore", f"latest:{many}", "--target", str(target)],
        env=user.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
    )
    with process:
        children = _wait_for_children(process)
        while not any(path.is_file() for path in target.rglob("*")):
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, err = process.communicate(timeout=TIMEOUT_S)
    assert (130, b"backthen: interrupted\n") == (process.returncode, err)
    assert _are_gone(children)
    for path in target.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (many / path.relative_to(target)).read_bytes()


def test_killed_it_leaves_no_process(user: User, many: Path, tmp_path: Path) -> None:
    user.snapshot(str(many))
    with _begin(user, many, tmp_path / "target") as process:
        children = _wait_for_children(process)
        process.kill()
        process.communicate(timeout=TIMEOUT_S)  # waits until each of them has closed its standard error
    deadline = time.monotonic() + TIMEOUT_S
    while not _are_gone(children):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_damage_is_named_as_ever(user: User, many: Path, tmp_path: Path) -> None:
    user.snapshot(str(many))
    packs = user.data_packs
    pack = next(
        path
        for path in (user.home / "repository" / "packs").rglob("*")
        if path.name == max(packs, key=packs.__getitem__)
    )
    data = bytearray(pack.read_bytes())
    data[100] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)
    done = user.run("restore", f"latest:{many}", "--target", str(tmp_path / "target"), code=13)
    damaged = [line for line in done.err.splitlines() if "authentication failed" in line]
    assert damaged
    lost = {path.relative_to(many) for path in many.rglob("*")} - {
        path.relative_to(tmp_path / "target") for path in (tmp_path / "target").rglob("*")
    }
    assert len(damaged) == len(lost)


def test_what_a_full_disk_ends_is_told_in_one_sentence(user: User, many: Path, tmp_path: Path) -> None:
    user.snapshot(str(many))
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    (tmp_path / "disk").mkdir()
    script = f'mount -t tmpfs -o size=4M none {tmp_path}/disk\nexec "$@"'
    user.prefix = (*namespace, "sh", "-e", "-c", script, "sh")
    done = user.run("restore", f"latest:{many}", "--target", str(tmp_path / "disk" / "target"), code=1)
    assert done.err.splitlines()[0].endswith("cannot be written: No space left on device"), done.err
    assert 1 <= len(done.err.splitlines()) <= 2
