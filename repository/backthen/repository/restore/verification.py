"""Reading back what was restored, and comparing it with the snapshot."""

from __future__ import annotations

import os

from backthen.repository import format as fmt
from backthen.repository.content import Node, SnapshotTree
from backthen.repository.errors import DamageError
from backthen.repository.model.entry import EntryType
from backthen.repository.objects.source import BlobSource
from backthen.repository.restore.content import has_content
from backthen.repository.restore.folders import ABSENT, Folder, Folders, open_top
from backthen.repository.restore.items import is_unchanged, open_for_comparison
from backthen.repository.restore.request import RestoreRequest
from backthen.repository.restore.tally import Tally
from backthen.repository.restore.traversal import Entering, Found, Place, Selection, traverse
from backthen.repository.source import reason_of


class RestoredPlaces:
    """Which names stand in the target as the snapshot has them: one bit for each position."""

    def __init__(self, position_count: int) -> None:
        """Nothing yet; with no positions, nothing is remembered."""
        self._bits = bytearray((position_count + 7) // 8)

    def add(self, place: int) -> None:
        """The name at this place was restored, or kept as unchanged."""
        if self._bits:
            self._bits[place >> 3] |= 1 << (place & 7)

    def __contains__(self, place: int) -> bool:
        return bool(self._bits and self._bits[place >> 3] & (1 << (place & 7)))


def verify(
    source: BlobSource,
    tree: SnapshotTree,
    top: Node,
    request: RestoreRequest,
    selection: Selection,
    tally: Tally,
    places: RestoredPlaces,
) -> None:
    """Compare each name in `places` with the snapshot; what differs is a problem.

    Raises:
        StorageError: the storage failed.
        TargetError: the target is gone.
    """
    tally.progress.start("verify", files_total=tally.files + tally.others, bytes_total=None)
    os.sync()  # Only what is on the disk can be dropped from memory, and so be read back from the disk.
    target = os.fsencode(request.target)
    folders = Folders(open_top(target, read_only=True), read_only=True)
    verifying = _Verifying(source, tally, places, folders, target.rstrip(b"/") + b"/")
    try:
        if not top.entry.is_directory:
            verifying.check(None, top)
            return
        for event in traverse(source, tree, top, selection, lambda relative, error: None):
            if isinstance(event, Found):
                verifying.check(event.place, event.node)
            elif event.place.parent is not None:
                if isinstance(event, Entering):
                    folders.enter(event.place.node.name, lambda status: False)
                else:
                    folders.leave().close()
    finally:
        folders.close()


class _Verifying:
    def __init__(
        self, source: BlobSource, tally: Tally, places: RestoredPlaces, folders: Folders, target: bytes
    ) -> None:
        self._source = source
        self._tally = tally
        self._places = places
        self._folders = folders
        self._target = target

    def check(self, place: Place | None, node: Node) -> None:
        """Compare one name if it was restored."""
        if node.place not in self._places:
            return
        path = self._target + (place.relative if place is not None else b"") + node.name
        if node.entry.size > fmt.CHUNK_BYTES_MAX:
            self._tally.begin(path)
        try:
            is_same = self._is_same(self._folders.current, node)
            problem = "" if is_same else "what stands in the target is not what was saved"
        except OSError as error:
            problem = f"it cannot be read back: {reason_of(error)}"
        except DamageError as error:
            problem = self._tally.damage(str(error))
        self._tally.verified += 1
        self._tally.done(path, node.entry.size)
        if problem:
            self._tally.problem(path, problem)

    def _is_same(self, folder: Folder, node: Node) -> bool:
        if folder.descriptor == ABSENT:
            return False
        if node.entry.type != EntryType.FILE:
            status = os.stat(node.name, dir_fd=folder.descriptor, follow_symlinks=False)
            return is_unchanged(folder, node.name, node.entry, status)
        descriptor = open_for_comparison(folder, node.name)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            return has_content(self._source, node.entry, descriptor, self._tally.part)
        finally:
            os.close(descriptor)
