"""Folders and files on this machine that nobody but their owner may look into."""

from __future__ import annotations

import os
from pathlib import Path

PRIVATE_FILE_MODE = 0o600
_PRIVATE_FOLDER_MODE = 0o700


def make_private_folder(folder: Path) -> None:
    """Make a folder where it is missing, and those that lead to it, for their owner alone.

    Raises:
        OSError: it cannot be made, or something else has its name.
    """
    try:
        folder.mkdir(mode=_PRIVATE_FOLDER_MODE, exist_ok=True)
    except FileNotFoundError:
        if folder.parent == folder:
            raise
        make_private_folder(folder.parent)
        folder.mkdir(mode=_PRIVATE_FOLDER_MODE, exist_ok=True)


def private_opener(path: str, flags: int) -> int:
    """An `opener` for `open` whose new files are for their owner alone.

    Raises:
        OSError: it cannot be opened.
    """
    return os.open(path, flags | os.O_CLOEXEC, PRIVATE_FILE_MODE)
