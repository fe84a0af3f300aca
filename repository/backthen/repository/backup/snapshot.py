"""Making a snapshot: walk, store, commit; again without what a prune took away meanwhile (FORMAT.md, section 12)."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace

from backthen.repository import clock, entropy
from backthen.repository.backup.counting import BlobCounter
from backthen.repository.backup.entries import EntryMaker
from backthen.repository.backup.file import FileSaver
from backthen.repository.backup.parents import Parent, Parents
from backthen.repository.backup.request import SnapshotReport, SnapshotRequest
from backthen.repository.backup.tally import Tally
from backthen.repository.backup.tree import TreeBuilder, write_links
from backthen.repository.catalog import Committed, Survey
from backthen.repository.chunking import Cutter, check_fastcdc
from backthen.repository.content import SnapshotTree
from backthen.repository.crypto import SpillCipher
from backthen.repository.errors import SnapshotNotFound, StorageError
from backthen.repository.ids import PackId, SnapshotId
from backthen.repository.index import LinkTable
from backthen.repository.model.entry import BlobRef, Entry
from backthen.repository.model.records import Root, Statistics
from backthen.repository.objects import BlobWriter, index_orphans
from backthen.repository.opening import Repository
from backthen.repository.progress import Progress
from backthen.repository.source import (
    EnterDirectory,
    Event,
    ExclusionRules,
    Item,
    Items,
    LeaveDirectory,
    Problem,
    SavedPaths,
    Spill,
    WalkStopped,
    own_places,
    saved_paths,
    walk,
)
from backthen.repository.storage import Storage, at_once, parse_pack_name
from backthen.repository.walking import WalkApart

_log = logging.getLogger(__name__)
_ATTEMPTS_MAX = 5
_CHECKPOINT_NS = 30 * 60 * 1_000_000_000
_NONCE_BYTES = 32


@dataclass(frozen=True, slots=True)
class _Plan:
    """What all attempts of one snapshot have in common."""

    repository: Repository
    request: SnapshotRequest
    paths: SavedPaths
    progress: Progress
    started_ns: int


def create_snapshot(
    repository: Repository, request: SnapshotRequest, progress: Progress, walked: WalkApart | None = None
) -> SnapshotReport:
    """Save paths as a new snapshot; it exists when this returns, and not before.

    Files that cannot be read are told to `progress` and counted as errors; the rest is saved.
    What `walked` comes upon, which was begun for the same request, is saved; without it, or where it ends early, the
    paths are walked here.

    Raises:
        PathNotFound: there is nothing at one of the paths.
        InvalidRequest: there is no path, a pattern is bad, or this machine's chunker is not usable.
        SnapshotNotFound: the parent asked for does not exist.
        StorageError: the storage failed.
        DamageError: log, marks or index were damaged, changed or rolled back.
        CacheError: the cache or state folder cannot be used.
    """
    check_fastcdc()
    begun_ns = clock.monotonic_ns()
    started_ns = clock.now_ns() if walked is None else walked.started_ns
    events = None if walked is None else walked.events()
    plan = _Plan(repository, request, saved_paths(request.paths), progress, started_ns)
    parents: list[Parent] | None = None
    avoided: frozenset[PackId] = frozenset()
    for _ in range(_ATTEMPTS_MAX):
        survey, packs = _look_around(plan)
        if parents is None:
            parents = _find_parents(plan, survey)
        usable = {id_: packs[id_] for id_ in packs.keys() - survey.condemned.packs - avoided}
        given, events = events, None
        with _Attempt(plan, parents, usable) as attempt:
            try:
                top, links, link_count = attempt.save(given)
            except WalkStopped:
                _log.info("the process that walks has ended early; walking here")
                continue
            vouching = tuple(parent.tree.id for parent in parents if parent.vouches)
            report = SnapshotReport(
                None, vouching[0] if vouching else None, plan.started_ns, 0, plan.paths.paths, attempt.statistics()
            )
            if request.dry_run:
                return replace(report, duration_ns=clock.monotonic_ns() - begun_ns)
            root = attempt.root(top, links, link_count, vouching, partial=False)
            outcome = repository.catalog.commit(root, attempt.relied, time_ns=clock.now_ns())
        if isinstance(outcome, Committed):
            return replace(report, id=outcome.id, duration_ns=clock.monotonic_ns() - begun_ns)
        avoided |= outcome.bad_packs
        parents = [parent for parent in parents if parent.tree.id not in outcome.lost_parents]
    raise StorageError(
        "prunes of this repository got in the way again and again", hint="Try again later.", transient=True
    )


def _look_around(plan: _Plan) -> tuple[Survey, dict[PackId, int]]:
    """What there is now, and the packs with their lengths; the local index is brought up to it."""
    repository = plan.repository
    with at_once(repository.storage) as begin:
        surveyed, listed = begin(repository.survey), begin(lambda: _list_packs(repository.storage))
        refreshed = begin(repository.refresh)
        cleaned = begin(lambda: 0 if plan.request.dry_run else repository.remove_abandoned_spool())
        refreshed()
        cleaned()
        return surveyed(), listed()


def _list_packs(storage: Storage) -> dict[PackId, int]:
    listed = ((parse_pack_name(stored.name), stored.length) for stored in storage.list("packs"))
    return {pack_id: length for pack_id, length in listed if pack_id is not None}


def _find_parents(plan: _Plan, survey: Survey) -> list[Parent]:
    """The snapshot to compare with, and what an unfinished run of the same paths has left since."""
    repository, request, paths, infos = plan.repository, plan.request, plan.paths.paths, survey.snapshots
    if request.parent is not None:
        found = [info for info in infos if info.id == request.parent]
        if not found:
            raise SnapshotNotFound(f"there is no snapshot {request.parent.hex()[:8]} to be the parent")
    elif request.find_parent:
        found = [info for info in infos if info.host == request.host and info.paths == paths][-1:]
    else:
        return []
    parents = [Parent(SnapshotTree(info.id, info.root), vouches=True) for info in found]
    since_ns = found[0].started_ns if found else 0
    for unlogged in repository.catalog.partial_roots(survey.unlogged, request.host, paths)[:1]:
        if unlogged.root.started_ns > since_ns:
            parents.insert(0, Parent(SnapshotTree(unlogged.id, unlogged.root), vouches=False))
    return parents


def _recorded(rules: ExclusionRules | None) -> tuple[str, ...]:
    """The patterns as text that can be stored: bytes that are not UTF-8 become escapes."""
    patterns = rules.patterns if rules is not None else ()
    return tuple(pattern.encode(errors="surrogateescape").decode(errors="backslashreplace") for pattern in patterns)


class _Attempt:
    """One pass over the live file system, with the blobs it stores and relies on."""

    def __init__(self, plan: _Plan, parents: list[Parent], usable: dict[PackId, int]) -> None:
        self._plan = plan
        self._keys = plan.repository.keys
        self._sink: BlobWriter | BlobCounter = _open_sink(plan, usable)
        self._spill_cipher = SpillCipher()
        self._links = LinkTable(plan.repository.cache_folder / "spool", self._spill_cipher)
        self._tally = Tally(plan.progress)
        self._before = next((parent.tree.root.statistics for parent in parents if parent.vouches), None)
        source = plan.repository.blobs.source
        self._parents = [Parents.at_top(source, parents, self._sink.rely)]
        cutter = Cutter(self._keys.chunker_seed, self._keys.chunker_prf)
        saver = FileSaver(self._sink, cutter, self._keys.page_border, self._tally.read)
        self._maker = EntryMaker(self._sink, self._keys, saver, self._links, self._tally)
        self._builder: TreeBuilder | None = None
        self._top: Entry | None = None
        self._checkpoint_ns = clock.monotonic_ns() + _CHECKPOINT_NS

    def __enter__(self) -> _Attempt:
        self._sink.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        self._sink.__exit__(kind, *details)
        self._links.close()

    @property
    def relied(self) -> set[PackId]:
        """The packs that this attempt needs beside those its parents vouch for."""
        return self._sink.relied

    def statistics(self) -> Statistics:
        return self._tally.statistics(self._sink.bytes_added)

    def save(self, events: Generator[Event] | None) -> tuple[Entry, BlobRef | None, int]:
        """Store everything: the top directory, the tree of link groups and how many groups there are.

        Args:
            events: what a walk comes upon; None for walking here.
        """
        if self._before is None:
            self._plan.progress.start("save")
        else:
            self._plan.progress.start("save", files_total=self._before.files, bytes_total=self._before.size)
        with closing(self._walk() if events is None else events) as walked:
            for event in walked:
                if type(event) is Items:
                    self._add_items(event)
                elif type(event) is EnterDirectory:
                    self._enter(event)
                elif type(event) is LeaveDirectory:
                    self._leave(event)
                elif type(event) is Problem:
                    self._add(self._maker.problem(event))
        assert self._top is not None, "the walk ends by leaving the top"
        top = self._top
        links, link_count = write_links(self._sink, self._keys, self._links)
        self._sink.flush()
        return top, links, link_count

    def _walk(self) -> Generator[Event]:
        request, repository = self._plan.request, self._plan.repository
        spill = Spill(repository.cache_folder / "spool", self._spill_cipher.seal, self._spill_cipher.open)
        own = own_places(repository.own_folders)
        return walk(self._plan.paths, spill, rules=request.rules, one_file_system=request.one_file_system, own=own)

    def root(
        self, top: Entry, links: BlobRef | None, link_count: int, parents: tuple[SnapshotId, ...], *, partial: bool
    ) -> Root:
        """The record of what was saved."""
        request, client = self._plan.request, self._plan.repository.client
        return Root(
            nonce=entropy.random_bytes(_NONCE_BYTES),
            started_ns=self._plan.started_ns,
            ended_ns=clock.now_ns(),
            host=request.host,
            user=client.user,
            paths=self._plan.paths.paths,
            tags=tuple(sorted(set(request.tags))),
            top=top,
            links=links,
            link_count=link_count,
            parents=parents,
            partial=partial,
            program=client.program,
            excludes=_recorded(request.rules),
            statistics=self.statistics(),
        )

    def _add_items(self, items: Items) -> None:
        builder = self._builder
        assert builder is not None, "the walk begins by entering the top"
        parents, found, at = self._parents[-1], items.found, 0
        while at < len(found):
            unchanged = parents.take_unchanged(items, at)
            if unchanged is not None:
                builder.add_unchanged(unchanged)
                self._tally.unchanged(items.directory.path, unchanged.entries)
                at += len(unchanged.entries)
            else:
                entry = self._maker.item(Item(*found[at], items.directory), parents)
                if entry is not None:
                    builder.add(entry, parents.place(entry.name))
                at += 1
        self._put_due_checkpoint()

    def _add(self, entry: Entry) -> None:
        assert self._builder is not None, "the walk begins by entering the top"
        self._builder.add(entry, self._parents[-1].place(entry.name))

    def _enter(self, event: EnterDirectory) -> None:
        if self._builder is None:
            source, old = self._plan.repository.blobs.source, self._parents[-1].vouched
            self._builder = TreeBuilder(self._sink, self._keys, source, self._maker.directory(event, old), old)
            return
        inside = self._parents[-1].enter(event.name)
        old = inside.vouched
        self._parents.append(inside)
        self._builder.enter(self._maker.directory(event, old), old)

    def _leave(self, event: LeaveDirectory) -> None:
        assert self._builder is not None
        if event.error:
            self._tally.problem(event.directory.path or b"/", event.error)
        entry = self._builder.leave(self._parents.pop().ends_after, event.error)
        if event.directory.parent is None:
            self._top = entry
            return
        self._add(entry)
        self._put_due_checkpoint()

    def _put_due_checkpoint(self) -> None:
        if clock.monotonic_ns() > self._checkpoint_ns and not self._plan.request.dry_run:
            self._put_checkpoint()

    def _put_checkpoint(self) -> None:
        """Put what there is as an unfinished root.

        A prune spares it, and a next run takes it up if this one is killed.
        """
        assert self._builder is not None
        top = self._builder.so_far()
        links, link_count = write_links(self._sink, self._keys, self._links)
        self._sink.flush()
        self._plan.repository.catalog.put_partial(self.root(top, links, link_count, (), partial=True))
        self._checkpoint_ns = clock.monotonic_ns() + _CHECKPOINT_NS


def _open_sink(plan: _Plan, usable: dict[PackId, int]) -> BlobWriter | BlobCounter:
    """Where blobs go, given the packs that are there to be relied on, with their lengths."""
    repository = plan.repository
    if plan.request.dry_run:
        return BlobCounter(
            repository.keys, repository.index, usable=set(usable), folder=repository.cache_folder / "spool"
        )
    index_orphans(repository.storage, repository.keys, repository.index, usable.items())
    return BlobWriter(
        repository.storage,
        repository.keys,
        repository.index,
        usable=set(usable),
        spool=repository.spool,
        compression=plan.request.compression,
        cached=repository.cached,
    )
