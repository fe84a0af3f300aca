"""The view itself: what each request on the history means.

Invariants: nothing is kept for what was merely seen, so memory does not grow with a walk; a snapshot's numbers, names
and contents are the same at every mount. Every method takes the source to read from. With the near one it never waits
for anything, and raises `NotInMemory` where it would have to; the request is then made again with the other
one, in a thread that may wait.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import tzinfo
from functools import wraps
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

from backthen.fsmount.view.activity import Activity
from backthen.fsmount.view.at import At, Times, group_by_host
from backthen.fsmount.view.attributes import (
    ACL_NAMES,
    Attributes,
    Describe,
    Listed,
    Owner,
    as_listed,
    entry_attributes,
    owned_by,
    status_attributes,
)
from backthen.fsmount.view.capacity import StoredBytes
from backthen.fsmount.view.errors import (
    DamagedContent,
    Gone,
    NoSuchAttribute,
    NotADirectory,
    NotAFile,
    NotASymlink,
    NotFound,
    StorageUnavailable,
    UnreadAtBackup,
)
from backthen.fsmount.view.history import History
from backthen.fsmount.view.layout import (
    InLeaf,
    Located,
    Maker,
    Place,
    ShownSnapshot,
    VirtualFile,
    VirtualSymlink,
    is_lasting,
    tree_layout,
)
from backthen.fsmount.view.listing import FixedLayout, FollowingLayout, Layouts
from backthen.fsmount.view.numbers import ROOT_NUMBER, STATUS_NUMBER, VIRTUAL_START
from backthen.fsmount.view.opened import Capacity, OpenDirectory, OpenFile
from backthen.fsmount.view.recent import Recent
from backthen.fsmount.view.status import NOBODY, STATUS_NAME, Figures, Serving, status_text
from backthen.fsmount.view.story import STORY_PREFIX, tell_story
from backthen.fsmount.view.versions import Versions
from backthen.repository import (
    BlobSource,
    DamageError,
    EntryType,
    Leaf,
    NotInMemory,
    PathNotFound,
    RepositoryError,
    SnapshotInfo,
    next_data,
    next_hole,
    now_ns,
    read_parts,
    read_xattrs,
)

RECENT_NODES = 4096
RECENT_LISTED = 4096
"""Directories that were listed, remembered beside the other nodes: whoever walks the same tree once more asks for these
alone, as the kernel has kept the rest."""
LISTED_MIN = 165
"""Entries that one call lists, unless there are no more, and as many again as a page may hold: what fits into what the
kernel asks for when a program lists a folder."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Showing(NamedTuple):
    """How a view is shown.

    Attributes:
        owner: to whom everything in the snapshots seems to belong; None for its own owners.
        serving: who serves the view.
    """

    owner: Owner | None = None
    serving: Serving = NOBODY

    @property
    def describe(self) -> Describe:
        """What gives the attributes of the snapshots' entries."""
        return entry_attributes if self.owner is None else owned_by(self.owner)


AS_SAVED = Showing()


def _with_meaning(
    method: Callable[Concatenate[View, BlobSource, _P], _R],
) -> Callable[Concatenate[View, BlobSource, _P], _R]:
    """Count what a method is asked, and let repository errors leave it as what they mean to a reader."""
    request = method.__name__.replace("_", " ")

    @wraps(method)
    def call(self: View, source: BlobSource, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            if source is self.near:
                answer = method(self, source, *args, **kwargs)
                self.activity.from_memory += 1
                return answer
            with self.activity.waiting(request):
                return method(self, source, *args, **kwargs)
        except PathNotFound as error:
            raise Gone(str(error)) from error
        except RepositoryError as error:
            self.activity.failed += 1
            meaning = DamagedContent if isinstance(error, DamageError) else StorageUnavailable
            raise meaning(str(error)) from error

    return call


class View:
    """A read-only file system. Safe to use from several threads.

    All methods that take a source raise:
        NotInMemory: the near source was given, and something that is not in memory is needed.
        Gone: the snapshot that the number belonged to is not shown any more.
        DamagedContent, StorageUnavailable: what is needed cannot be had.

    Attributes:
        activity: what it is asked, and how that goes.
    """

    def __init__(
        self,
        history: History,
        layouts: Layouts,
        monotonic_ns: Callable[[], int],
        owner: Owner,
        showing: Showing,
        now_ns: Callable[[], int],
    ) -> None:
        self._history = history
        self._layouts = layouts
        self._monotonic_ns = monotonic_ns
        self._now_ns = now_ns
        self._owner = owner
        self._showing = showing
        self._recent: Recent[Located | InLeaf] = Recent(RECENT_NODES)
        self._recent_listed: Recent[Located] = Recent(RECENT_LISTED)
        self._stored_bytes = StoredBytes(history.stored_bytes, monotonic_ns)
        self.activity = Activity(lambda: history.storage_state, monotonic_ns)
        self.near = history.blobs.near
        self.source = history.blobs.source

    def is_lasting(self, number: int) -> bool:
        """Whether a node's attributes, and a directory's list of children, never change."""
        return is_lasting(number, self._layouts.known)

    def is_shown(self, number: int) -> bool:
        """Whether a number belongs to a snapshot that is shown."""
        with suppress(Gone):
            return bool(self._layouts.known.snapshot(number))
        return False

    @_with_meaning
    def attributes(self, source: BlobSource, number: int) -> Attributes:
        """The attributes of a node."""
        place = self._locate(source, number)
        if isinstance(place, Located):
            return place.snapshot.attributes(place.node)
        return place.attributes

    @_with_meaning
    def lookup(self, source: BlobSource, directory: int, name: bytes) -> Attributes:
        """The attributes of a directory's child.

        Raises:
            NotFound: it has no child of that name.
            NotADirectory: it is none.
        """
        if directory == ROOT_NUMBER and name == STATUS_NAME:
            return self._lookup_status(source)
        if self._layouts.known.never_has(directory, name):
            raise NotFound(f"no {name!r}")
        place = self._locate(source, directory)
        if isinstance(place, Located):
            return self._lookup_entry(source, place, name)
        if isinstance(place, VirtualFile | VirtualSymlink):
            raise NotADirectory(f"{directory} is not a directory")
        found = place.lookup(name)
        if found is None:
            raise NotFound(f"no {name!r}")
        return found

    @_with_meaning
    def open_directory(self, source: BlobSource, number: int) -> OpenDirectory:
        """Begin to list a directory. A virtual one is listed as it is at this moment.

        Raises:
            NotADirectory: it is none.
            UnreadAtBackup: what it held is not known.
        """
        place = self._locate(source, number)
        if isinstance(place, Located):
            opened = self._open_entry(place)
            self._recent_listed.put(number, place)
            return opened
        if isinstance(place, VirtualFile | VirtualSymlink):
            raise NotADirectory(f"{number} is not a directory")
        listing = place.listing()
        if number == ROOT_NUMBER:
            listing = [*listing, Listed(STATUS_NAME, self._status().attributes, len(listing) + 1)]
        return OpenDirectory(None, listing)

    @_with_meaning
    def read_directory(self, source: BlobSource, directory: OpenDirectory, after: int) -> list[Listed]:
        """The entries after the one with the cookie `after` (0: from the start), some of them; none at the end.

        What is at hand before something that is not in memory, or damaged, is given first.
        """
        if directory.located is None:
            return list(directory.frozen[after : after + LISTED_MIN])
        if after == directory.last:
            return []
        snapshot, node = directory.located
        listed: list[Listed] = []
        try:
            for leaf in snapshot.tree.leaves(source, node, after=after):
                self._list_leaf(source, directory.located, leaf, listed)
                if listed and leaf.end == node.position + 1 + node.entry.below:
                    directory.last = listed[-1].cookie
                if len(listed) >= LISTED_MIN:
                    break
        except (NotInMemory, RepositoryError):
            if not listed:
                raise
        return listed

    def _list_leaf(self, source: BlobSource, directory: Located, leaf: Leaf, listed: list[Listed]) -> None:
        """List what is in a leaf, and remember it."""
        snapshot, (_, start, _, _) = directory
        if leaf.has_link_names:
            for child in snapshot.tree.nodes(source, leaf):
                found = snapshot.attributes(child)
                self._recent.put(found.number, Located(snapshot, child))
                listed.append(Listed(child.name, found, child.place - start))
        else:
            places, base = leaf.places, snapshot.base
            numbers = [base + place for place in places]
            self._recent.put_all(dict.fromkeys(numbers, InLeaf(snapshot, leaf)))
            attributes = map(snapshot.describe, leaf.entries, numbers)
            listed += as_listed(leaf.names, attributes, [place - start for place in places])

    @_with_meaning
    def open_file(self, source: BlobSource, number: int) -> OpenFile:
        """Begin to read a regular file.

        Raises:
            NotAFile: it is none.
            UnreadAtBackup: its content was not saved.
        """
        place = self._locate(source, number)
        if isinstance(place, VirtualFile):
            return OpenFile(None, place.text())
        if not isinstance(place, Located):
            raise NotAFile(f"{number} is not a file")
        entry = place.node.entry
        if entry.is_content_lost or entry.type == EntryType.UNKNOWN:
            raise UnreadAtBackup(f"file with inode number {number} was not saved: {entry.error}")
        if entry.type != EntryType.FILE:
            raise NotAFile(f"{place.node.name!r} is not a file")
        return OpenFile(place.node)

    @_with_meaning
    def read(self, source: BlobSource, file: OpenFile, offset: int, length: int) -> bytes | memoryview:
        """Bytes of a file; fewer than `length` at its end."""
        parts = self._parts(source, file, offset, length)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @_with_meaning
    def read_parts(self, source: BlobSource, file: OpenFile, offset: int, length: int) -> list[bytes | memoryview]:
        """The same as they are in memory, one after the other."""
        return self._parts(source, file, offset, length)

    @_with_meaning
    def next_data(self, source: BlobSource, file: OpenFile, offset: int) -> int | None:
        """Where the first data at or after an offset is; None where there is none."""
        if file.node is None:
            return offset if offset < len(file.text) else None
        return next_data(source, file.node.entry, offset)

    @_with_meaning
    def next_hole(self, source: BlobSource, file: OpenFile, offset: int) -> int | None:
        """Where the first hole at or after an offset is, the end of the file being one; None from there on."""
        if file.node is None:
            return len(file.text) if offset < len(file.text) else None
        return next_hole(source, file.node.entry, offset)

    @_with_meaning
    def target(self, source: BlobSource, number: int) -> bytes:
        """Where a symlink points.

        Raises:
            NotASymlink: it is none.
        """
        place = self._locate(source, number)
        if isinstance(place, VirtualSymlink):
            return place.target
        if isinstance(place, Located) and place.node.entry.type == EntryType.SYMLINK:
            return place.node.entry.target
        raise NotASymlink(f"{number} is not a symlink")

    @_with_meaning
    def xattr(self, source: BlobSource, number: int, name: bytes) -> bytes:
        """The value of an extended attribute. Those that tell a file's story are given though they are not listed.

        Raises:
            NoSuchAttribute: it has none of that name.
        """
        for found, value in self._xattrs(source, number):
            if found == name:
                return value
        story = self._story(source, number, name) if name.startswith(STORY_PREFIX) else None
        if story is not None:
            return story
        raise NoSuchAttribute(f"no attribute {name!r}")

    @_with_meaning
    def xattr_names(self, source: BlobSource, number: int) -> list[bytes]:
        """The names of all extended attributes."""
        return [name for name, _ in self._xattrs(source, number)]

    @_with_meaning
    def capacity(self, source: BlobSource) -> Capacity:
        """How large the file system is; what the storage holds is what was last heard of it."""
        return Capacity(self._stored_bytes.get(wait=source is not self.near), self._layouts.known.entry_count)

    def patience_s(self, deadline_s: float) -> float:
        """How many seconds the next request should wait, if each may wait for `deadline_s`.

        They are few while the storage does not answer at all, so that a program that goes from file to file gets on.
        """
        return self.activity.patience_s(deadline_s)

    def give_up(self) -> StorageUnavailable:
        """What to answer to a request that is not waited for any longer."""
        self.activity.give_up()
        return StorageUnavailable("a request was not answered by the storage in time")

    def _status(self) -> VirtualFile:
        text = self._status_text()
        # As old as its text, so that whoever keeps what it held before notices.
        found = status_attributes(STATUS_NUMBER, self._owner, self._now_ns(), len(text))
        return VirtualFile(found, self._status_text)

    def _status_text(self) -> bytes:
        history = self._history
        return status_text(
            Figures(
                self._showing.serving,
                history.location,
                len(self._layouts.known.snapshots),
                history.storage_state,
                history.cache_uses,
                self.activity,
                self._monotonic_ns(),
            )
        )

    def _lookup_status(self, source: BlobSource) -> Attributes:
        """The attributes of the file that says how the mount fares, unless a folder shown alone has such a name."""
        top = self._layouts.known.special(ROOT_NUMBER)
        if isinstance(top, Located):
            with suppress(NotFound):
                return self._lookup_entry(source, top, STATUS_NAME)
        return self._status().attributes

    def _open_entry(self, place: Located) -> OpenDirectory:
        entry = place.node.entry
        if not entry.is_directory:
            raise NotADirectory(f"{place.node.name!r} is not a directory")
        if entry.error and not entry.below:
            number = place.snapshot.number(place.node.position)
            raise UnreadAtBackup(f"folder with inode number {number} was not saved: {entry.error}")
        return OpenDirectory(place)

    def _parts(self, source: BlobSource, file: OpenFile, offset: int, length: int) -> list[bytes | memoryview]:
        if file.node is None:
            return [file.text[offset : offset + length]]
        file.ahead.follow(self.near, file.node.entry, offset, length)
        return read_parts(source, file.node.entry, offset, length)

    def _xattrs(self, source: BlobSource, number: int) -> tuple[tuple[bytes, bytes], ...]:
        if number >= VIRTUAL_START:
            return ()  # what is in no snapshot has none, and finding it might take long
        place = self._locate(source, number)
        if not isinstance(place, Located):
            return ()
        xattrs = read_xattrs(source, place.node.entry)
        if self._showing.owner is None:
            return xattrs
        return tuple((name, value) for name, value in xattrs if name not in ACL_NAMES)

    def _story(self, source: BlobSource, number: int, name: bytes) -> bytes | None:
        if number >= VIRTUAL_START:
            return None
        place = self._locate(source, number)
        if not isinstance(place, Located):
            return None
        wait = source is not self.near
        versions = next((maker for maker in self._layouts.known.makers if isinstance(maker, Versions)), None)
        return tell_story(source, versions, place, name, wait=wait)

    def _lookup_entry(self, source: BlobSource, directory: Located, name: bytes) -> Attributes:
        snapshot, node = directory
        if not node.entry.is_directory:
            raise NotADirectory(f"{node.name!r} is not a directory")
        child = snapshot.tree.lookup(source, node, name)
        if child is None:
            raise NotFound(f"no {name!r}")
        found = snapshot.attributes(child)
        self._recent.put(found.number, Located(snapshot, child))
        return found

    def _locate(self, source: BlobSource, number: int) -> Place:
        if number == STATUS_NUMBER:
            return self._status()
        if number == ROOT_NUMBER or number >= VIRTUAL_START:
            wait = source is not self.near
            layout = self._layouts.current(wait=wait)
            made = (maker.place(source, number, wait=wait) for maker in layout.makers)
            place = next((place for place in made if place is not None), None) or layout.special(number)
            if place is None:
                raise Gone(f"nothing that is shown now has the number {number}")
            return place
        snapshot = self._layouts.known.snapshot(number)
        found = self._recent.get(number) or self._recent_listed.get(number)
        if found is None:
            found = Located(snapshot, snapshot.tree.at(source, number - snapshot.base))
            self._recent.put(number, found)
        elif isinstance(found, InLeaf):
            found = found.located(number)
            self._recent.put(number, found)
        return found


def history_view(
    history: History,
    owner: Owner,
    monotonic_ns: Callable[[], int],
    *,
    showing: Showing = AS_SAVED,
    now_ns: Callable[[], int] = now_ns,
    zone: tzinfo | None = None,
) -> View:
    """The view of all snapshots.

    Args:
        history: what is shown.
        owner: to whom all that is in no snapshot belongs.
        monotonic_ns: a clock that never goes back.
        showing: how it is shown.
        now_ns: the wall clock, for times such as `yesterday`.
        zone: what local times are local in; None for the machine's zone.

    Raises:
        RepositoryError: the list of snapshots cannot be read.
    """
    times = Times(history.inode_prf, now_ns, zone)

    def make(shown: Sequence[ShownSnapshot], numbers: Mapping[str, int]) -> Sequence[Maker]:
        at = At(group_by_host(shown), times, owner, numbers["at"])
        return at, Versions(shown, owner, zone, numbers["versions"])

    layouts = FollowingLayout(history, owner, monotonic_ns, make, showing.describe)
    return View(history, layouts, monotonic_ns, owner, showing, now_ns)


def tree_view(
    history: History,
    info: SnapshotInfo,
    path: bytes,
    owner: Owner,
    monotonic_ns: Callable[[], int],
    *,
    showing: Showing = AS_SAVED,
    now_ns: Callable[[], int] = now_ns,
) -> View:
    """The view of one directory of one snapshot alone; the other arguments are those of `history_view`.

    Raises:
        PathNotFound: the snapshot has no such path.
        NotADirectory: there is something else at the path.
        RepositoryError: it cannot be read.
    """
    tree = history.tree(info)
    node = tree.resolve(history.blobs.source, path)
    layout = tree_layout(info, tree, node, history.inode_prf, showing.describe)
    return View(history, FixedLayout(layout), monotonic_ns, owner, showing, now_ns)
