"""A walk in another process, and what becomes of the tree, and of that process, before its names are read."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from backthen.repository import (
    Client,
    ExclusionRules,
    Folders,
    Repository,
    Silent,
    SnapshotRequest,
    WalkApart,
    create_repository,
    create_snapshot,
    find_repository,
    now_ns,
    open_storage,
    read_file,
    walk_apart,
)
from backthen.repository.source import (
    EnterDirectory,
    Event,
    Items,
    LeaveDirectory,
    Problem,
    Spill,
    WalkStopped,
    receive_events,
    saved_paths,
    send_events,
    walk,
)
from backthen.repository.source.walk import DESCRIPTORS_MAX
from tests.support.memory_storage import MemoryStorage

CLIENT = Client("host", "user", "program")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder of all kinds, deeper than descriptors are kept open."""
    tree = tmp_path / "tree"
    folder = tree
    for number in range(DESCRIPTORS_MAX + 10):
        folder = folder / f"{number:02d}"
    folder.mkdir(parents=True)
    os.setxattr(tree, "user.colour", b"green")
    for above in (tree, *folder.relative_to(tree).parents[:-1], folder.relative_to(tree)):
        (tree / above / "a file").write_bytes(str(above).encode())
        (tree / above / "link").symlink_to("a file")
    os.mkfifo(tree / "pipe")
    return tree


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "cache", tmp_path / "state")


@pytest.fixture
def repository(tmp_path: Path, folders: Folders) -> Repository:
    return create_repository(open_storage(str(tmp_path / "repository")), b"password", folders, CLIENT)


class Telling(Silent):
    """Keeps what could not be saved."""

    def __init__(self) -> None:
        self.problems: list[bytes] = []

    def problem(self, path: bytes, message: str) -> None:
        self.problems.append(path)


def sent(tree: Path) -> bytes:
    """The walk of a folder, as it is passed on."""
    passed = io.BytesIO()
    with closing(walk(saved_paths([os.fsencode(tree)]), _spill(tree))) as events:
        send_events(events, passed)
    return passed.getvalue()


def walked_before(tree: Path) -> WalkApart:
    """The walk of a folder as it is now, by a process that has come to its end."""
    return WalkApart(_ended_process(), io.BytesIO(sent(tree)), now_ns())


def shown(event: Event) -> object:
    """All that an event says."""
    if isinstance(event, Items):
        return event.directory.path, [(name, _status(status)) for name, status in event.found]
    if isinstance(event, EnterDirectory):
        return event.path, _status(event.status), event.directory.read_xattrs()
    if isinstance(event, LeaveDirectory):
        return event.directory.path, event.error
    assert isinstance(event, Problem)
    return event.path, event.message


def content(repository: Repository, path: Path) -> bytes:
    """What the newest snapshot has of a file."""
    info = repository.snapshots()[-1]
    node = repository.tree(info).resolve(repository.blobs.source, os.fsencode(path))
    return bytes(read_file(repository.blobs.source, node.entry, 0, node.entry.size))


def test_what_is_received_is_what_was_walked(tree: Path) -> None:
    # The folders above the tree are those of the machine, whose other programs change them.
    def below(shown: list[object]) -> list[object]:
        return [each for each in shown if isinstance(each, tuple) and each[0].startswith(os.fsencode(tree))]

    here = walk(saved_paths([os.fsencode(tree)]), _spill(tree))
    with closing(here), closing(receive_events(io.BytesIO(sent(tree)))) as received:
        expected, found = below([shown(event) for event in here]), below([shown(event) for event in received])
    assert expected == found
    assert len(found) > 3 * DESCRIPTORS_MAX


def test_folders_are_opened_when_they_are_needed_and_not_all_at_once(tree: Path) -> None:
    read = []
    open_before = len(os.listdir("/proc/self/fd"))
    most = 0
    with closing(receive_events(io.BytesIO(sent(tree)))) as events:
        for event in events:
            if isinstance(event, Items) and event.directory.path.startswith(os.fsencode(tree)):
                names = [name for name, _ in event.found]
                if b"a file" in names:
                    path = b"/proc/self/fd/%d/a file" % event.directory.descriptor
                    read.append(Path(os.fsdecode(path)).read_bytes())
                most = max(most, len(os.listdir("/proc/self/fd")) - open_before)
    assert DESCRIPTORS_MAX + 11 == len(read)
    assert len(set(read)) == len(read)
    assert most <= DESCRIPTORS_MAX + 1
    assert open_before == len(os.listdir("/proc/self/fd"))


def test_a_folder_that_another_stands_for_is_not_read(repository: Repository, tree: Path) -> None:
    walked = walked_before(tree)
    (tree / "00").rename(tree.parent / "moved")
    (tree / "00").symlink_to("/etc")
    telling = Telling()
    with repository, walked:
        create_snapshot(repository, SnapshotRequest((os.fsencode(tree),), "host"), telling, walked)
    assert os.fsencode(tree / "00" / "a file") in telling.problems
    assert all(path.startswith(os.fsencode(tree / "00")) for path in telling.problems)


def test_a_file_that_was_replaced_meanwhile_is_saved_as_it_is_now(repository: Repository, tree: Path) -> None:
    walked = walked_before(tree)
    (tree / "new").write_bytes(b"another file")
    (tree / "new").rename(tree / "a file")
    telling = Telling()
    with repository, walked:
        create_snapshot(repository, SnapshotRequest((os.fsencode(tree),), "host"), telling, walked)
        assert b"another file" == content(repository, tree / "a file")
    assert [] == telling.problems


@pytest.mark.parametrize("part", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: data[:-1]])
def test_where_the_walk_stops_early_the_rest_is_walked_here(
    repository: Repository, tree: Path, part: Callable[[bytes], bytes]
) -> None:
    cut = part(sent(tree))
    with pytest.raises(WalkStopped):
        list(receive_events(io.BytesIO(cut)))
    walked = WalkApart(_ended_process(), io.BytesIO(cut), now_ns())
    with repository, walked:
        report = create_snapshot(repository, SnapshotRequest((os.fsencode(tree),), "host"), Silent(), walked)
        assert b"00" == content(repository, tree / "00" / "a file")
    assert DESCRIPTORS_MAX + 11 == report.statistics.files


def test_no_process_is_made_where_there_are_threads_or_connections(
    repository: Repository, tmp_path: Path, folders: Folders
) -> None:
    repository.close()
    here = find_repository(open_storage(str(tmp_path / "repository")), folders)
    elsewhere = MemoryStorage()
    create_repository(elsewhere, b"password", folders, CLIENT).close()
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        assert walk_apart(here, (b"/etc",), ExclusionRules, one_file_system=False) is None
    finally:
        end.set()
        thread.join()
    assert walk_apart(find_repository(elsewhere, folders), (b"/etc",), ExclusionRules, one_file_system=False) is None


def test_who_may_have_no_more_processes_walks_here(
    repository: Repository, tmp_path: Path, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.close()
    here = find_repository(open_storage(str(tmp_path / "repository")), folders)
    open_before = os.listdir("/proc/self/fd")
    monkeypatch.setattr("backthen.repository.walking.can_fork", lambda: True)
    monkeypatch.setattr(os, "fork", _refuse)
    assert walk_apart(here, (b"/etc",), ExclusionRules, one_file_system=False) is None
    assert open_before == os.listdir("/proc/self/fd")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_process_is_gone_when_the_walk_is_left(
    repository: Repository, tmp_path: Path, tree: Path, folders: Folders
) -> None:
    """Nobody reads the pipe; the process is a program's own, since this one may have threads."""
    repository.close()
    script = (
        "import os, sys; from pathlib import Path; from backthen.repository import *\n"
        "from backthen.repository import ExclusionRules, Folders, find_repository, open_storage, walk_apart\n"
        "repository, cache, state, tree = sys.argv[1:]\n"
        "locked = find_repository(open_storage(repository), Folders(Path(cache), Path(state)))\n"
        "with walk_apart(locked, (os.fsencode(tree),), ExclusionRules, one_file_system=False) as walk:\n"
        "    events = walk.events(); next(events); events.close()\n"
        "try: os.waitpid(-1, os.WNOHANG)\n"
        "except ChildProcessError: print('gone')\n"
    )
    arguments = [tmp_path / "repository", folders.cache, folders.state, tree]
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    assert "gone\n" == done.stdout


def _status(status: object) -> tuple[int, ...]:
    names = ("st_mode", "st_ino", "st_dev", "st_nlink", "st_uid", "st_size", "st_mtime_ns", "st_ctime_ns", "st_blocks")
    return tuple(getattr(status, name) for name in names)


def _refuse() -> int:
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def _ended_process() -> int:
    return os.posix_spawnp("true", ["true"], {})


def _spill(tree: Path) -> Spill:
    return Spill(tree.parent / "spill", lambda block: block, lambda block: block)
