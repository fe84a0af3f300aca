"""What all adapters over libfuse share: what it is told about a mount, and what refusals are called there.

Knows no binding of libfuse.
"""

from __future__ import annotations

import errno
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

from backthen.fsmount.errors import MountRefused
from backthen.fsmount.view import (
    Capacity,
    DamagedContent,
    Gone,
    NoSuchAttribute,
    NotADirectory,
    NotAFile,
    NotASymlink,
    NotFound,
    ReadOnly,
    StorageUnavailable,
    UnreadAtBackup,
    ViewError,
)

REFUSALS: dict[type[ViewError], int] = {
    NotFound: errno.ENOENT,
    Gone: errno.ESTALE,
    NotADirectory: errno.ENOTDIR,
    NotAFile: errno.EINVAL,
    NotASymlink: errno.EINVAL,
    # macOS has both, and means the other one.
    NoSuchAttribute: getattr(errno, "ENOATTR", errno.ENODATA),
    ReadOnly: errno.EROFS,
    DamagedContent: errno.EIO,
    StorageUnavailable: errno.EIO,
    UnreadAtBackup: errno.EIO,
}
"""What each meaning is called there."""

CHANGING_S = 0.5
"""How many seconds the kernel may keep what can change. With the list of snapshots at most a second old, a new one is
seen within two seconds."""

SECTOR_BYTES = 512
WRITING = os.O_ACCMODE | os.O_TRUNC | os.O_CREAT | os.O_APPEND
"""The flags of `open` that ask for more than reading."""

_BLOCK_BYTES = 4096
NAME_BYTES_MAX = 255
_FUSE_HINT = "Is fuse3 installed, and may this user open /dev/fuse?"
_ALLOW_OTHER_HINT = "Leave out --allow-other, or have `user_allow_other` written into /etc/fuse.conf."

_Open = TypeVar("_Open")


class Handles(Generic[_Open]):
    """What is open, by the number that the kernel calls it. Safe to use from several threads."""

    def __init__(self) -> None:
        self._open: dict[int, _Open] = {}
        self._numbers = itertools.count(1)

    def add(self, opened: _Open) -> int:
        """Keep it, under a number that was never used."""
        number = next(self._numbers)
        self._open[number] = opened
        return number

    def get(self, number: int) -> _Open:
        """What is open under a number."""
        return self._open[number]

    def remove(self, number: int) -> None:
        """It is not used any more."""
        del self._open[number]


def mount_options(*, allow_other: bool) -> list[str]:
    """The options of every mount. Where others are let in, the kernel holds them to the saved permissions."""
    options = ["fsname=backthen", "subtype=backthen", "ro", "nosuid", "nodev"]
    return [*options, "allow_other", "default_permissions"] if allow_other else options


def statvfs_fields(capacity: Capacity) -> dict[str, int]:
    """The fields of statvfs(3): as large as what is stored, and full."""
    return {
        "f_bsize": _BLOCK_BYTES,
        "f_frsize": _BLOCK_BYTES,
        "f_blocks": -(-capacity.stored_bytes // _BLOCK_BYTES),
        "f_bfree": 0,
        "f_bavail": 0,
        "f_files": capacity.entry_count,
        "f_ffree": 0,
        "f_favail": 0,
        "f_namemax": NAME_BYTES_MAX,
    }


def refused_mount(mountpoint: Path, message: str) -> MountRefused:
    """The error for a mount that libfuse, or the system below it, did not make."""
    hint = _ALLOW_OTHER_HINT if "user_allow_other" in message else _FUSE_HINT
    return MountRefused(f"cannot mount at {mountpoint}: {message}", hint=hint)


@contextmanager
def spoken_on_stderr() -> Iterator[Callable[[], str]]:
    """Collect what libfuse and fusermount3 write to stderr, since they tell their reasons nowhere else."""
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)

        def spoken() -> str:
            file.seek(0)
            return file.read().decode(errors="replace").strip()

        try:
            yield spoken
        finally:
            os.dup2(kept, 2)
            os.close(kept)
