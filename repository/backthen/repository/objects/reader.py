"""Blobs by id: from memory where they are there, else from the packs in storage, authenticated and verified."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from backthen.repository import format as fmt
from backthen.repository.bounded import LRUCache
from backthen.repository.crypto import BlobKind, PackCipher, RepositoryKeys, open_pack_cipher
from backthen.repository.errors import (
    CacheError,
    DamageError,
    MalformedError,
    MissingError,
    NewerFormatError,
    ObjectMissing,
    StorageError,
    TamperedError,
)
from backthen.repository.ids import BlobId, PackId
from backthen.repository.index import LocalIndex, Location, PackRecord
from backthen.repository.model.entry import BlobRef
from backthen.repository.model.page import Page
from backthen.repository.objects.ahead import AheadWorkers
from backthen.repository.objects.fetching import Prefetcher, segments_of
from backthen.repository.objects.source import CacheUse, NotInMemory
from backthen.repository.packs import RunPiece, SolidBody, open_segment
from backthen.repository.packs.segment import FORM_RUN, FORM_SOLID
from backthen.repository.storage import CachedStorage, Storage, pack_name

SEGMENT_CACHE_BYTES = 32 * fmt.MIB
PAGE_CACHE_BYTES = 24 * fmt.MIB
_DECODED_PAGE_FACTOR = 8
_CIPHERS_MAX = 64
_LOCKS = 64
_BLOB_BYTES = 200
"""What one blob takes in memory besides its data: where it ends, and the id that it was found to have."""
_AHEAD_BYTES = 2 * fmt.MIB
"""How far ahead of a reader segments are opened: stored bytes of a pack. Several packs are read at once, and text is
four times as long when it is opened, so more of it would leave the cache before it is asked for."""
_EAGERNESS_AFAR = 8
"""With it a line of 20 MB/s and 50 ms is full after four round trips, with 1 only after eight."""
_EXPECTED_MAX = 256
"""Segments that somebody said are read next."""
_CHUNK_KINDS = (BlobKind.CHUNK, BlobKind.XATTR)
_PAGE_KINDS = (BlobKind.PAGE, BlobKind.LIST)
_UNREADABLE = (DamageError, ObjectMissing, NewerFormatError)


class BlobReader:
    """The two sources of blobs of a repository, over one bounded cache of opened segments and one of decoded pages.

    Attributes:
        source: may block on storage.
        near: answers from memory at once, or raises `NotInMemory`.
    """

    def __init__(
        self,
        storage: Storage,
        keys: RepositoryKeys,
        index: LocalIndex,
        refresh: Callable[[], bool],
        cached: CachedStorage | None = None,
    ) -> None:
        """Read from `storage`.

        Args:
            storage: where the packs are.
            keys: the repository's keys.
            index: where the blobs are.
            refresh: takes in what is new in the repository's index; whether anything was.
            cached: the storage, where it is elsewhere and what was fetched is kept.
        """
        self._cached = cached
        self._far = None if cached is None else Prefetcher(cached, index)
        self._storage = storage
        self._keys = keys
        self._index = index
        self._refresh = refresh
        self._segments: LRUCache[tuple[PackId, int], _Opened] = LRUCache(SEGMENT_CACHE_BYTES, _segment_cost)
        self._pages: LRUCache[tuple[bytes, Callable[[bytes], Page]], tuple[Page, int]] = LRUCache(
            PAGE_CACHE_BYTES, lambda item: item[1]
        )
        self._ciphers: LRUCache[PackId, PackCipher] = LRUCache(_CIPHERS_MAX)
        self._locks = [threading.Lock() for _ in range(_LOCKS)]
        self._touched: tuple[PackId, int] | None = None
        self._ahead = AheadWorkers()
        self._expected: LRUCache[tuple[PackId, int], bool] = LRUCache(_EXPECTED_MAX)
        self.source = _Source(self, blocking=True)
        self.near = _Source(self, blocking=False)

    def close(self) -> None:
        """Stop reading ahead."""
        self._ahead.close()

    def rest(self) -> None:
        """End the threads that read ahead until they are needed again: a process may fork then."""
        self._ahead.rest()

    def be_modest(self, bytes_max: int) -> None:
        """Use no threads, and so much memory for all caches; what they hold is forgotten."""
        self._ahead = AheadWorkers(threads=0)
        self._segments.clear()
        self._pages.clear()
        self.bound_caches(bytes_max)

    @property
    def cache_uses(self) -> tuple[CacheUse, ...]:
        """How full each of the caches is."""
        caches = (("segments", self._segments), ("pages", self._pages))
        return tuple(CacheUse(name, cache.cost_total, cache.cost_max) for name, cache in caches)

    def bound_caches(self, bytes_max: int) -> None:
        """Let all caches together hold so much, shared out as by default; to be called before anything is read."""
        segment_bytes = bytes_max * SEGMENT_CACHE_BYTES // (SEGMENT_CACHE_BYTES + PAGE_CACHE_BYTES)
        self._segments.cost_max = segment_bytes
        self._pages.cost_max = bytes_max - segment_bytes

    def page(self, ref: BlobRef, decode: Callable[[bytes], Page], *, blocking: bool) -> Page:
        """See `BlobSource.page`."""
        key = (ref.id, decode)
        cached = self._pages.get(key)
        if cached is not None:
            return cached[0]
        data = bytes(self._read(ref, 0, ref.length, _PAGE_KINDS, blocking=blocking))
        try:
            page = decode(data)
        except MalformedError as error:
            raise MalformedError(str(error), name=f"page {ref.id.hex()[:16]}") from error
        self._pages[key] = (page, ref.length * _DECODED_PAGE_FACTOR)
        if self._far is not None and blocking:
            self._far.pages_below(page)
        return page

    def read(self, ref: BlobRef, offset: int, length: int | None, *, blocking: bool) -> bytes | memoryview:
        """See `BlobSource.read`."""
        end = ref.length if length is None else min(offset + length, ref.length)
        return self._read(ref, offset, end, _CHUNK_KINDS, blocking=blocking)

    def segment_of(self, ref: BlobRef) -> Hashable:
        """See `BlobSource.segment_of`."""
        location = self._index.lookup(ref.id[: fmt.ID_PREFIX_BYTES])
        return None if location is None else (location.generation, location.pack_number, location.segment)

    def read_together(self, refs: Sequence[BlobRef], *, blocking: bool) -> list[bytes | memoryview]:
        """See `BlobSource.read_together`."""
        if blocking:
            with suppress(*_UNREADABLE):  # one by one they may be found elsewhere
                blobs = self._read_whole_segment(refs)
                if blobs is not None:
                    return blobs
        return [self.read(ref, 0, None, blocking=blocking) for ref in refs]

    def _read_whole_segment(self, refs: Sequence[BlobRef]) -> list[bytes | memoryview] | None:
        """The blobs, where they are all those of one solid segment, and it is not in memory yet."""
        locations = [self._index.lookup(ref.id[: fmt.ID_PREFIX_BYTES]) for ref in refs]
        first = locations[0]
        if first is None:
            return None
        pack, number = self._index.pack(first), first.segment
        ordinals = [location.ordinal for location in locations if location is not None and location[:3] == first[:3]]
        is_whole = len(ordinals) == len(refs) and len(set(ordinals)) == pack.counts[number]
        if pack.is_run(number) or not is_whole or (pack.id, number) in self._segments:
            return None
        opened = _Opened(self._load(pack, number), {})
        pairs = zip(ordinals, refs, strict=True)
        return [self._verified(opened, pack, ordinal, ref, _CHUNK_KINDS) for ordinal, ref in pairs]

    @property
    def eagerness(self) -> int:
        """See `BlobSource.eagerness`."""
        return 1 if self._far is None else _EAGERNESS_AFAR

    def expect(self, ref: BlobRef) -> bool:
        """See `BlobSource.expect`."""
        with suppress(CacheError):
            location = self._index.lookup(ref.id[: fmt.ID_PREFIX_BYTES])
            if location is not None:
                pack = self._index.pack(location)
                numbers = segments_of(pack, location.segment, ref)
                if self._far is None:
                    return self._expect_segments(pack, numbers)
                is_coming = self._far.fetch(pack, numbers)
                self._expect_segments(pack, numbers)
                return is_coming
        return True

    def _expect_segments(self, pack: PackRecord, numbers: range) -> bool:
        for number in numbers:
            key = (pack.id, number)
            if key not in self._segments and not self._ahead.offer(key, partial(self._open_ahead, pack, number)):
                return False
            self._expected[key] = True
        return True

    def _read(
        self, ref: BlobRef, offset: int, end: int, kinds: tuple[BlobKind, BlobKind], *, blocking: bool
    ) -> bytes | memoryview:
        if len(ref.id) != fmt.ID_BYTES or ref.length < 0:
            raise MalformedError("a reference to a blob does not follow the format")
        location = self._index.lookup(ref.id[: fmt.ID_PREFIX_BYTES])
        try:
            if location is not None:
                return self._read_at(location, ref, offset, end, kinds, blocking=blocking)
        except _UNREADABLE as error:
            if blocking:
                return self._read_elsewhere(ref, offset, end, kinds, error)
        if not blocking:
            raise NotInMemory
        return self._read_elsewhere(ref, offset, end, kinds, None)

    def _read_elsewhere(
        self, ref: BlobRef, offset: int, end: int, kinds: tuple[BlobKind, BlobKind], error: Exception | None
    ) -> bytes | memoryview:
        """Try the blob's other copies, then what other clients have stored since."""
        for attempt in range(2):
            places = self._index.copies(ref.id[: fmt.ID_PREFIX_BYTES])
            for location in places[1:] if attempt == 0 and error is not None else places:
                try:
                    return self._read_at(location, ref, offset, end, kinds, blocking=True)
                except _UNREADABLE as next_error:
                    error = next_error
            if attempt:
                break
            try:
                if not self._refresh():
                    break
            except (DamageError, NewerFormatError) as index_error:
                error = error or index_error  # what the other index objects say was taken in all the same
        if isinstance(error, DamageError | NewerFormatError):
            raise error
        raise MissingError(f"a blob of {ref.length} bytes is missing" + (f" ({error})" if error else "")) from error

    def _read_at(
        self,
        location: Location,
        ref: BlobRef,
        offset: int,
        end: int,
        kinds: tuple[BlobKind, BlobKind],
        *,
        blocking: bool,
    ) -> bytes | memoryview:
        pack = self._index.pack(location)
        if pack.is_run(location.segment):
            return self._read_run(pack, location.segment, ref, offset, end, blocking=blocking)
        opened = self._segment(pack, location.segment, blocking=blocking)
        return self._verified(opened, pack, location.ordinal, ref, kinds)[offset:end]

    def _verified(
        self, opened: _Opened, pack: PackRecord, ordinal: int, ref: BlobRef, kinds: tuple[BlobKind, BlobKind]
    ) -> memoryview:
        """A blob of an opened segment, which must be the one that is meant."""
        blob = opened.body.blob(ordinal) if isinstance(opened.body, SolidBody) else memoryview(b"")
        if opened.verified.get(ordinal) != ref.id:
            if all(self._keys.blob_id(kind, blob) != ref.id for kind in kinds):
                raise MalformedError("a segment holds another blob than the index says", name=pack_name(pack.id))
            opened.verified[ordinal] = ref.id
        if len(blob) != ref.length:
            raise MalformedError("a segment holds another blob than the index says", name=pack_name(pack.id))
        return blob

    def _read_run(
        self, pack: PackRecord, first: int, ref: BlobRef, offset: int, end: int, *, blocking: bool
    ) -> bytes | memoryview:
        parts: list[memoryview] = []
        if self._far is not None and blocking and end - offset > fmt.RUN_PIECE_BYTES:
            self._far.fetch(pack, segments_of(pack, first, ref))
        while offset < end:
            number = offset // fmt.RUN_PIECE_BYTES
            piece = self._segment(pack, first + number, blocking=blocking).body
            if not isinstance(piece, RunPiece) or (piece.id, piece.number, piece.blob_length) != (
                ref.id,
                number,
                ref.length,
            ):
                raise MalformedError("a segment holds another blob than the index says", name=pack_name(pack.id))
            begin = number * fmt.RUN_PIECE_BYTES
            part = piece.data[offset - begin : end - begin]
            parts.append(part)
            offset += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _segment(self, pack: PackRecord, number: int, *, blocking: bool) -> _Opened:
        key = (pack.id, number)
        if key != self._touched:
            self._touched = key
            # Who says what comes next knows better than the order of the pack.
            if key not in self._expected:
                self._read_ahead(pack, number)
        segment = self._segments.get(key)
        if segment is not None:
            return segment
        if not blocking:
            raise NotInMemory
        segment = self._loaded(pack, number)
        if self._far is not None and pack.pack_class == fmt.PACK_CLASS_TREE:
            self._far.bring(pack)
        return segment

    def _loaded(self, pack: PackRecord, number: int) -> _Opened:
        key = (pack.id, number)
        with self._locks[hash(key) % _LOCKS]:
            segment = self._segments.get(key)
            if segment is None:
                segment = _Opened(self._load(pack, number), {})
                self._segments[key] = segment
            return segment

    def _read_ahead(self, pack: PackRecord, number: int) -> None:
        """Where a reader goes through a pack in order, open the next segments in the background.

        Who comes from nowhere reads what is asked for alone: the segment before is then not in memory.
        """
        is_in_order = (pack.id, number - 1) in self._segments
        if self._far is not None:
            self._far.go_on(pack, number, is_in_order=is_in_order)
        if not is_in_order:
            return
        stop = pack.offsets[number] + _AHEAD_BYTES
        for ahead in range(number + 1, len(pack.counts)):
            if pack.offsets[ahead] > stop:
                break
            is_near = self._far is None or self._far.is_near(pack, range(ahead, ahead + 1))
            if is_near and (pack.id, ahead) not in self._segments:
                self._ahead.offer((pack.id, ahead), partial(self._open_ahead, pack, ahead))

    def _open_ahead(self, pack: PackRecord, number: int) -> None:
        with suppress(*_UNREADABLE, StorageError):  # whoever asks for it meets the same, and says so
            opened = self._loaded(pack, number)
            if isinstance(opened.body, SolidBody) and pack.pack_class == fmt.PACK_CLASS_DATA:
                for ordinal in range(len(opened.body.ends)):
                    opened.verified[ordinal] = self._keys.blob_id(BlobKind.CHUNK, opened.body.blob(ordinal))

    def _load(self, pack: PackRecord, number: int) -> SolidBody | RunPiece:
        name = pack_name(pack.id)
        form = FORM_RUN if pack.is_run(number) else FORM_SOLID
        if number + 1 >= len(pack.offsets):
            raise MalformedError("it has fewer segments than the index says", name=name)
        begin, end = pack.offsets[number], pack.offsets[number + 1]
        try:
            return self._open(pack.id, number, begin, end, form)
        except TamperedError as error:
            raise TamperedError(f"segment {number} at byte {begin}: {error}", name=name) from error
        except MalformedError as error:
            raise MalformedError(f"segment {number} at byte {begin}: {error}", name=name) from error
        except NewerFormatError as error:
            raise NewerFormatError(f"{name}: {error}", hint=error.hint) from error

    def _open(self, pack_id: PackId, number: int, begin: int, end: int, form: int) -> SolidBody | RunPiece:
        """Fetch and open a segment; once more from the storage itself, where what was kept of it may be to blame."""
        name = pack_name(pack_id)
        sealed = self._storage.get(name, begin, end - begin)  # first: from afar the header comes with it
        try:
            return open_segment(self._cipher(pack_id), number, sealed, form)
        except (TamperedError, MalformedError, NewerFormatError):
            if self._cached is None:
                raise
            self._cached.forget(name)
            self._ciphers.clear()
            sealed = self._storage.get(name, begin, end - begin)
            return open_segment(self._cipher(pack_id), number, sealed, form)

    def _cipher(self, pack_id: PackId) -> PackCipher:
        cipher = self._ciphers.get(pack_id)
        if cipher is None:
            cipher = open_pack_cipher(self._keys, self._storage.get(pack_name(pack_id), 0, fmt.PACK_HEADER_BYTES))
            self._ciphers[pack_id] = cipher
        return cipher


class _Source:
    """One of the two ways into a `BlobReader`; see `BlobSource`."""

    __slots__ = ("_blocking", "_reader")

    def __init__(self, reader: BlobReader, *, blocking: bool) -> None:
        self._reader = reader
        self._blocking = blocking

    def page(self, ref: BlobRef, decode: Callable[[bytes], Page]) -> Page:
        return self._reader.page(ref, decode, blocking=self._blocking)

    def read(self, ref: BlobRef, offset: int = 0, length: int | None = None) -> bytes | memoryview:
        return self._reader.read(ref, offset, length, blocking=self._blocking)

    def segment_of(self, ref: BlobRef) -> Hashable:
        return self._reader.segment_of(ref)

    def read_together(self, refs: Sequence[BlobRef]) -> list[bytes | memoryview]:
        return self._reader.read_together(refs, blocking=self._blocking)

    @property
    def eagerness(self) -> int:
        return self._reader.eagerness

    def expect(self, ref: BlobRef) -> bool:
        return self._reader.expect(ref)


class _Opened(NamedTuple):
    """An opened segment, and by ordinal the ids of those of its blobs that were found to be what they are called."""

    body: SolidBody | RunPiece
    verified: dict[int, BlobId]


def _segment_cost(segment: _Opened) -> int:
    body = segment.body
    return body.data.nbytes + (len(body.ends) * _BLOB_BYTES if isinstance(body, SolidBody) else 0)
