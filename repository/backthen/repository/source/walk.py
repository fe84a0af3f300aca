"""Walking the live file system depth first, names in raw byte order, without recursion.

Invariants: every name is reached through an open descriptor of its directory and no link is followed, so a directory
that is swapped for a link while it is walked cannot lead elsewhere. The number of descriptors is bounded at any depth.
Nothing is held for a name that was passed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Generator, Iterator

from backthen.repository.source.attributes import XattrRead, path_in, read_xattrs
from backthen.repository.source.events import EnterDirectory, Event, Items, LeaveDirectory, Problem
from backthen.repository.source.exclusion import Exclusion, ExclusionRules
from backthen.repository.source.files import Status, open_quietly, open_same, reason_of
from backthen.repository.source.names import Spill, sorted_names
from backthen.repository.source.own import OwnPlaces
from backthen.repository.source.roots import Branch, SavedPaths

DESCRIPTORS_MAX = 64
_PATH_KEPT_BYTES_MAX = 4096
_CLOSED = -1
_ITEMS_MAX = 128
_ITEMS_BYTES_MAX = 1 << 20
"""What is looked at together is not more than is read within milliseconds, so that it is not out of date by then."""
_TYPE_BITS = 0o170000
_DIRECTORY_BITS = 0o040000
_ENTER_FLAGS = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
LOOK_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | _ENTER_FLAGS
_LIST_FLAGS = os.O_RDONLY | os.O_NONBLOCK | _ENTER_FLAGS
_REPLACED = "it was replaced while the folder was read"
_NOTHING_OWN = OwnPlaces()
MOVED = "it was moved while it was read; the rest of it is missing"


class Directory:
    """A directory of the walk. While an event names it, it is open (unless it was moved away).

    Attributes:
        name: its raw name; empty for `/`.
        parent: the directory it is in; None for `/`.
        descriptor: it, open.
        is_listed: all its names are walked, not only those that lead to saved paths.
    """

    __slots__ = ("_anchor", "_branch", "_names", "_path", "descriptor", "identity", "is_listed", "name", "parent")

    def __init__(
        self,
        name: bytes,
        parent: Directory | None,
        descriptor: int,
        status: os.stat_result,
        branch: Branch | None,
        *,
        is_listed: bool,
    ) -> None:
        self.name = name
        self.parent = parent
        self.descriptor = descriptor
        self.is_listed = is_listed
        self.identity = (status.st_dev, status.st_ino)
        self._branch = branch
        self._names: Iterator[bytes] = iter(())
        self._path: bytes | None = b"" if parent is None else None
        # Patterns are anchored at the saved path that the walk came through first; `_anchor` is where it lies.
        self._anchor: Directory | None = parent._anchor if parent is not None else None
        if is_listed and self._anchor is None:
            self._anchor = self

    @property
    def path(self) -> bytes:
        """The absolute path, without a slash at its end (so empty for `/`)."""
        if self._path is not None:
            return self._path
        names = []
        above: Directory | None = self
        while above is not None and above._path is None:
            names.append(above.name)
            above = above.parent
        start = above._path if above is not None and above._path is not None else b""
        path = b"/".join((start, *reversed(names)))
        if len(path) <= _PATH_KEPT_BYTES_MAX:
            self._path = path
        return path

    @property
    def relative(self) -> bytes:
        """The path below the saved path, with a slash at its end; empty for the saved path itself."""
        if self._anchor is self or self._anchor is None:
            return b""
        return self.path[len(self._anchor.path) + 1 :] + b"/"

    @property
    def device(self) -> int:
        """`st_dev`."""
        return self.identity[0]

    def read_xattrs(self) -> XattrRead:
        """Its extended attributes; one that is only passed through is not open for reading."""
        return read_xattrs(self.descriptor if self.is_listed else path_in(self.descriptor, b"."))


def walk(
    paths: SavedPaths,
    spill: Spill,
    *,
    rules: ExclusionRules | None = None,
    one_file_system: bool = False,
    own: OwnPlaces = _NOTHING_OWN,
    descriptors_max: int = DESCRIPTORS_MAX,
) -> Generator[Event]:
    """Everything that a snapshot of `paths` holds, from `/` down.

    Args:
        paths: what is saved; the directories above are entered too, for the names that lead there alone.
        spill: where names go that memory must not hold.
        rules: what is left out.
        one_file_system: do not enter other file systems than those of `paths`.
        own: directories that are not entered either, unless they are on the way to one of `paths`.
        descriptors_max: how many directories are open at once, besides `/`.

    Raises:
        InvalidRequest: the patterns cannot be compiled.
        CacheError: the folder to spill to cannot be used.
        OSError: `/` cannot be opened.
    """
    exclusion = rules.compile() if rules is not None else None
    return _Walk(spill, exclusion, own, descriptors_max, one_file_system=one_file_system).events(paths.tree())


class _Walk:
    """The directories from `/` to the current one, and the rules."""

    def __init__(
        self, spill: Spill, exclusion: Exclusion | None, own: OwnPlaces, descriptors_max: int, *, one_file_system: bool
    ) -> None:
        self._spill = spill
        self._exclusion = exclusion
        self._own = own
        self._one_file_system = one_file_system
        self._descriptors_max = descriptors_max
        self._stack: list[Directory] = []
        self._first_open = 1

    def events(self, branch: Branch) -> Generator[Event]:
        try:
            yield self._enter_top(branch)
            inside = [self._events_in(self._stack[-1])]
            while inside:
                directory = self._stack[-1]
                if directory.descriptor == _CLOSED:
                    yield LeaveDirectory(directory, MOVED)
                    self._leave()
                    inside.pop()
                    continue
                for event in inside[-1]:
                    yield event
                    if type(event) is EnterDirectory:
                        inside.append(self._events_in(self._stack[-1]))
                        break
                else:
                    yield LeaveDirectory(directory, "")
                    self._leave()
                    inside.pop()
        finally:
            for directory in self._stack:
                _close(directory)

    def _events_in(self, directory: Directory) -> Iterator[Event]:
        """Events of a directory; after each directory that is entered it goes on when that has been left."""
        descriptor = directory.descriptor
        branch = directory._branch
        exclusion = self._exclusion
        patterns = exclusion.patterns if exclusion is not None and directory.is_listed else None
        relative = directory.relative if patterns is not None and patterns.needs_paths else b""
        found: list[tuple[bytes, Status]] = []
        weight = 0
        for name in directory._names:
            wanted = branch.children.get(name) if branch is not None else None
            try:
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except OSError as error:
                if error.errno != errno.ENOENT or wanted is not None:
                    if found:
                        yield Items(directory, found)
                        found, weight = [], 0
                    yield Problem(name, None, directory, reason_of(error))
                continue
            is_directory = status.st_mode & _TYPE_BITS == _DIRECTORY_BITS
            is_excluded = patterns is not None and patterns.decide(relative, name, is_directory=is_directory) is True
            if is_excluded and wanted is None:
                continue
            if is_directory and self._is_entered(directory, status, wanted):
                if found:
                    yield Items(directory, found)
                    found, weight = [], 0
                event = self._enter(directory, name, status, wanted, is_excluded=is_excluded)
                if event is not None:
                    yield event
                    descriptor = directory.descriptor  # another one, where it was closed and opened again meanwhile
                continue
            found.append((name, status))
            weight += status.st_size
            if len(found) == _ITEMS_MAX or weight > _ITEMS_BYTES_MAX:
                yield Items(directory, found)
                found, weight = [], 0
        if found:
            yield Items(directory, found)

    def _is_entered(self, parent: Directory, status: os.stat_result, branch: Branch | None) -> bool:
        """Whether a directory is not one that is saved as an empty one: a mount point, or one's own."""
        if branch is not None or not parent.is_listed:
            return True
        return not self._crosses(parent, status) and not self._own.hold(status, parent.device)

    def _crosses(self, parent: Directory, status: os.stat_result) -> bool:
        return self._one_file_system and status.st_dev != parent.device

    def _enter_top(self, branch: Branch) -> EnterDirectory:
        flags = _LIST_FLAGS if branch.is_saved else LOOK_FLAGS
        descriptor = os.open(b"/", flags)
        status = os.fstat(descriptor)
        top = Directory(b"", None, descriptor, status, branch, is_listed=branch.is_saved)
        self._stack.append(top)
        self._read_names(top)
        return EnterDirectory(top, status)

    def _enter(
        self, parent: Directory, name: bytes, status: os.stat_result, branch: Branch | None, *, is_excluded: bool
    ) -> Event | None:
        """Open a directory, or say why not; None when it is gone."""
        is_listed = branch is not None and branch.is_saved
        if not is_listed and parent.is_listed:
            is_listed = not self._crosses(parent, status) and not is_excluded
        try:
            flags = _LIST_FLAGS if is_listed else LOOK_FLAGS
            descriptor = open_quietly(name, parent.descriptor, flags, status.st_uid)
        except OSError as error:
            if error.errno == errno.ENOENT and branch is None:
                return None
            replaced = error.errno in (errno.ELOOP, errno.ENOTDIR)
            return Problem(name, status, parent, _REPLACED if replaced else reason_of(error))
        return self._push(parent, name, status, descriptor, branch, is_listed=is_listed)

    def _push(
        self,
        parent: Directory,
        name: bytes,
        looked_at: os.stat_result,
        descriptor: int,
        branch: Branch | None,
        *,
        is_listed: bool,
    ) -> Event:
        """Make an open directory the current one."""
        try:
            status = os.fstat(descriptor)
            directory = Directory(name, parent, descriptor, status, branch, is_listed=is_listed)
            if self._one_file_system and status.st_dev != looked_at.st_dev:
                raise OSError(errno.ESTALE, _REPLACED)
            self._read_names(directory)
        except OSError as error:
            os.close(descriptor)
            return Problem(name, looked_at, parent, reason_of(error))
        except BaseException:
            os.close(descriptor)
            raise
        self._stack.append(directory)
        if len(self._stack) - self._first_open > self._descriptors_max:
            _close(self._stack[self._first_open])
            self._first_open += 1
        return EnterDirectory(directory, status)

    def _read_names(self, directory: Directory) -> None:
        branch = directory._branch
        if not directory.is_listed:
            assert branch is not None
            directory._names = iter(sorted(branch.children))
            return
        tag = self._exclusion.find_tag(directory.descriptor) if self._exclusion is not None else None
        if tag is None:
            directory._names = sorted_names(directory.descriptor, self._spill)
        else:
            directory._names = iter(sorted({tag, *(branch.children if branch is not None else ())}))

    def _leave(self) -> None:
        """Close the current directory; the one above becomes current and is opened again where it was closed."""
        done = self._stack.pop()
        if self._stack and self._stack[-1].descriptor == _CLOSED:
            above = self._stack[-1]
            above.descriptor = self._reopen(above, done)
            self._first_open = len(self._stack) - 1
        _close(done)

    def _reopen(self, directory: Directory, child: Directory) -> int:
        """A closed directory again: through its child, or where that was moved by its path from `/`."""
        flags = _LIST_FLAGS if directory.is_listed else LOOK_FLAGS
        if child.descriptor != _CLOSED:
            descriptor = open_same(b"..", child.descriptor, flags, directory.identity)
            if descriptor is not None:
                return descriptor
        current = os.dup(self._stack[0].descriptor)
        for step in self._stack[1:]:
            found = open_same(step.name, current, flags if step is directory else LOOK_FLAGS, step.identity)
            os.close(current)
            if found is None:
                return _CLOSED
            current = found
        return current


def _close(directory: Directory) -> None:
    if directory.descriptor != _CLOSED:
        os.close(directory.descriptor)
        directory.descriptor = _CLOSED
