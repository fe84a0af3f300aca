"""Temporary files of packs that are being filled: ciphertext only, locked while their process lives."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from backthen.repository.errors import CacheError, StorageError
from backthen.repository.private import make_private_folder
from backthen.repository.storage import new_locked_file, remove_abandoned

_PREFIX = "pack-"


def new_spool_file(folder: Path) -> tuple[Path, BinaryIO]:
    """A new empty file under a lock that tells others it is in use.

    Raises:
        StorageError: the folder cannot be written.
    """
    try:
        make_private_folder(folder)
        path, descriptor = new_locked_file(folder, _PREFIX)
        return path, os.fdopen(descriptor, "wb")
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be written: {error.strerror}", hint="Make room, or check who owns it."
        ) from error


def remove_abandoned_packs(folder: Path) -> int:
    """Remove the files that killed writers left in the folder; how many there were.

    Raises:
        CacheError: the folder cannot be read or written.
    """
    try:
        return remove_abandoned(folder, lambda name: name.startswith(_PREFIX))
    except OSError as error:
        raise CacheError(f"{folder} cannot be cleaned: {error.strerror}", hint="Check who owns it.") from error
