"""Which blobs of which packs the trees of snapshots need."""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import partial

from backthen.repository import format as fmt
from backthen.repository.content import blobs_of
from backthen.repository.errors import MissingError
from backthen.repository.ids import BlobId, PackId, SnapshotId
from backthen.repository.index import LocalIndex, Location, PackRecord
from backthen.repository.model.entry import BlobRef, Entry
from backthen.repository.model.page import Child, Page, decode_links_page, decode_tree_page
from backthen.repository.model.records import Root
from backthen.repository.objects import BlobSource
from backthen.repository.progress import Progress

_Waiting = tuple[BlobRef, Callable[[bytes], Page], bytes]


class Need:
    """One byte for each blob of a pack that something is needed of: whether it is.

    Of a blob with several copies one in a pack that stays is chosen. Where there is none, all are needed: other prunes
    may count on copies that this one deletes, as it may on theirs. What was once found to be needed stays so: roots can
    be added, not taken away.
    """

    def __init__(self, index: LocalIndex, source: BlobSource, progress: Progress) -> None:
        """Need nothing yet; `index` says where blobs are, `source` reads trees, `progress` is told of passed files."""
        self._index = index
        self._source = source
        self._progress = progress
        self._roots: set[SnapshotId] = set()
        self._needed: dict[PackId, bytearray] = {}

    @property
    def packs(self) -> frozenset[PackId]:
        """The packs that something is needed of."""
        return frozenset(self._needed)

    def of_pack(self, pack: PackId) -> bytes:
        """One byte for each blob of a pack in its order, not 0 where it is needed; empty where none is."""
        return bytes(self._needed.get(pack, b""))

    def add(self, id_: SnapshotId, root: Root, staying: Container[PackId], present: Container[PackId]) -> None:
        """Need all that a root reaches, and that it is there.

        Args:
            id_: of the root.
            root: it.
            staying: the packs in storage that are not condemned.
            present: all packs in storage.

        Raises:
            MissingError: something it reaches is in no pack that is present.
            DamageError: a page cannot be read.
            StorageError: the storage failed.
            CacheError: the local index cannot be used.
        """
        if id_ in self._roots:
            return
        claim = partial(self._claim, staying=staying, present=present)
        waiting: list[_Waiting] = []
        if root.links is not None:
            waiting.append((root.links, decode_links_page, b"/"))
        self._add_entry(root.top, b"", waiting, claim)
        while waiting:
            ref, decode, path = waiting.pop()
            if claim(ref):
                self._add_page(self._source.page(ref, decode), decode, path, waiting, claim)
        self._roots.add(id_)

    def _add_page(
        self,
        page: Page,
        decode: Callable[[bytes], Page],
        path: bytes,
        waiting: list[_Waiting],
        claim: Callable[[BlobRef], bool],
    ) -> None:
        if not page.level:
            self._progress.advance(files=len(page.items), current=path or b"/")
        for item in page.items:
            if isinstance(item, Child):
                waiting.append((item.ref, decode, path))
            elif isinstance(item, Entry):
                self._add_entry(item, path + b"/" + item.name, waiting, claim)

    def _add_entry(self, entry: Entry, path: bytes, waiting: list[_Waiting], claim: Callable[[BlobRef], bool]) -> None:
        if not entry.is_directory:
            for ref in blobs_of(self._source, entry):
                claim(ref)
            return
        if entry.xattr_blob is not None:
            claim(entry.xattr_blob)
        if entry.page is not None:
            waiting.append((entry.page, decode_tree_page, path))

    def _claim(self, ref: BlobRef, *, staying: Container[PackId], present: Container[PackId]) -> bool:
        """Need a blob; whether it was not needed before."""
        places = self._find(ref.id, staying, present)
        if not places:
            raise MissingError(
                f"a blob of {ref.length} bytes that a snapshot needs is missing",
                hint="Nothing was deleted. If another prune is at work try again later; else `backthen check` names the"
                " snapshots that suffer, which are to be forgotten first.",
            )
        is_new = False
        for place in places:
            record = self._index.pack(place)
            needed = self._needed.get(record.id)
            if needed is None:
                needed = self._needed[record.id] = bytearray(sum(record.counts))
            number = _number(record, place)
            is_new |= not needed[number]
            needed[number] = 1
        return is_new

    def _find(self, id_: BlobId, staying: Container[PackId], present: Container[PackId]) -> list[Location]:
        """The copies of a blob to be needed."""
        index = self._index
        prefix = id_[: fmt.ID_PREFIX_BYTES]
        first = index.lookup(prefix)
        if first is not None and index.pack_id(first) in staying:
            return [first]
        places = index.copies(prefix)
        chosen = [place for place in places if index.pack_id(place) in staying][:1]
        return chosen or [place for place in places if index.pack_id(place) in present]


def _number(record: PackRecord, location: Location) -> int:
    """Which blob of the pack is at a location, from 0."""
    return sum(record.counts[: location.segment]) + location.ordinal
