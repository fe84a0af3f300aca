"""The directories that the kernel lists, and those that it will list next: made ready while it asks for nothing.

Invariant: what is made ready is the beginning of a listing that never changes, as it would be answered to the request.
"""

from __future__ import annotations

import stat
import threading
from contextlib import suppress
from itertools import repeat
from typing import NamedTuple

from backthen.fsmount.adapters import fuse_protocol as protocol
from backthen.fsmount.adapters.fuse_protocol import LASTING, Lifetime
from backthen.fsmount.adapters.libfuse import CHANGING_S, Handles
from backthen.fsmount.adapters.upcoming import Siblings, Upcoming
from backthen.fsmount.view import ROOT_NUMBER, Listed, OpenDirectory, View, ViewError
from backthen.repository import BlobSource, NotInMemory

READY_MAX = 16
"""Listings that are ready at one time: of each what the kernel asks for at once, and the rest of the pages of that."""
CHANGING = protocol.lifetime(CHANGING_S)
_LISTED_BYTES = 32 << 10
"""What the kernel asks for when a program lists with the C library."""


class _Ahead(NamedTuple):
    """What was read of a directory and did not fit into the last answer; it goes on after the cookie `after`."""

    after: int
    listed: list[Listed]


class _Beginning(NamedTuple):
    """The answer to the first request on a listing, for so many bytes; and the folders in it."""

    size: int
    payload: bytes
    folders: list[int]


class _Listing:
    """A directory being listed."""

    __slots__ = ("ahead", "beginning", "directory", "is_lasting", "siblings")

    def __init__(self, directory: OpenDirectory, *, is_lasting: bool) -> None:
        self.directory = directory
        self.is_lasting = is_lasting
        self.ahead = _Ahead(0, [])
        self.beginning: _Beginning | None = None
        self.siblings: Siblings | None = None


class Listings:
    """Lists directories of a view. Safe to use from several threads, of which one reads requests."""

    def __init__(self, view: View) -> None:
        """Nothing is listed yet."""
        self._view = view
        self._open: Handles[_Listing] = Handles()
        self._upcoming = Upcoming()
        self._upcoming_lock = threading.Lock()
        # Of the thread that reads requests alone.
        self._ready: dict[int, _Listing | None] = {}
        self._size = _LISTED_BYTES
        self._is_settled = True

    def open(self, source: BlobSource, number: int) -> bytes:
        """Begin to list a directory. The kernel asks even where it has kept the listing."""
        listing = None
        if source is self._view.near:
            with self._upcoming_lock:
                self._upcoming.opened(number)
            # The first request on the listing comes at once; where the kernel has kept it, nothing comes.
            self._is_settled = True
            listing = self._ready.pop(number, None)
        if listing is None or not self._view.is_shown(number):
            listing = self._begin(source, number)
        kept = protocol.KEEP_CACHE | protocol.CACHE_LISTING if listing.is_lasting else 0
        return protocol.opened(self._open.add(listing), kept)

    def read(self, source: BlobSource, number: int, handle: int, cookie: int, size: int) -> bytes:
        """As many entries as fit. What is left over stays for the next request."""
        listing = self._open.get(handle)
        beginning, listing.beginning = listing.beginning, None
        if cookie or beginning is None or beginning.size != size:
            beginning = self._read(source, listing, number, cookie, size)
        if listing.is_lasting:
            self._follow(listing, cookie, beginning)
        return beginning.payload

    def release(self, handle: int) -> None:
        """A listing is over."""
        self._open.remove(handle)

    def prepare(self) -> bool:
        """Do a step of making the listing of a folder ready that is asked for next; whether there was one to be done.

        A step is short, since a request may come meanwhile: first a folder is read, then the answer made.
        """
        if self._is_settled:
            return False
        with self._upcoming_lock:
            likely = list(self._upcoming.next())
        for number in likely:
            # Tried once: whatever fails is left to whoever asks.
            if number not in self._ready:
                self._make_room()
                self._ready[number] = None
                self._ready[number] = self._read_ahead(number)
                return True
            listing = self._ready[number]
            if listing is not None and listing.beginning is None:
                self._ready[number] = None
                listing.beginning = self._read(self._view.near, listing, number, 0, self._size)
                self._ready[number] = listing
                return True
        self._is_settled = True
        return False

    def attributes_kept(self, number: int) -> Lifetime:
        """For how long the kernel may keep the attributes of a number."""
        # The top's attributes are asked for again and again, so that a mount whose server died is seen to be dead.
        return LASTING if number != ROOT_NUMBER and self._view.is_lasting(number) else CHANGING

    def _begin(self, source: BlobSource, number: int) -> _Listing:
        return _Listing(self._view.open_directory(source, number), is_lasting=self._view.is_lasting(number))

    def _make_room(self) -> None:
        if len(self._ready) == READY_MAX:
            del self._ready[next(iter(self._ready))]

    def _read_ahead(self, number: int) -> _Listing | None:
        with suppress(NotInMemory, ViewError):
            listing = self._begin(self._view.near, number)
            listing.ahead = _Ahead(0, self._view.read_directory(self._view.near, listing.directory, 0))
            return listing
        return None

    def _follow(self, listing: _Listing, cookie: int, given: _Beginning) -> None:
        with self._upcoming_lock:
            if cookie == 0:
                self._size = given.size
                listing.siblings = self._upcoming.begin()
            if listing.siblings is not None:
                listing.siblings.add(given.folders)
        self._is_settled = False

    def _read(self, source: BlobSource, listing: _Listing, number: int, cookie: int, size: int) -> _Beginning:
        dots = protocol.dots(number, cookie) if cookie < protocol.DOT_COUNT else b""
        after = max(cookie - protocol.DOT_COUNT, 0)
        listed = listing.ahead.listed
        if listing.ahead.after != after or not listed:
            listed = self._view.read_directory(source, listing.directory, after)
        if listing.is_lasting:
            given = protocol.listing(listed, size - len(dots), LASTING, repeat(LASTING))
        else:
            kept = (self.attributes_kept(found.number) for _, found, _ in listed)
            given = protocol.listing(listed, size - len(dots), CHANGING, kept)
        if given:
            listing.ahead = _Ahead(listed[len(given) - 1].cookie, listed[len(given) :])
        folders = [found.number for _, found, _ in listed[: len(given)] if stat.S_ISDIR(found.mode)]
        return _Beginning(size, b"".join((dots, *given)), folders)
