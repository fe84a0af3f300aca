"""Local storage under kills, full and failing disks, read-only media, and folders with hostile content.

strace injects the faults into a child process at a chosen system call, so that the code under test is the real one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backthen.repository.errors import InvalidRequest, ObjectExists, ObjectMissing, RepositoryExists, StorageError
from backthen.repository.storage import CONFIG_NAME, FOLDERS, LocalStorage

DATA = b"whole" * 100_000
NAME = "packs/ab/" + "ab" * 32
OTHER_NAME = "packs/cd/" + "cd" * 32
ACTIONS = ("put", "config", "spool", "elsewhere")
CALLS = ("mkdir", "write", "fsync", "flock", "link,linkat", "rename", "unlink")
CALLS_MAX = 12

CHILD = f"""
import os, sys
from pathlib import Path
from backthen.repository.errors import ObjectExists, StorageError
from backthen.repository.storage import LocalStorage
root, action = Path(sys.argv[1]), sys.argv[2]
storage = LocalStorage(root)
try:
    if action in ("put", "config"):
        storage.put("config" if action == "config" else {NAME!r}, b"whole" * 100_000)
    else:
        storage.put_file({NAME!r}, (storage.spool if action == "spool" else root.parent) / "pack")
except StorageError as error:
    print(f"{{error}} ({{error.hint}})", flush=True)
    os._exit(14)
os._exit(0)
"""


def _new_root(folder: Path) -> Path:
    LocalStorage(folder / "repository").create()
    return folder / "repository"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return _new_root(tmp_path)


def _run(root: Path, action: str, *injections: str) -> subprocess.CompletedProcess[str]:
    """Store an object in a child process while strace injects faults."""
    if action in ("spool", "elsewhere"):
        folder = root / "tmp" if action == "spool" else root.parent
        folder.mkdir(exist_ok=True)
        (folder / "pack").write_bytes(DATA)
    command = [sys.executable, "-c", CHILD, str(root), action]
    if injections:
        assert shutil.which("strace"), "strace is not installed; ci/setup installs it"
        rules = [part for injection in injections for part in ("-e", f"inject={injection}")]
        command = ["strace", "-f", "--seccomp-bpf", "-o", os.devnull, *rules, *command]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def _is_whole(root: Path, name: str) -> bool:
    """Whether the object is there, which must be whole then; cleaning leaves nothing else and a new put works."""
    storage = LocalStorage(root)
    try:
        assert storage.get(name) == DATA
        there = True
    except ObjectMissing:
        there = False
    storage.remove_abandoned_spool()
    assert not storage.spool.exists() or list(storage.spool.iterdir()) == []
    if there:
        with pytest.raises(ObjectExists):
            storage.put(name, DATA)
    else:
        storage.put(name, DATA)
    listed = {stored.name for folder in FOLDERS for stored in storage.list(folder)}
    assert listed == {name} - {CONFIG_NAME}
    return there


@pytest.mark.parametrize(
    ("action", "links"),
    [(action, "hard links") for action in ACTIONS] + [("put", "no hard links"), ("spool", "no hard links")],
)
def test_a_kill_at_any_call_leaves_the_object_whole_or_absent(tmp_path: Path, action: str, links: str) -> None:
    outcomes = []
    for call in CALLS:
        refusal = ["link,linkat:error=EPERM"] if links == "no hard links" and call != "link,linkat" else []
        for count in range(1, CALLS_MAX + 1):
            root = _new_root(tmp_path / f"{call}-{count}")
            done = _run(root, action, *refusal, f"{call}:signal=KILL:when={count}")
            if done.returncode == 0:
                break
            assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done.stderr
            outcomes.append(_is_whole(root, CONFIG_NAME if action == "config" else NAME))
        else:
            pytest.fail(f"{call} is called more often than {CALLS_MAX} times")
    assert set(outcomes) == {True, False}, "the kills fell only on one side of the object's appearance"


_WRITING = [
    ("write:error=ENOSPC:when=1", "the disk is full"),
    ("write:error=EDQUOT:when=1", "quota is used up"),
    ("write:error=EIO:when=1", "input/output error"),
    ("flock:error=ENOLCK", "No locks available"),
]
_PUBLISHING = [
    ("fsync:error=EIO:when=1", "input/output error"),
    ("fsync:error=ENOSPC:when=1", "the disk is full"),
    ("link,linkat:error=EROFS", "read-only"),
    ("link,linkat:error=ENOSPC", "the disk is full"),
    ("link,linkat:error=EACCES", "permission denied"),
]


@pytest.mark.parametrize(
    ("action", "fault", "words"),
    [(action, *case) for action in ("put", "config", "elsewhere") for case in (*_WRITING, *_PUBLISHING)]
    + [("spool", *case) for case in _PUBLISHING],
)
def test_a_failing_disk_is_told_and_no_object_appears(root: Path, action: str, fault: str, words: str) -> None:
    done = _run(root, action, fault)
    assert (done.returncode, words in done.stdout) == (14, True), done.stdout + done.stderr
    storage = LocalStorage(root)
    with pytest.raises(ObjectMissing):
        storage.get(CONFIG_NAME if action == "config" else NAME)
    assert [path.name for path in storage.spool.iterdir()] == (["pack"] if action == "spool" else [])


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_no_object_appears_when_something_before_its_name_did_not_become_durable(root: Path, count: int) -> None:
    done = _run(root, "put", f"fsync:error=EIO:when={count}")
    assert (done.returncode, "input/output error" in done.stdout) == (14, True)
    assert not (root / NAME).exists()


def test_a_put_whose_name_may_not_be_durable_fails_and_the_next_makes_it_durable(root: Path) -> None:
    done = _run(root, "put", "fsync:error=EIO:when=5")
    assert (done.returncode, "input/output error" in done.stdout) == (14, True)
    assert _is_whole(root, NAME)


def test_a_full_disk_stays_readable_and_works_again_with_room(root: Path) -> None:
    script = f"""
mount -t tmpfs -o size=2m none {root}
exec {sys.executable} - {root} <<'END'
import sys
from collections.abc import Callable
from pathlib import Path
from backthen.repository.errors import StorageError
from backthen.repository.storage import LocalStorage
storage = LocalStorage(Path(sys.argv[1]))
storage.create()
names = ["packs/ab/ab" + "%062x" % number for number in range(9)]
stored = []
try:
    for name in names:
        storage.put(name, b"x" * 500_000)
        stored.append(name)
except StorageError as error:
    print(error, error.transient)
print(len(stored), [len(storage.get(name)) for name in stored] == [500_000] * len(stored))
print(sorted(found.name for found in storage.list("packs")) == stored, list(storage.spool.iterdir()))
storage.delete(stored[0])
storage.put(names[-1], b"y" * 500_000)
print(storage.get(names[-1]) == b"y" * 500_000)
END
"""
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    assert "the disk is full False" in lines[0], done.stderr
    assert lines[1:] == ["4 True", "True []", "True"]


def test_a_read_only_repository_is_readable(root: Path) -> None:
    storage = LocalStorage(root)
    storage.put(CONFIG_NAME, b"config")
    storage.put(NAME, DATA)
    script = f"""
mount --bind {root} {root} && mount -o remount,ro,bind {root}
exec {sys.executable} - {root} <<'END'
import sys
from collections.abc import Callable
from pathlib import Path
from backthen.repository.errors import StorageError
from backthen.repository.storage import LocalStorage
storage = LocalStorage(Path(sys.argv[1]))
print(storage.get("config"), len(storage.get({NAME!r})))
print([len(list(storage.list(folder))) for folder in ("packs", "marks")])
for write in (lambda: storage.put({OTHER_NAME!r}, b""), lambda: storage.delete({NAME!r})):
    try:
        write()
    except StorageError as error:
        print(error)
print(storage.remove_abandoned_spool())
END
"""
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    assert lines[:2] == ["b'config' 500000", "[1, 0]"], done.stderr
    assert ["the file system is read-only" in line for line in lines[2:4]] == [True, True]
    assert lines[4:] == ["0"]


def test_the_cleaner_tells_the_living_from_the_dead(root: Path) -> None:
    storage = LocalStorage(root)
    storage.put(NAME, DATA)
    dead, living, folder = storage.spool / "put-dead", storage.spool / "pack-living", storage.spool / "folder"
    dead.write_bytes(b"half of an obj")
    remote = storage.spool / "far-living"
    remote.write_bytes(b"half of an object that comes by SFTP")
    folder.mkdir()
    with living.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert storage.remove_abandoned_spool() == 1
        assert (dead.exists(), living.exists(), folder.exists()) == (False, True, True)
    assert storage.remove_abandoned_spool() == 1
    assert not living.exists()
    assert remote.exists()
    assert storage.get(NAME) == DATA


def _make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(os.path.relpath(path))


HOSTILE: dict[str, Callable[[Path], None]] = {
    "symlink to a file": lambda path: path.symlink_to("/etc/hostname"),
    "dangling symlink": lambda path: path.symlink_to("/nowhere/at/all"),
    "symlink to itself": lambda path: path.symlink_to(path),
    "FIFO": os.mkfifo,
    "socket": _make_socket,
    "folder": lambda path: path.mkdir(),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_what_is_no_file_is_no_object(root: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    storage = LocalStorage(root)
    storage.put(OTHER_NAME, DATA)
    (root / NAME).parent.mkdir()
    HOSTILE[kind](root / NAME)
    assert [stored.name for stored in storage.list("packs")] == [OTHER_NAME]
    with pytest.raises(StorageError) as caught:
        storage.get(NAME)
    assert not isinstance(caught.value, ObjectMissing)
    with pytest.raises(StorageError) as caught:
        storage.put(NAME, DATA)
    assert not isinstance(caught.value, ObjectExists)
    assert str(root / NAME) in str(caught.value)


def test_a_file_in_place_of_a_folder(root: Path) -> None:
    (root / "packs").write_bytes(b"")
    storage = LocalStorage(root)
    for action in (
        lambda: storage.put(NAME, DATA),
        lambda: storage.get(NAME),
        lambda: list(storage.list("packs")),
        lambda: storage.delete(NAME),
    ):
        with pytest.raises(StorageError, match="a file stands where a folder belongs"):
            action()


def test_foreign_files_are_listed_for_check_to_name(root: Path) -> None:
    storage = LocalStorage(root)
    storage.put(NAME, DATA)
    (root / "packs" / "ab" / "Thumbs.db").write_bytes(b"xx")
    Path(os.fsdecode(os.fsencode(root / "packs") + b"/\xff")).write_bytes(b"")
    assert {(stored.name, stored.length) for stored in storage.list("packs")} == {
        (NAME, len(DATA)),
        ("packs/ab/Thumbs.db", 2),
        ("packs/\udcff", 0),
    }


def test_a_disk_that_went_away_is_not_an_empty_repository(root: Path) -> None:
    storage = LocalStorage(root)
    storage.put(CONFIG_NAME, b"config")
    storage.put(NAME, DATA)
    assert list(storage.list("marks")) == []
    root.rename(root.parent / "elsewhere")
    root.mkdir()
    for action in (lambda: storage.get(NAME), lambda: list(storage.list("packs"))):
        with pytest.raises(StorageError, match="does not hold the repository any more") as caught:
            action()
        assert not isinstance(caught.value, ObjectMissing)
    assert list(root.iterdir()) == []


def test_nothing_is_made_where_the_disk_is_not_there(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "away" / "repository")
    with pytest.raises(StorageError, match="not there") as caught:
        storage.put(NAME, DATA)
    assert "mounted" in caught.value.hint
    with pytest.raises(ObjectMissing):
        storage.get(CONFIG_NAME)
    assert not (tmp_path / "away").exists()


def test_create_makes_private_folders_and_refuses_what_is_not_empty(tmp_path: Path) -> None:
    root = tmp_path / "a" / "b"
    storage = LocalStorage(root)
    storage.create()
    storage.create()
    storage.put(NAME, DATA)
    modes = {path.relative_to(root).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in (root, *root.rglob("*"))}
    assert modes == {".": 0o700, "tmp": 0o700, "packs": 0o700, "packs/ab": 0o700, NAME: 0o600}
    with pytest.raises(InvalidRequest, match="packs"):
        storage.create()
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.odt").write_bytes(b"")
    with pytest.raises(InvalidRequest, match=r"thesis\.odt"):
        LocalStorage(tmp_path / "used").create()
    with pytest.raises(StorageError, match="a file stands"):
        LocalStorage(tmp_path / "used" / "thesis.odt" / "x").create()


def test_create_takes_the_top_of_a_fresh_disk_and_a_killed_create(tmp_path: Path) -> None:
    for folder in ("lost+found", "tmp", "packs", "keys"):
        (tmp_path / folder).mkdir()
    LocalStorage(tmp_path).create()
    (tmp_path / CONFIG_NAME).write_bytes(b"config")
    with pytest.raises(RepositoryExists):
        LocalStorage(tmp_path).create()


def test_an_ordinary_user_without_permission_is_told(root: Path) -> None:
    LocalStorage(root).put(NAME, DATA)
    for folder in (root, *root.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o111)
    root.chmod(0o711)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        if os.getuid() == 0:
            os.setgroups([])
            os.setuid(65534)
        else:
            (root / "packs").chmod(0)
        try:
            LocalStorage(root).get(NAME)
        except StorageError as error:
            os.write(writer, f"{error} ({error.hint})".encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    message = os.read(reader, 1000).decode()
    os.close(reader)
    if os.getuid() != 0:
        (root / "packs").chmod(0o700)
    assert "permission denied" in message
    assert errno.errorcode[errno.EACCES] not in message
