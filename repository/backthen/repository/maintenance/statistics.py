"""Figures of a repository as a whole."""

from __future__ import annotations

from dataclasses import dataclass

from backthen.repository.opening import Repository
from backthen.repository.storage import FOLDERS


@dataclass(frozen=True, slots=True)
class RepositoryStatistics:
    """Counts, and sizes in bytes. `bytes_saved` sums all snapshots as if each were a full copy."""

    snapshots: int
    files: int
    bytes_saved: int
    blobs: int
    packs: int
    bytes_packs: int
    objects: int
    bytes_stored: int


def repository_statistics(repository: Repository) -> RepositoryStatistics:
    """Count what is in a repository.

    Raises:
        StorageError: the storage failed.
        DamageError: index or log were damaged or changed.
        CacheError: the local index cannot be written.
    """
    infos = repository.snapshots()
    repository.refresh()
    lengths = {folder: [stored.length for stored in repository.storage.list(folder)] for folder in FOLDERS}
    return RepositoryStatistics(
        snapshots=len(infos),
        files=sum(info.root.statistics.files for info in infos),
        bytes_saved=sum(info.root.statistics.size for info in infos),
        blobs=repository.index.blob_count,
        packs=len(lengths["packs"]),
        bytes_packs=sum(lengths["packs"]),
        objects=sum(map(len, lengths.values())),
        bytes_stored=sum(map(sum, lengths.values())),
    )
