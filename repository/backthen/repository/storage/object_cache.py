"""Bytes of objects that were fetched once, kept in a folder of this machine: ciphertext, bounded, shared by processes.

It is a cache: whatever happens to it costs time only. A file that is not what was kept under its key is as good as
none, and a folder that cannot be written, or a full disk, means that nothing more is kept. What was used least recently
goes first. Each process reserves room in steps before it fills it, in a file that all of them lock; who finds no room
left counts what is there, and makes some. So the bound holds but for what others have reserved and not filled yet.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from typing_extensions import Buffer

from backthen.repository import clock
from backthen.repository.private import PRIVATE_FILE_MODE, make_private_folder

CACHE_BYTES_MAX = 1 << 30
"""What is kept of each repository where nothing else is said."""
_DIGEST_BYTES = hashlib.sha256().digest_size
_STEP_BYTES_MAX = 16 << 20
_STEPS = 16
_FILLED_EIGHTHS = 7
"""So much of the bound is used after room was made."""
_DISK_BLOCK_BYTES = 4096
_TOUCHED_NS = 600 * 1_000_000_000
"""A file that was used again within this time is not noted again."""
_RESERVED_NAME = "reserved"
_DEPTH_MAX = 3

_log = logging.getLogger(__name__)


class ObjectCache:
    """Bytes by key, a relative path. Safe to use from several threads and processes; no method raises."""

    def __init__(self, folder: Path, bytes_max: int, now_ns: Callable[[], int] = clock.now_ns) -> None:
        """Use a folder; it is made when something is to be kept.

        Args:
            folder: where it is.
            bytes_max: what the files may take on the disk; 0 keeps nothing.
            now_ns: the time, for what was used last.
        """
        self._folder = folder
        self._bytes_max = bytes_max
        self._now_ns = now_ns
        self._lock = threading.Lock()
        self._room = 0
        self._has_failed = False

    @property
    def bytes_max(self) -> int:
        """What the files may take on the disk."""
        return self._bytes_max

    def __contains__(self, key: str) -> bool:
        """Whether something is kept; it may turn out to be damaged."""
        return self._bytes_max > 0 and os.path.exists(self._path(key))

    def get(self, key: str) -> bytes | None:
        """What was kept under the key, or None."""
        if not self._bytes_max:
            return None
        try:
            with open(self._path(key), "rb") as file:
                digest, data = file.read(_DIGEST_BYTES), file.read()
                if digest == _digest(key, data):
                    self._note_use(file.fileno())
                    return data
        except FileNotFoundError:
            return None
        except OSError as error:
            self._tell(error)
            return None
        self.remove(key)
        return None

    def put(self, key: str, data: Buffer) -> None:
        """Keep bytes under the key."""
        size = memoryview(data).nbytes + _DIGEST_BYTES
        try:
            if not self._reserve(-(-size // _DISK_BLOCK_BYTES) * _DISK_BLOCK_BYTES):
                return
            path = self._path(key)
            folder = os.path.dirname(path)
            try:
                self._write(folder, path, key, data)
            except FileNotFoundError:
                make_private_folder(Path(folder))
                self._write(folder, path, key, data)
        except OSError as error:
            self._tell(error)

    def remove(self, key: str) -> None:
        """Keep nothing under the key."""
        with suppress(OSError):  # what cannot be removed is held against its digest when it is read
            os.unlink(self._path(key))

    def remove_beginning(self, start: str) -> None:
        """Keep nothing under the keys that begin so; all of them are in one folder."""
        folder, start = os.path.split(self._path(start))
        with suppress(OSError), os.scandir(folder) as entries:
            for path in [entry.path for entry in entries if entry.name.startswith(start)]:
                os.unlink(path)

    def _path(self, key: str) -> str:
        return f"{self._folder}/{key}"

    def _write(self, folder: str, path: str, key: str, data: Buffer) -> None:
        descriptor, unfinished = tempfile.mkstemp(dir=folder)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                if os.writev(file.fileno(), [_digest(key, data), data]) != memoryview(data).nbytes + _DIGEST_BYTES:
                    raise OSError("it was not written whole")
            os.rename(unfinished, path)
        except BaseException:
            os.unlink(unfinished)
            raise

    def _note_use(self, descriptor: int) -> None:
        now_ns = self._now_ns()
        if abs(now_ns - os.fstat(descriptor).st_mtime_ns) > _TOUCHED_NS:
            with suppress(PermissionError):  # the cache of a read-only system
                os.utime(descriptor, ns=(now_ns, now_ns))

    def _reserve(self, count: int) -> bool:
        """Whether so many bytes may be written."""
        if count > self._bytes_max // _STEPS:
            return False
        with self._lock:
            if count > self._room:
                self._room = self._take_room(min(_STEP_BYTES_MAX, self._bytes_max // _STEPS))
            self._room -= count
        return True

    def _take_room(self, step: int) -> int:
        """Reserve a step, and make room for it where there is none."""
        with _locked(self._folder / _RESERVED_NAME) as descriptor:
            text = os.pread(descriptor, 32, 0)
            reserved = int(text) if text.isdigit() else self._bytes_max
            if reserved + step > self._bytes_max:
                reserved = self._make_room(self._bytes_max - step)
            os.pwrite(descriptor, b"%020d" % (reserved + step), 0)
        return step

    def _make_room(self, bytes_max: int) -> int:
        """Remove what was used least recently where there is more; how many bytes are left."""
        files = list(_files(self._folder))
        total = sum(file.size for file in files)
        if total > bytes_max:
            target = bytes_max * _FILLED_EIGHTHS // 8
            for file in sorted(files):
                with suppress(FileNotFoundError):
                    os.unlink(file.path)
                total -= file.size
                if total <= target:
                    break
        return total

    def _tell(self, error: OSError) -> None:
        if not self._has_failed:
            self._has_failed = True
            _log.info("what is fetched cannot be kept in %s: %s", self._folder, error.strerror or error)


class _File(NamedTuple):
    """A file of the cache: when it was used last, what it takes on the disk, where it is."""

    used_ns: int
    size: int
    path: str


def cached_bytes(folder: Path) -> int:
    """What the files of a cache take on the disk.

    Raises:
        OSError: the folder cannot be read.
    """
    return sum(file.size for file in _files(folder))


def clear_cached(folder: Path) -> int:
    """Remove what is kept, also while others use it; how many bytes it took.

    Raises:
        OSError: it cannot be removed.
    """
    cleared = 0
    for file in _files(folder):
        with suppress(FileNotFoundError):
            os.unlink(file.path)
            cleared += file.size
    return cleared


def _files(folder: Path | str, depth: int = _DEPTH_MAX) -> Iterator[_File]:
    """All files but the one that counts what is reserved; none where there is no folder."""
    try:
        entries = os.scandir(folder)
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if depth > 1:
                    yield from _files(entry.path, depth - 1)
            elif entry.name != _RESERVED_NAME or depth < _DEPTH_MAX:
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    yield _File(status.st_mtime_ns, status.st_blocks * 512, entry.path)


def _digest(key: str, data: Buffer) -> bytes:
    """What tells if a file is what was kept under its key."""
    digest = hashlib.sha256(b"%s\0" % key.encode())
    digest.update(data)
    return digest.digest()


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    make_private_folder(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)
