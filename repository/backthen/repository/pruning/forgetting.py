"""Letting snapshots not be shown any more."""

from __future__ import annotations

from collections.abc import Collection

from backthen.repository import clock
from backthen.repository.catalog import RetentionRules, SnapshotInfo, Verdict, apply_retention
from backthen.repository.ids import SnapshotId
from backthen.repository.opening import Repository
from backthen.repository.progress import Progress


def damaged_snapshots(repository: Repository) -> list[SnapshotId]:
    """The snapshots that the log has, but whose roots are damaged or gone, oldest first.

    Raises:
        StorageError: the storage failed.
        RollbackError: the storage shows an older or another past than this client saw.
        NewerFormatError: a log entry or root needs a newer version of the program.
        CacheError: the client's state cannot be read.
    """
    sound = {info.id for info in repository.snapshots()}
    return [id_ for id_ in repository.catalog.shown_ids() if id_ not in sound]


def judge_snapshots(infos: Collection[SnapshotInfo], rules: RetentionRules) -> list[Verdict]:
    """Which of some snapshots the rules keep now, and why; see `apply_retention`.

    Raises:
        InvalidRequest: no rule can keep anything, or `within` is not a length of time.
    """
    return apply_retention(infos, rules, clock.now_ns())


def forget_snapshots(repository: Repository, ids: Collection[SnapshotId], progress: Progress) -> None:
    """Let these snapshots not be shown any more; what they alone need goes with the next prune.

    Stopped half-way it has forgotten the first of them.

    Raises:
        StorageError: the storage failed.
        CacheError: the client's state cannot be read.
    """
    progress.start("forget", files_total=len(ids))
    for id_ in ids:
        repository.catalog.forget(id_, time_ns=clock.now_ns())
        progress.advance(files=1)
