"""Checking a repository.

Every object is what its name says, and everything a snapshot needs is there (FORMAT.md, sections 2 to 11).
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice

from backthen.repository import entropy
from backthen.repository import format as fmt
from backthen.repository.catalog import SnapshotInfo
from backthen.repository.catalog.roots import Roots
from backthen.repository.content import SnapshotTree, extents_from
from backthen.repository.crypto import object_id
from backthen.repository.errors import (
    DamageError,
    MalformedError,
    MissingError,
    NewerFormatError,
    ObjectMissing,
    TamperedError,
)
from backthen.repository.ids import BlobId, PackId
from backthen.repository.index import TemporaryTable, decode_index
from backthen.repository.maintenance.verify_pack import verify_pack
from backthen.repository.model.entry import BlobRef, Entry, EntryType
from backthen.repository.model.page import Child, Page, decode_links_page, decode_tree_page
from backthen.repository.model.records import IndexedPack
from backthen.repository.objects import load_pack_directory
from backthen.repository.opening import Repository
from backthen.repository.progress import Progress
from backthen.repository.slots import damaged_slots
from backthen.repository.storage import (
    FOLDERS,
    is_object_name,
    pack_name,
    parse_index_name,
    parse_pack_name,
    root_name,
)

_PACKS_AT_ONCE = 64
_WORKERS = 2
_FRUITLESS_LOOKS_MAX = 3
_FOUND = (DamageError, ObjectMissing, NewerFormatError)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong: the object's name, or the snapshot and path that suffer, and what."""

    name: str
    message: str


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """`read_data_percent` of the packs are read whole: 0 reads none, 100 all."""

    read_data_percent: float = 0


@dataclass(slots=True)
class CheckReport:
    """What was checked and found; `bytes_read` counts packs read whole."""

    findings: list[Finding] = field(default_factory=list)
    snapshots: int = 0
    packs: int = 0
    packs_unindexed: int = 0
    packs_read: int = 0
    blobs: int = 0
    bytes_read: int = 0
    bytes_stored: int = 0


def check_repository(repository: Repository, request: CheckRequest, progress: Progress) -> CheckReport:
    """Check all there is, in the storage itself; what is wrong is found, not raised.

    Raises:
        StorageError: the storage failed, so that nothing can be said.
        CacheError: the cache folder cannot be used.
    """
    with repository.reading_anew() as anew:
        return _check(anew, request, progress)


def _check(repository: Repository, request: CheckRequest, progress: Progress) -> CheckReport:
    report = CheckReport()
    packs = _list_packs(repository, report)
    with _DataCheck(repository, _sample(packs, request.read_data_percent)) as data:
        _check_names(repository, report)
        _check_keys(repository, report)
        gone = _check_index(repository, report, packs, progress)
        if _check_snapshots(repository, report, packs, progress):
            _name_gone_packs(repository, report, gone)
        _check_unlogged(repository, report)
        if request.read_data_percent:
            data.finish(report, progress)
    return report


def _list_packs(repository: Repository, report: CheckReport) -> dict[PackId, int]:
    packs = {}
    for stored in repository.storage.list("packs"):
        report.bytes_stored += stored.length
        pack_id = parse_pack_name(stored.name)
        if pack_id is not None:
            packs[pack_id] = stored.length
    report.packs = len(packs)
    return packs


def _check_names(repository: Repository, report: CheckReport) -> None:
    for folder in FOLDERS:
        for stored in repository.storage.list(folder):
            if not is_object_name(stored.name):
                report.findings.append(Finding(stored.name, "it is not an object of a repository"))


def _check_keys(repository: Repository, report: CheckReport) -> None:
    for damage in damaged_slots(repository.storage, repository.header, repository.opened):
        with _found(report, damage.name):
            raise damage


def _check_index(
    repository: Repository, report: CheckReport, packs: dict[PackId, int], progress: Progress
) -> list[PackId]:
    """Index objects are authentic, and say of each pack what the pack says of itself; the packs that are not there."""
    progress.start("index", files_total=len(packs))
    with suppress(DamageError, NewerFormatError):  # each object is read below, and named
        repository.refresh()
    checked: set[PackId] = set()
    gone: list[PackId] = []
    for stored in repository.storage.list("index"):
        index_id = parse_index_name(stored.name)
        if index_id is None:
            continue  # named with the strangers
        with _found(report, stored.name):
            data = repository.storage.get(stored.name, 0, min(stored.length, fmt.PAYLOAD_BYTES_MAX))
            if index_id != object_id(data):
                raise TamperedError("its bytes are not those of its name", name=stored.name)
            for indexed in decode_index(repository.keys, data, name=stored.name).packs:
                if indexed.id in packs:
                    _check_indexed(repository, report, packs[indexed.id], indexed)
                else:
                    gone.append(indexed.id)
                checked.add(indexed.id)
                report.blobs += len(indexed.prefixes) // fmt.ID_PREFIX_BYTES
                progress.advance(files=1, current=pack_name(indexed.id).encode())
    report.packs_unindexed = len(packs.keys() - checked)
    return gone


def _check_indexed(repository: Repository, report: CheckReport, length: int, indexed: IndexedPack) -> None:
    name = pack_name(indexed.id)
    with _found(report, name):
        directory = load_pack_directory(repository.storage, repository.keys, indexed.id, length)
        if directory.indexed(indexed.id) != indexed:
            raise MalformedError("the index says something else of it than it says itself", name=name)


def _name_gone_packs(repository: Repository, report: CheckReport, gone: list[PackId]) -> None:
    """Name packs that the index has and the storage has not, where snapshots suffer.

    Else nothing is needed of them: two prunes at once can leave the name of what one deleted in what the other puts.
    """
    present = _list_packs(repository, CheckReport())
    report.findings.extend(Finding(pack_name(pack), "it is missing") for pack in gone if pack not in present)


def _check_snapshots(repository: Repository, report: CheckReport, packs: dict[PackId, int], progress: Progress) -> bool:
    """Everything that the snapshots reach is there; whether some of it is not."""
    infos: list[SnapshotInfo] = []
    with _found(report, "log"):
        infos = repository.snapshots()
    for damage in repository.damage:
        with _found(report, damage.name):
            raise damage
    report.snapshots = len(infos)
    progress.start("snapshots", files_total=sum(1 + info.root.top.below for info in infos))
    before = len(report.findings)
    walk = _TreeCheck(repository, report, packs, progress)
    try:
        for info in infos:
            found = len(report.findings)
            walk.check(repository.tree(info))
            if len(report.findings) > found and info.id not in {shown.id for shown in repository.snapshots()}:
                del report.findings[found:]  # it was forgotten and pruned meanwhile
    finally:
        walk.close()
    return len(report.findings) > before


def _check_unlogged(repository: Repository, report: CheckReport) -> None:
    """Marks, and what unfinished runs left: nobody reads them but a prune, which a damaged one stops."""
    with _found(report, "marks"):
        repository.catalog.condemned()
    named = {finding.name for finding in report.findings}
    roots = Roots(repository.storage, repository.keys)
    for id_ in sorted(roots.list_ids()):
        if root_name(id_) not in named:
            with _found(report, root_name(id_)):
                roots.read(id_)


class _TreeCheck:
    """Walks trees, each page once over all snapshots; names on pages that were seen before are done at once."""

    def __init__(
        self, repository: Repository, report: CheckReport, packs: dict[PackId, int], progress: Progress
    ) -> None:
        self._repository = repository
        self._source = repository.blobs.source
        self._report = report
        self._packs = packs
        self._looks_left = _FRUITLESS_LOOKS_MAX
        self._progress = progress
        self._seen = TemporaryTable(repository.cache_folder / "spool")

    def close(self) -> None:
        self._seen.close()

    def check(self, tree: SnapshotTree) -> None:
        self._where = f"snapshot {tree.id.hex()[:8]}"
        top = tree.root.top
        self._progress.advance(files=1)
        self._check_pages([(top.page, decode_tree_page, b"", (top.below, top.size))])
        if tree.root.links is not None:
            self._check_pages([(tree.root.links, decode_links_page, b"", None)])

    def _check_pages(self, waiting: list[_Waiting]) -> None:
        while waiting:
            ref, decode, path, expected = waiting.pop()
            if ref is None or not self._is_new(ref):
                self._progress.advance(files=expected[0] if expected is not None else 0)
                continue
            with _found(self._report, self._name(path)):
                page = self._source.page(ref, decode)
                if expected is not None and (page.count, page.size) != expected:
                    raise MalformedError("a directory does not hold what its entry says")
                if expected is not None and not page.level:
                    self._progress.advance(files=len(page.items), current=path or b"/")
                for item in page.items:
                    if isinstance(item, Child):
                        waiting.append((item.ref, decode, path, (item.count, item.size)))
                    elif isinstance(item, Entry) and item.is_directory:
                        below = path + b"/" + item.name
                        waiting.append((item.page, decode_tree_page, below, (item.below, item.size)))
                    elif isinstance(item, Entry):
                        try:
                            self._check_entry(item)
                        except _FOUND as error:
                            _add_finding(self._report, self._name(path + b"/" + item.name), error)

    def _check_entry(self, entry: Entry) -> None:
        """What is no directory has all that it stands on."""
        if entry.xattr_blob is not None:
            self._check_blob(entry.xattr_blob.id, entry.xattr_blob.length)
        length = 0
        for _, extent in extents_from(self._source, entry, 0):
            length += extent.length
            if not extent.is_hole:
                self._check_blob(extent.id, extent.length)
        if entry.type == EntryType.FILE and not entry.error and length != entry.size:
            raise MalformedError("the extents of a file do not fill it")

    def _check_blob(self, id_: BlobId, length: int) -> None:
        while not self._is_stored(id_[: fmt.ID_PREFIX_BYTES]):
            if not self._look_again():
                raise MissingError(f"a blob of {length} bytes is missing")

    def _is_stored(self, prefix: bytes) -> bool:
        index = self._repository.index
        first = index.lookup(prefix)
        if first is not None and index.pack_id(first) in self._packs:
            return True
        return any(index.pack_id(place) in self._packs for place in index.copies(prefix))

    def _look_again(self) -> bool:
        """See what snapshots and prunes have stored and moved since; whether that is anything.

        In a repository that has lost much this would be done for each blob, and is given up.
        """
        if not self._looks_left:
            return False
        is_new = False
        with suppress(DamageError, NewerFormatError):  # named with the index
            is_new = self._repository.refresh()
        packs = _list_packs(self._repository, CheckReport())
        is_new |= packs.keys() != self._packs.keys()
        self._packs = packs
        self._looks_left -= not is_new
        return is_new

    def _is_new(self, ref: BlobRef) -> bool:
        key = ref.id[: fmt.ID_PREFIX_BYTES]
        if self._seen.get(key) is not None:
            return False
        self._seen.put(key, b"")
        return True

    def _name(self, path: bytes) -> str:
        return f"{self._where}:{path.decode(errors='backslashreplace') or '/'}"


_Waiting = tuple[BlobRef | None, Callable[[bytes], Page], bytes, tuple[int, int] | None]


def _sample(packs: dict[PackId, int], percent: float) -> list[tuple[PackId, int]]:
    """So many of the packs, others each time."""
    salt = entropy.random_bytes(16)
    shuffled = sorted(packs.items(), key=lambda item: hashlib.sha256(salt + item[0]).digest())
    return shuffled[: math.ceil(len(shuffled) * min(percent, 100) / 100)]


class _DataCheck:
    """Packs being read whole in the background, beginning at once; use in a `with`."""

    def __init__(self, repository: Repository, packs: list[tuple[PackId, int]]) -> None:
        self._repository = repository
        self._packs = packs
        self._waiting = iter(packs)
        self._under_way: deque[tuple[PackId, int, Future[list[str]]]] = deque()
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="check")
        for pack_id, length in islice(self._waiting, _PACKS_AT_ONCE):
            self._submit(pack_id, length)

    def __enter__(self) -> _DataCheck:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def finish(self, report: CheckReport, progress: Progress) -> None:
        """Wait for all of them, and report what was found; the progress is of those that are not done yet."""
        while self._under_way and self._under_way[0][2].done():
            self._take(report)
        total = sum(length for _, length in self._packs)
        progress.start("data", files_total=len(self._packs) - report.packs_read, bytes_total=total - report.bytes_read)
        while self._under_way:
            pack_id, length = self._take(report)
            progress.advance(files=1, size=length, current=pack_name(pack_id).encode())

    def _take(self, report: CheckReport) -> tuple[PackId, int]:
        pack_id, length, verified = self._under_way.popleft()
        report.findings.extend(Finding(pack_name(pack_id), problem) for problem in verified.result())
        report.packs_read += 1
        report.bytes_read += length
        for further in islice(self._waiting, 1):
            self._submit(*further)
        return pack_id, length

    def _submit(self, pack_id: PackId, length: int) -> None:
        self._under_way.append((pack_id, length, self._pool.submit(self._verify, pack_id, length)))

    def _verify(self, pack_id: PackId, length: int) -> list[str]:
        repository = self._repository
        return list(verify_pack(repository.storage, repository.keys, pack_id, length, repository.cached))


@contextmanager
def _found(report: CheckReport, name: str) -> Iterator[None]:
    """What is wrong inside is a finding; a failure of the storage itself is not."""
    try:
        yield
    except _FOUND as error:
        _add_finding(report, name, error)


def _add_finding(report: CheckReport, name: str, error: Exception) -> None:
    shown = error.name if isinstance(error, DamageError) and error.name else name
    message = str(error).removeprefix(f"{shown}: ")
    name = shown if name in FOLDERS else name
    report.findings.append(Finding(name, message if shown == name else f"{shown}: {message}"))
