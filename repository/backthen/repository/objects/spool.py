"""Temporary files of packs that are being filled: ciphertext only, locked while their process lives."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import BinaryIO

from backthen.repository.errors import StorageError
from backthen.repository.private import make_private_folder


def new_spool_file(folder: Path) -> tuple[Path, BinaryIO]:
    """A new empty file under a lock that tells others it is in use.

    Raises:
        StorageError: the folder cannot be written.
    """
    try:
        make_private_folder(folder)
        while True:
            descriptor, name = tempfile.mkstemp(prefix="pack-", dir=folder)
            file = os.fdopen(descriptor, "wb")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return Path(name), file
            file.close()  # a cleaner was quicker than the lock
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be written: {error.strerror}", hint="Make room, or check who owns it."
        ) from error
