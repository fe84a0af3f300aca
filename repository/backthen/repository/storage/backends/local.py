"""Objects as files in a folder of this machine: private, durable, whole or not at all.

A new object is written to a temporary file in `tmp/`, flushed to the disk, and only then linked to its name, which
fails when the name is taken; at last the folder is flushed. Every temporary file is locked (flock) by the process that
fills it, so that anybody can tell what a killed one left behind; who fills a file of `tmp/` for `put_file` locks it
too,
until that returned. What others may have put into the folder is never trusted: links are not followed, and only regular
files are opened.

Folders are made for their owner alone (0700), and so are files (0600).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from typing_extensions import Buffer

from backthen.repository.errors import InvalidRequest, ObjectExists, ObjectMissing, RepositoryExists, StorageError
from backthen.repository.storage.contract import StoredObject
from backthen.repository.storage.local_file import of_local_file
from backthen.repository.storage.locked_files import new_locked_file, remove_abandoned
from backthen.repository.storage.names import (
    CONFIG_NAME,
    FOLDERS,
    SPOOL,
    UNLOCKED_PREFIX,
    check_folder,
    check_object_name,
    is_leftover,
)

_COPY_BYTES = 1024 * 1024
_FOLDER_DEPTH_MAX = 2
_FOLDER_MODE = 0o700
_OPEN_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS})
_TRANSIENT = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EINTR,
        errno.EMFILE,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENFILE,
        errno.ENOLCK,
        errno.ENOMEM,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)
_SENTENCES = {
    errno.EACCES: ("permission denied", "Check who owns it and who may write there."),
    errno.EPERM: ("the operation is not permitted", "Check who owns it and who may write there."),
    errno.EROFS: ("the file system is read-only", "It can be read; to write, mount it writable."),
    errno.ENOSPC: ("the disk is full", "Make room on it and try again; nothing that was stored is harmed."),
    errno.EDQUOT: ("your disk quota is used up", "Make room and try again; nothing that was stored is harmed."),
    errno.EIO: ("the disk reported an input/output error", "The disk may be failing: look at the system's log."),
    errno.ELOOP: ("it is a symbolic link, not a stored object", "Something else than Backthen has put it there."),
    errno.EISDIR: ("it is a folder, not a stored object", "Something else than Backthen has put it there."),
    errno.ENOTDIR: ("a file stands where a folder belongs", "Something else than Backthen has put it there."),
    errno.ENOENT: ("the folder is not there", "Is the disk connected and mounted?"),
}


class LocalStorage:
    """A `Storage` in a folder. See the module and the contract."""

    def __init__(self, root: Path) -> None:
        """Use the folder; nothing is read or made yet."""
        self._root = root
        self._spool = root / SPOOL
        self._lock = threading.Lock()
        self._durable_folders: set[Path] = set()
        self._held_repository = False

    @property
    def location(self) -> str:
        """The folder's path."""
        return str(self._root)

    @property
    def folder(self) -> Path:
        """The folder itself."""
        return self._root

    @property
    def spool(self) -> Path:
        """Where `put_file` takes files without a copy."""
        return self._spool

    @property
    def concurrency(self) -> int:
        """See `Storage.concurrency`."""
        return 1

    def create(self) -> None:
        """See `Storage.create`.

        Raises:
            RepositoryExists: there is a repository.
            InvalidRequest: something else is there.
            StorageError: the folder cannot be made or read.
        """
        with _plain_errors(self._root):
            _make_folders(self._root)
            names = {path.name for path in self._root.iterdir()}
        if CONFIG_NAME in names:
            raise RepositoryExists(f"there is a repository at {self._root} already")
        strangers = sorted(name for name in names if not self._is_leftover(name))
        if strangers:
            raise InvalidRequest(
                f"{self._root} is not empty: it holds {strangers[0]!r}",
                hint="Choose a new or an empty folder.",
            )

    def put(self, name: str, data: Buffer) -> None:
        """See `Storage.put`.

        Raises:
            ObjectExists: the name is taken; nothing was changed.
            StorageError: it cannot be stored.
        """
        check_object_name(name)
        with _plain_errors(self._root / name):
            self._refuse_taken(name)
            with self._temporary_file() as (path, descriptor):
                _write_all(descriptor, data)
                self._publish(path, descriptor, name)

    def put_file(self, name: str, path: Path) -> None:
        """See `Storage.put_file`.

        Raises:
            ObjectExists: the name is taken; the object was not changed, the file is removed.
            StorageError: it cannot be stored, or the file cannot be read; the file is left.
        """
        check_object_name(name)
        with _plain_errors(self._root / name):
            with of_local_file(path):
                descriptor, _ = _open_regular(path)
            try:
                if path.parent == self._spool:
                    self._publish(path, descriptor, name)
                else:
                    self._publish_copy(descriptor, name)
            except FileExistsError:
                path.unlink(missing_ok=True)
                raise
            finally:
                os.close(descriptor)
            path.unlink(missing_ok=True)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Storage.get`.

        Raises:
            ObjectMissing: there is no such object.
            StorageError: it cannot be read.
        """
        check_object_name(name)
        path = f"{self._root}/{name}"  # histories are read object by object, and a Path takes longer than the reading
        with _plain_errors(path):
            try:
                descriptor, size = _open_regular(path)
            except FileNotFoundError as error:
                self._check_connected()
                raise ObjectMissing(f"{path} is not there") from error
            try:
                data = _read(descriptor, offset, size - offset if length is None else min(length, size - offset))
            finally:
                os.close(descriptor)
        self._held_repository |= name == CONFIG_NAME
        return data

    def list(self, folder: str) -> Iterator[StoredObject]:
        """See `Storage.list`; the iterator raises `StorageError` when the folder cannot be read."""
        check_folder(folder)
        return self._list(folder)

    def delete(self, name: str) -> None:
        """See `Storage.delete`.

        Raises:
            StorageError: it cannot be removed.
        """
        check_object_name(name)
        with _plain_errors(self._root / name):
            (self._root / name).unlink(missing_ok=True)

    def remove_abandoned_spool(self) -> int:
        """See `Storage.remove_abandoned_spool`; what writers on other machines fill is left to them.

        Raises:
            StorageError: the folder cannot be read or written.
        """
        with _plain_errors(self._spool):
            return remove_abandoned(self._spool, lambda name: not name.startswith(UNLOCKED_PREFIX))

    def close(self) -> None:
        """See `Storage.close`."""

    def _list(self, folder: str) -> Iterator[StoredObject]:
        with _plain_errors(self._root / folder):
            try:
                yield from _walk(self._root / folder, folder, _FOLDER_DEPTH_MAX)
            except FileNotFoundError:
                self._check_connected()

    def _check_connected(self) -> None:
        """Tell a missing object from a disk that went away and left an empty folder behind.

        Raises:
            StorageError: the repository was here and is not any more.
        """
        if self._held_repository and not (self._root / CONFIG_NAME).exists():
            raise StorageError(
                f"{self._root} does not hold the repository any more",
                hint="Is the disk connected and mounted?",
                transient=True,
            )

    def _is_leftover(self, name: str) -> bool:
        """Whether an empty storage may hold it; it may be a folder of nothing else, too."""
        if is_leftover(name):
            return True
        folder = self._root / name
        if name not in FOLDERS or folder.is_symlink() or not folder.is_dir():
            return False
        return all(is_leftover(f"{name}/{path.name}") for path in folder.iterdir())

    def _refuse_taken(self, name: str) -> None:
        """Spare writing what is there already.

        Raises:
            FileExistsError: the name is taken, durably.
            StorageError: something that is no object has the name.
        """
        path = self._root / name
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            return
        _check_regular(path, mode)
        _sync_folder(path.parent)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))

    @contextmanager
    def _temporary_file(self) -> Iterator[tuple[Path, int]]:
        """A new locked file in the spool, which is gone afterwards."""
        self._make_folder(self._spool)
        path, descriptor = new_locked_file(self._spool, "put-")
        try:
            yield path, descriptor
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)

    def _publish_copy(self, source: int, name: str) -> None:
        self._refuse_taken(name)
        with self._temporary_file() as (path, descriptor):
            while data := os.read(source, _COPY_BYTES):
                _write_all(descriptor, data)
            self._publish(path, descriptor, name)

    def _publish(self, path: Path, descriptor: int, name: str) -> None:
        """Give a complete file of the spool its name. Whoever loses a race finds the winner's object durable."""
        os.fsync(descriptor)
        target = self._root / name
        self._make_folder(target.parent)
        try:
            os.link(path, target, follow_symlinks=False)
        except FileExistsError:
            self._refuse_taken(name)
            raise
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            self._publish_by_rename(path, name)
        _sync_folder(target.parent)
        self._held_repository |= name == CONFIG_NAME

    def _publish_by_rename(self, path: Path, name: str) -> None:
        """Look and rename under a lock, where there are no hard links (FAT, exFAT, some network drives)."""
        descriptor = os.open(self._spool, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._refuse_taken(name)
            path.rename(self._root / name)
        finally:
            os.close(descriptor)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder below the root, and see to it once that its own name is durable."""
        with self._lock:
            if folder in self._durable_folders:
                return
            if folder.parent != self._root:
                self._make_one_folder(folder.parent)
            self._make_one_folder(folder)

    def _make_one_folder(self, folder: Path) -> None:
        if folder in self._durable_folders:
            return
        try:
            folder.mkdir(mode=_FOLDER_MODE)
        except FileExistsError:
            if not folder.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
        with os.scandir(folder.parent) as siblings:
            named = [Path(entry.path) for entry in siblings if entry.is_dir()]
        _sync_folder(folder.parent)
        self._durable_folders.update(named)


def _walk(folder: Path, name: str, depth: int) -> Iterator[StoredObject]:
    """The regular files below a folder; links, pipes and the like are no objects.

    Raises:
        FileNotFoundError: the folder is not there.
        OSError: it cannot be read.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                if entry.is_file(follow_symlinks=False):
                    yield StoredObject(f"{name}/{entry.name}", entry.stat(follow_symlinks=False).st_size)
                elif depth > 1 and entry.is_dir(follow_symlinks=False):
                    yield from _walk(folder / entry.name, f"{name}/{entry.name}", depth - 1)
            except FileNotFoundError:
                continue  # deleted since the folder was read


def _open_regular(path: Path | str) -> tuple[int, int]:
    """(descriptor for reading, size in bytes); never waits for a pipe, never follows a link.

    Raises:
        OSError: it cannot be opened.
        StorageError: it is not a regular file.
    """
    descriptor = os.open(path, _OPEN_READ)
    try:
        status = os.fstat(descriptor)
        _check_regular(path, status.st_mode)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, status.st_size


def _check_regular(path: Path | str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise StorageError(f"{path}: it is not a regular file", hint="Something else than Backthen has put it there.")


def _read(descriptor: int, offset: int, wanted: int) -> bytes:
    """`wanted` bytes from `offset`; fewer only where the file was cut meanwhile."""
    parts: list[bytes] = []
    while wanted > 0 and (data := os.pread(descriptor, wanted, offset)):
        parts.append(data)
        offset += len(data)
        wanted -= len(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _write_all(descriptor: int, data: Buffer) -> None:
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _make_folders(folder: Path) -> None:
    """Make a folder and those above it, each durable before the next."""
    if folder.is_dir():
        return
    _make_folders(folder.parent)
    try:
        folder.mkdir(mode=_FOLDER_MODE)
    except FileExistsError:
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the file system can (some network and FUSE file systems cannot)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _plain_errors(path: Path | str) -> Iterator[None]:
    """The one seam where errors of the operating system become errors of the storage."""
    try:
        yield
    except FileExistsError as error:
        raise ObjectExists(f"{path} exists already") from error
    except OSError as error:
        sentence, hint = _SENTENCES.get(error.errno or 0, (error.strerror or str(error), ""))
        raise StorageError(f"{path}: {sentence}", hint=hint, transient=error.errno in _TRANSIENT) from error
