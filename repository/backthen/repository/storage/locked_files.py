"""Files that are being filled, each locked (flock) by its process: what has no lock was left by one that was killed."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def new_locked_file(folder: Path, prefix: str) -> tuple[Path, int]:
    """A new empty file, locked, and its descriptor; made again where a cleaner was quicker than the lock.

    Raises:
        OSError: it cannot be made.
    """
    while True:
        descriptor, name = tempfile.mkstemp(prefix=prefix, dir=folder)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return Path(name), descriptor
        except OSError:
            Path(name).unlink()
            os.close(descriptor)
            raise
        os.close(descriptor)


def remove_abandoned(folder: Path, is_candidate: Callable[[str], bool]) -> int:
    """Remove the files of a folder that nobody holds a lock on, of those whose names are candidates; how many.

    Raises:
        OSError: the folder cannot be read or written.
    """
    try:
        with os.scandir(folder) as entries:
            files = [entry for entry in entries if entry.is_file(follow_symlinks=False) and is_candidate(entry.name)]
    except FileNotFoundError:
        return 0
    return sum(_remove_if_abandoned(Path(entry.path)) for entry in files)


def _remove_if_abandoned(path: Path) -> bool:
    """Remove a temporary file that nobody holds a lock on; whether it was one."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return False  # finished since the listing, or another user's, whose own runs clean it up
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
