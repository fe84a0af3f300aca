"""What packs hold of what the snapshots of a repository need, for a prune (see `catalog.prune.Contents`)."""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
from collections.abc import Container, Iterable, Iterator, Mapping, Set
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from backthen.repository.compression import Compression
from backthen.repository.errors import CacheError
from backthen.repository.ids import PackId, SnapshotId
from backthen.repository.index import LocalIndex, PackRecord
from backthen.repository.model.records import Root
from backthen.repository.objects import BlobWriter, index_orphans, refresh_index, remove_from_index
from backthen.repository.opening import Repository
from backthen.repository.private import make_private_folder
from backthen.repository.progress import Progress
from backthen.repository.pruning.moving import is_moved_whole, move_needed
from backthen.repository.pruning.need import Need
from backthen.repository.storage import pack_name

_UNNEEDED_SHARE_MAX = 1 / 20
"""So much of what packs hold may be needed by nobody before some are written anew, which costs reading and writing."""


class PackUse(NamedTuple):
    """A pack; sizes of segments in bytes as they are stored.

    Attributes:
        id: which.
        is_needed: whether anything of it is.
        bytes_kept: what moving what is needed would store again, about.
        bytes_freed: what it would not.
    """

    id: PackId
    is_needed: bool
    bytes_kept: int
    bytes_freed: int


class RepositoryContents:
    """The packs of a repository; each step of a prune begins with `look`. Use in a `with`.

    It has an index of its own, made of the index objects in storage: what a damaged cache says of where blobs are must
    not decide over what is deleted.

    Attributes:
        bytes_moved: bytes of packs and index objects that were stored in place of others.
    """

    def __init__(self, repository: Repository, progress: Progress, *, dry_run: bool) -> None:
        """Know nothing yet; in a dry run nothing is written, and `move_out` must not be called.

        Raises:
            CacheError: the cache folder cannot be used.
        """
        self._repository = repository
        self._progress = progress
        self._dry_run = dry_run
        self._index_folder, self._lock = _take_folder(repository.cache_folder / "prune")
        self._index = LocalIndex(self._index_folder, repository.keys)
        self._index.clear()
        self._packs: Mapping[PackId, int] = {}
        self._staying: Set[PackId] = frozenset()
        self._expendable: frozenset[PackId] = frozenset()
        self._need = self._nothing()
        self._counted_on: Set[PackId] = frozenset()
        self.bytes_moved = 0

    def __enter__(self) -> RepositoryContents:
        """Use it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove its index."""
        self._index.close()
        shutil.rmtree(self._index_folder, ignore_errors=True)
        os.close(self._lock)

    @property
    def bytes_stored(self) -> int:
        """Bytes of all packs that were there at the last look."""
        return self.lengths(self._packs)

    def lengths(self, packs: Iterable[PackId]) -> int:
        """Bytes of some of the packs that were there at the last look."""
        return sum(self._packs[pack] for pack in packs)

    def bytes_to_move(self, packs: Container[PackId]) -> int:
        """Bytes of some of the packs that would be stored again, about.

        Raises:
            CacheError: the index cannot be used.
        """
        return sum(use.bytes_kept for use in self._uses(packs))

    def look(self, packs: Mapping[PackId, int], condemned: Set[PackId]) -> None:
        """See `Contents.look`.

        Packs that no index object describes are indexed first: what another prune has moved out of a pack that is to
        be deleted may be in one of them, and in no other. What is in a pack that cannot be read nobody knows: it stays.

        Raises:
            DamageError: an index object was damaged or changed.
            NewerFormatError: one needs a newer version of the program.
            StorageError: the storage failed.
            CacheError: the local index cannot be written.
        """
        storage, keys = self._repository.storage, self._repository.keys
        refresh_index(storage, keys, self._index)
        if not self._dry_run:
            index_orphans(storage, keys, self._index, packs.items())
        self._packs = packs
        self._staying = packs.keys() - condemned

    def need(self, roots: Mapping[SnapshotId, Root], leaving: Set[PackId]) -> None:
        """See `Contents.need`.

        Raises:
            MissingError: something that is needed is missing.
            DamageError: something that is needed is damaged.
            StorageError: the storage failed.
            CacheError: the local index cannot be used.
        """
        if not self._counted_on - self._staying <= self._expendable & leaving:
            # Others delete packs that were to stay, or have deleted some. Who condemned them may not have known what is
            # condemned here, and count on copies in it; so of what has no copy that stays now, all are to be needed.
            self._need = self._nothing()
            self._counted_on = frozenset()
        self._counted_on |= self._staying
        self._progress.start("find")
        try:
            for id_, root in roots.items():
                self._need.add(id_, root, self._staying, self._packs)
        except BaseException:
            self._need = self._nothing()  # pages count as seen whose contents were not
            raise

    def expendable(self) -> frozenset[PackId]:
        """See `Contents.expendable`.

        Raises:
            CacheError: the local index cannot be used.
        """
        uses = list(self._uses(self._staying))
        expendable = {use.id for use in uses if not use.is_needed}
        needed = sorted((use for use in uses if use.is_needed), key=_share_freed, reverse=True)
        wasted = sum(use.bytes_freed for use in needed)
        wasted_max = sum(use.bytes_kept for use in needed) * _UNNEEDED_SHARE_MAX
        for use in needed:
            if wasted <= wasted_max:
                break
            wasted -= use.bytes_freed
            expendable.add(use.id)
        self._expendable = frozenset(expendable)
        return self._expendable

    def move_out(self, packs: Set[PackId]) -> None:
        """See `Contents.move_out`.

        Raises:
            DamageError: a pack or index object was damaged or changed.
            StorageError: the storage failed.
            CacheError: the cache cannot be used.
        """
        repository = self._repository
        moving = sorted(packs & self._need.packs)
        self._progress.start("move", files_total=len(moving), bytes_total=self.lengths(moving))
        with BlobWriter(
            repository.storage,
            repository.keys,
            self._index,
            usable=set(self._staying - packs),
            spool=repository.spool,
            compression=Compression(),
            cached=repository.cached,
        ) as writer:
            for pack in moving:
                move_needed(repository.storage, repository.keys, pack, self._need.of_pack(pack), writer)
                self._progress.advance(files=1, size=self._packs[pack], current=pack_name(pack).encode())
            writer.flush()
            self.bytes_moved += writer.bytes_added
        remove_from_index(repository.storage, repository.keys, packs)
        refresh_index(repository.storage, repository.keys, self._index)

    def _nothing(self) -> Need:
        return Need(self._index, self._repository.blobs.source, self._progress)

    def _uses(self, packs: Container[PackId]) -> Iterator[PackUse]:
        """Of those of the packs that are there and indexed."""
        for record in self._index.packs():
            if record.id in packs and record.id in self._packs:
                yield _use(record, self._need.of_pack(record.id))


def _take_folder(above: Path) -> tuple[Path, int]:
    """A folder that no other prune on this machine uses, and the descriptor whose lock (flock) says so.

    One that a killed prune left is taken again, with what is in it.

    Raises:
        CacheError: it cannot be made.
    """
    try:
        for number in itertools.count():
            folder = above / str(number)
            with suppress(FileNotFoundError):  # its prune has just ended
                make_private_folder(folder)
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                with suppress(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if os.fstat(descriptor).st_nlink:
                        return folder, descriptor
                os.close(descriptor)
    except OSError as error:
        raise CacheError(f"{above} cannot be used: {error.strerror}", hint="Choose another --cache-dir.") from error
    raise AssertionError("one of them is free")


def _use(record: PackRecord, needed: bytes) -> PackUse:
    """Of a segment the share of its blobs counts, of a large blob all or nothing."""
    kept = freed = at = 0
    share = 0.0
    for count, (begin, end) in zip(record.counts, pairwise(record.offsets), strict=True):
        if count:  # else a further piece of the blob before
            alive = count - needed.count(0, at, at + count) if needed else 0
            share = 1 if alive and is_moved_whole(count, alive) else alive / count
            at += count
        kept += round((end - begin) * share)
        freed += round((end - begin) * (1 - share))
    return PackUse(record.id, bool(needed), kept, freed)


def _share_freed(use: PackUse) -> float:
    return use.bytes_freed / (use.bytes_kept + use.bytes_freed)
