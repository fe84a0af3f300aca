"""What is asked of a snapshot, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass

from backthen.repository.compression import Compression
from backthen.repository.ids import SnapshotId
from backthen.repository.model.records import Statistics
from backthen.repository.source import ExclusionRules


@dataclass(frozen=True, slots=True)
class SnapshotRequest:
    """What to save and how.

    Attributes:
        paths: what the user named; made absolute by `create_snapshot`.
        host: the host the snapshot is of.
        tags: labels.
        rules: what is left out.
        parent: the snapshot whose unchanged files are taken over.
        find_parent: look for the newest one of the same host and paths when `parent` is None.
        one_file_system: do not enter other file systems.
        dry_run: read and count, store nothing.
        compression: how data is compressed.
    """

    paths: tuple[bytes, ...]
    host: str
    tags: tuple[str, ...] = ()
    rules: ExclusionRules | None = None
    parent: SnapshotId | None = None
    find_parent: bool = True
    one_file_system: bool = False
    dry_run: bool = False
    compression: Compression = Compression()


@dataclass(frozen=True, slots=True)
class SnapshotReport:
    """What was done. `id` is None after a dry run; times in nanoseconds.

    After a dry run `statistics.bytes_added` counts the new blobs before compression.
    """

    id: SnapshotId | None
    parent: SnapshotId | None
    started_ns: int
    duration_ns: int
    paths: tuple[bytes, ...]
    statistics: Statistics
