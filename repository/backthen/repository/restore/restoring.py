"""Restoring a snapshot, or a part of it, into a folder."""

from __future__ import annotations

import errno
import os
from functools import partial

from backthen.repository import format as fmt
from backthen.repository.content import Node, SnapshotTree
from backthen.repository.errors import DamageError, TargetError
from backthen.repository.model.entry import EntryType
from backthen.repository.objects.source import BlobSource
from backthen.repository.progress import Progress
from backthen.repository.restore.attributes import AttributeSetter
from backthen.repository.restore.content import safe_attributes
from backthen.repository.restore.folders import ABSENT, DESCRIPTORS_MAX, Folder, Folders, open_top
from backthen.repository.restore.items import ItemMaker, Unrestorable, is_unchanged
from backthen.repository.restore.names import FirstNames
from backthen.repository.restore.request import Overwrite, RestoreReport, RestoreRequest
from backthen.repository.restore.sharing import SHARED_BYTES_MAX, Forks, Made, Named, Sharing, start_processes
from backthen.repository.restore.tally import Tally
from backthen.repository.restore.traversal import Entering, Found, Leaving, Place, Selection, traverse
from backthen.repository.restore.verification import RestoredPlaces, verify
from backthen.repository.source import read_xattrs, reason_of

_SHARED_NAMES_MIN = 2_000
_FATAL_ERRORS = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS))


def restore_tree(
    source: BlobSource,
    tree: SnapshotTree,
    node_path: bytes,
    request: RestoreRequest,
    progress: Progress,
    *,
    forks: Forks | None = None,
) -> RestoreReport:
    """Bring back what is at a path of a snapshot: a directory's content into the target, else a name in it.

    All goes through open directories without following links, so nothing outside of the target is touched. A file
    whose content is damaged becomes a problem and does not appear; the rest is restored.

    Args:
        source: where pages and chunks are read from; it may block.
        tree: the snapshot.
        node_path: names joined by slashes; empty for the whole snapshot.
        request: where to and what.
        progress: told of each name and problem.
        forks: lets other processes read from the source, too; None where none is to do so.

    Raises:
        PathNotFound: the snapshot has no such path.
        InvalidRequest: a pattern cannot be compiled.
        TargetError: the target cannot be used, is full or read-only, or was moved away.
        StorageError: the storage failed.
        DamageError: the way to the path is damaged.
    """
    node = tree.resolve(source, node_path)
    selection = Selection(request.include, request.exclude)
    tally = Tally(progress)
    is_counted = selection.is_everything and not tree.root.link_count
    progress.start(
        "restore",
        files_total=max(node.entry.below, 1) if selection.is_everything else None,
        bytes_total=node.entry.size if is_counted else None,
    )
    places = RestoredPlaces(tree.position_count if request.verify and not request.dry_run else 0)
    is_shared = not request.dry_run and node.entry.below >= _SHARED_NAMES_MIN
    restoring = _Restoring(source, tree, node, request, tally, places, forks if is_shared else None)
    try:
        restoring.run(selection)
    finally:
        restoring.close()
    if request.verify and not request.dry_run:
        verify(source, tree, node, request, selection, tally, places)
    return tally.report()


class _Restoring:
    """One restore: the open folders, and what was done."""

    def __init__(
        self,
        source: BlobSource,
        tree: SnapshotTree,
        top: Node,
        request: RestoreRequest,
        tally: Tally,
        places: RestoredPlaces,
        forks: Forks | None,
    ) -> None:
        self._source = source
        self._tree = tree
        self._top = top
        self._request = request
        self._tally = tally
        self._places = places
        self._attributes = AttributeSetter(tally)
        self._items = ItemMaker(source, tally, self._attributes, uses_threads=True)
        target = open_top(os.fsencode(request.target), read_only=request.dry_run)
        self._folders = Folders(target, read_only=request.dry_run)
        self._first_names = FirstNames(source, tree, top, target)
        self._target = os.fsencode(request.target).rstrip(b"/") + b"/"
        # Directories that are gone through but not in the target yet: made when the first name in them is restored.
        self._waiting: list[Place] = []
        self._forks = forks
        self._sharing: Sharing | None = None

    def close(self) -> None:
        if self._sharing is not None:
            self._sharing.close()
        self._items.close()
        self._first_names.close()
        self._folders.close()

    def run(self, selection: Selection) -> None:
        processes = None if self._forks is None else start_processes(self._forks, self._checked_reason)
        if processes is not None:
            self._sharing = Sharing(processes, self._take_made, self._finish)
        if not self._top.entry.is_directory:
            if selection.chooses(None, self._top.name, is_directory=False):
                self._restore_item(None, self._top)
                self._await_shared()
            return
        for event in traverse(self._source, self._tree, self._top, selection, self._tell_damage):
            if isinstance(event, Found):
                self._restore_item(event.place, event.node)
            elif isinstance(event, Entering):
                self._enter(event.place)
            else:
                self._leave(event)

    def _await_shared(self) -> None:
        if self._sharing is not None:
            self._sharing.finish()

    def _take_made(self, named: list[Named], made: Made) -> None:
        """Note what became of names that other processes made."""
        tally = self._tally
        tally.bytes_written += made.bytes_written
        tally.damaged += made.damaged
        tally.notes.update(made.notes)
        for number, (place, node) in enumerate(named):
            problem = made.problems.get(number, "")
            if number not in made.missing:
                self._count(node)
                problem = problem or _incompleteness(node)
            self._tell_done(place, node, problem)

    def _tell_damage(self, relative: bytes, error: DamageError) -> None:
        message = self._tally.damage(f"an entry in it cannot be read: {error}")
        self._tally.problem(self._target + relative, message)

    def _path(self, place: Place | None, node: Node) -> bytes:
        return self._target + (place.relative if place is not None else b"") + node.name

    def _tell(self, place: Place | None, name: bytes, message: str) -> None:
        relative = place.relative if place is not None else b""
        self._tally.problem(self._target + relative + name, message)

    def _enter(self, place: Place) -> None:
        if place.parent is None:
            return
        self._waiting.append(place)
        if place.is_selected:
            self._catch_up()

    def _catch_up(self) -> bool:
        """Enter the directories that wait; False when one of them cannot be, and is left out with all below."""
        while self._waiting:
            place = self._waiting[0]
            if self._sharing is not None and len(self._folders) > DESCRIPTORS_MAX:
                self._sharing.flush()  # the topmost of the open folders is going to be closed
            try:
                self._folders.enter(place.node.name, partial(self._may_replace, place.node))
            except OSError as error:
                reason = self._checked_reason(error)
                self._tell(place.parent, place.node.name, f"it is left out with all below: {reason}")
                for skipped in self._waiting:
                    skipped.skip()
                return False
            del self._waiting[0]
        return True

    def _leave(self, event: Leaving) -> None:
        place = event.place
        if self._waiting:
            self._waiting.pop()
            return
        if place.parent is None:
            self._await_shared()
            if self._folders.top.is_made and not self._request.dry_run:
                self._set_directory(place, self._folders.top)
            return
        folder = self._folders.leave()
        if self._sharing is None:
            self._finish(place, folder)
        else:
            self._sharing.leave(place, folder)

    def _finish(self, place: Place, folder: Folder) -> None:
        """All in a folder was made."""
        try:
            self._tally.done(self._target + place.relative, 0)
            if not folder.is_made and not (place.is_selected and self._may_update(place.node, folder)):
                self._tally.kept += 1
                self._narrow(place, folder)
                return
            self._tally.directories += 1
            if not self._request.dry_run:
                self._set_directory(place, folder)
        finally:
            folder.close()

    def _narrow(self, place: Place, folder: Folder) -> None:
        try:
            folder.narrow()
        except OSError as error:
            self._tell(place, b"", self._checked_reason(error))

    def _set_directory(self, place: Place, folder: Folder) -> None:
        entry = place.node.entry
        try:
            attributes, xattrs, lost = safe_attributes(self._source, entry)
            if folder.is_made:
                problem = self._attributes.set_all(folder.descriptor, attributes, xattrs, clear_acl=folder.inherits_acl)
            elif lost:
                problem = ""
            else:
                status = os.fstat(folder.descriptor)
                found = read_xattrs(folder.descriptor).xattrs
                problem = self._attributes.update(folder.descriptor, entry, xattrs, status, found)
            problem = self._tally.damage(lost) if lost else problem
        except OSError as error:
            problem = self._checked_reason(error)
        problem = problem or _incompleteness(place.node)
        if problem:
            self._tell(place, b"", problem)

    def _restore_item(self, place: Place | None, node: Node) -> None:
        if self._waiting and not self._catch_up():
            return
        try:
            problem = self._restore_checked(place, node)
        except Unrestorable:
            problem = ""
        except OSError as error:
            problem = self._checked_reason(error)
        except DamageError as error:
            problem = self._tally.damage(str(error))
        if problem is not None:
            self._tell_done(place, node, problem)

    def _tell_done(self, place: Place | None, node: Node, problem: str) -> None:
        path = self._path(place, node)
        self._tally.done(path, node.entry.size if node.entry.type == EntryType.FILE else 0)
        if problem:
            self._tally.problem(path, problem)

    def _restore_checked(self, place: Place | None, node: Node) -> str | None:
        """What is wrong with a name that was restored, or empty; None when another process makes it now."""
        entry = node.entry
        folder = self._folders.current
        if entry.type == EntryType.UNKNOWN or (entry.error and not _has_content(node)):
            return f"it was not saved: {entry.error}"
        problem = self._keep(folder, node)
        if problem is not None:
            self._tally.kept += 1
            return problem or _incompleteness(node)
        if self._sharing is not None and entry.names < 2 and entry.size <= SHARED_BYTES_MAX:
            self._sharing.make(folder, place, node)
            return None
        return self._make(place, folder, node) or _incompleteness(node)

    def _make(self, place: Place | None, folder: Folder, node: Node) -> str:
        entry = node.entry
        problem = ""
        if self._request.dry_run:
            self._tally.bytes_written += entry.allocated
        elif not self._link(place, folder, node):
            if entry.size > fmt.CHUNK_BYTES_MAX:
                self._tally.begin(self._path(place, node))
            problem = self._items.make(folder, node.name, entry)
        self._count(node)
        return problem

    def _count(self, node: Node) -> None:
        if node.entry.type == EntryType.FILE:
            self._tally.files += 1
        else:
            self._tally.others += 1
        self._note_restored(node)

    def _link(self, place: Place | None, folder: Folder, node: Node) -> bool:
        """Make a name a hard link to a name of the same file, if one was restored."""
        if node.entry.names < 2:
            return False
        first = self._first_names.find(node, folder, place.node.place if place is not None else -1)
        return first is not None and self._items.link(folder, node.name, first)

    def _note_restored(self, node: Node) -> None:
        if node.entry.names > 1:
            self._first_names.remember(node)
        self._places.add(node.place)

    def _keep(self, folder: Folder, node: Node) -> str | None:
        """Whether what stands in the target is kept: what is wrong with it then, or empty; None when it is not."""
        if folder.is_made or folder.descriptor == ABSENT:
            return None
        try:
            status = os.stat(node.name, dir_fd=folder.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None
        overwrite = self._request.overwrite
        if overwrite is Overwrite.IF_CHANGED and is_unchanged(folder, node.name, node.entry, status):
            return self._keep_unchanged(folder, node, status)
        return None if self._may_replace(node, status) else ""

    def _keep_unchanged(self, folder: Folder, node: Node, status: os.stat_result) -> str | None:
        """Keep what is the same and bring its attributes in line; a further name must be one with the first."""
        if node.entry.names > 1:
            first = self._first_names.find(node, folder, -1)
            if first is not None and not _is_same(first, status):
                return None
        problem = "" if self._request.dry_run else self._items.update(folder, node.name, node.entry, status)
        self._note_restored(node)
        return problem

    def _may_replace(self, node: Node, status: os.stat_result) -> bool:
        overwrite = self._request.overwrite
        if overwrite is Overwrite.IF_NEWER:
            return node.entry.mtime_ns > status.st_mtime_ns
        return overwrite is not Overwrite.NEVER

    def _may_update(self, node: Node, folder: Folder) -> bool:
        return folder.descriptor == ABSENT or self._may_replace(node, os.fstat(folder.descriptor))

    def _checked_reason(self, error: OSError) -> str:
        """What an error says; one that every further name would meet ends the restore."""
        if error.errno in _FATAL_ERRORS:
            raise TargetError(f"{self._request.target} cannot be written: {reason_of(error)}") from error
        return reason_of(error)


def _incompleteness(node: Node) -> str:
    """What the snapshot lacks of something that was restored as far as it was saved, or empty."""
    return f"it was saved incompletely: {node.entry.error}" if node.entry.error else ""


def _has_content(node: Node) -> bool:
    """Whether something of a file that could not be read whole was saved."""
    return node.entry.type == EntryType.FILE and bool(node.entry.extents or node.entry.page)


def _is_same(first: tuple[int, bytes], status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(first[1], dir_fd=first[0], follow_symlinks=False), status)
    except OSError:
        return False
