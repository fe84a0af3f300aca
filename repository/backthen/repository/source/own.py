"""What belongs to the program itself: a snapshot of all that lies around it leaves it empty.

A repository that was saved into itself would grow by its own size each time, and a mounted history by all of history.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from backthen.repository.private import private_opener
from backthen.repository.source.exclusion import CACHE_TAG_NAME, CACHE_TAG_SIGNATURE
from backthen.repository.source.filesystems import devices_of_type

_MOUNT_TYPE = b"fuse.backthen"


@dataclass(frozen=True, slots=True)
class OwnPlaces:
    """Folders by device and inode, and the devices of mounted histories."""

    folders: frozenset[tuple[int, int]] = frozenset()
    devices: frozenset[int] = frozenset()

    def hold(self, status: os.stat_result, device_above: int) -> bool:
        """Whether a directory is one of them, given the device of the one above.

        Whoever saves a folder inside of a mounted history means it, so only the way into such a mount counts.
        """
        enters_mount = status.st_dev != device_above and status.st_dev in self.devices
        return enters_mount or (status.st_dev, status.st_ino) in self.folders


def own_places(folders: Iterable[Path]) -> OwnPlaces:
    """These folders, as far as they are there, and what is mounted now."""
    found: set[tuple[int, int]] = set()
    for folder in folders:
        try:
            status = folder.stat()
        except OSError:
            continue
        found.add((status.st_dev, status.st_ino))
    return OwnPlaces(frozenset(found), devices_of_type(_MOUNT_TYPE))


def tag_cache(folder: Path) -> None:
    """Say in a folder that it is a cache (Cache Directory Tagging Specification), for all programs that make backups.

    Raises:
        OSError: it cannot be written.
    """
    path = folder / os.fsdecode(CACHE_TAG_NAME)
    if not path.exists():
        with open(path, "wb", opener=private_opener) as file:
            file.write(CACHE_TAG_SIGNATURE + b"\n# A cache of Backthen: it may be deleted, and is made anew.\n")
