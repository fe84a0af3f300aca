"""How much a snapshot has to go through, for whoever wants to know beforehand."""

from __future__ import annotations

import stat
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from backthen.repository.backup.request import SnapshotRequest
from backthen.repository.crypto import SpillCipher
from backthen.repository.opening import Repository
from backthen.repository.source import Items, Spill, own_places, saved_paths, walk


@dataclass(frozen=True, slots=True)
class SourceAmount:
    """Regular files, and the sum of their sizes in bytes."""

    files: int
    size: int


def count_source(
    repository: Repository, request: SnapshotRequest, is_wanted: Callable[[], bool]
) -> SourceAmount | None:
    """What a snapshot of that request would go through now; None once `is_wanted` says that nobody waits for it.

    It may run beside the snapshot itself. What cannot be read does not count.

    Raises:
        PathNotFound: there is nothing at one of the paths.
        InvalidRequest: there is no path, or a pattern is bad.
        CacheError: the cache folder cannot be used.
        OSError: `/` cannot be opened.
    """
    cipher = SpillCipher()
    spill = Spill(repository.cache_folder / "spool", cipher.seal, cipher.open)
    events = walk(
        saved_paths(request.paths),
        spill,
        rules=request.rules,
        one_file_system=request.one_file_system,
        own=own_places(repository.own_folders),
    )
    files = size = 0
    with closing(events):
        for event in events:
            if not is_wanted():
                return None
            if type(event) is Items:
                sizes = [status.st_size for _, status in event.found if stat.S_ISREG(status.st_mode)]
                files += len(sizes)
                size += sum(sizes)
    return SourceAmount(files, size)
