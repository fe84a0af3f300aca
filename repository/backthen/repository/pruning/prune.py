"""Deleting what no snapshot needs."""

from __future__ import annotations

from dataclasses import dataclass

from backthen.repository import clock
from backthen.repository.catalog import Going
from backthen.repository.errors import DamageError
from backthen.repository.ids import SnapshotId
from backthen.repository.model.records import Root
from backthen.repository.opening import Repository
from backthen.repository.progress import Progress
from backthen.repository.pruning.contents import RepositoryContents


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What was deleted, or would be; sizes in bytes.

    Attributes:
        forgotten: the forgotten snapshots that are gone for ever.
        abandoned: how many unfinished snapshots.
        packs: how many packs.
        bytes_packs: what they took.
        bytes_moved: what was stored anew, because it is needed of those packs; in a dry run about so much.
        bytes_left: what the packs take that are there then.
    """

    forgotten: dict[SnapshotId, Root]
    abandoned: int
    packs: int
    bytes_packs: int
    bytes_moved: int
    bytes_left: int


def prune_repository(repository: Repository, progress: Progress, *, dry_run: bool) -> PruneReport:
    """Delete forgotten snapshots for ever, unfinished ones that nobody takes up, and all that none of the others needs.

    Snapshots may be made, and other prunes run, at the same time. What an earlier prune left half-way is finished.

    Args:
        repository: to make room in.
        progress: is told what is done.
        dry_run: change nothing, and only report; what killed runs have left without an index is not counted then.

    Raises:
        DamageError: something that a snapshot needs is damaged or missing. Nothing was deleted then.
        NewerFormatError: something needs a newer version of the program; nothing was deleted.
        StorageError: the storage failed.
        CacheError: the cache or the client's state cannot be used.
    """
    _refuse_damage(repository)
    with RepositoryContents(repository, progress, dry_run=dry_run) as contents:
        pruner = repository.catalog.pruner(contents)
        plan = pruner.plan(clock.now_ns())
        if dry_run:
            moved = contents.bytes_to_move(plan.going.packs)
            left = contents.bytes_stored - contents.lengths(plan.going.packs) + moved
            return _report(contents, plan.going, bytes_moved=moved, bytes_left=left)
        repository.remove_abandoned_spool()
        if not plan.mark.is_empty:
            pruner.condemn(plan.mark)
        going = pruner.sweep()
        repository.refresh()
        return _report(contents, going, bytes_moved=contents.bytes_moved, bytes_left=repository.stored_bytes())


def _refuse_damage(repository: Repository) -> None:
    """Stop where a snapshot is damaged: its packs may be all that is left to mend it from."""
    repository.snapshots()
    if repository.damage:
        raise DamageError(
            str(repository.damage[0]),
            hint="Nothing is deleted from a damaged repository. `backthen check` says what is wrong; a snapshot whose "
            "root is lost can be given up with `backthen snapshot forget ID`.",
        )


def _report(contents: RepositoryContents, going: Going, *, bytes_moved: int, bytes_left: int) -> PruneReport:
    return PruneReport(
        forgotten=dict(sorted(going.forgotten.items(), key=lambda item: item[1].started_ns)),
        abandoned=len(going.abandoned),
        packs=len(going.packs),
        bytes_packs=contents.lengths(going.packs),
        bytes_moved=bytes_moved,
        bytes_left=bytes_left,
    )
