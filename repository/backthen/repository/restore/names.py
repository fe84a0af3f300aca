"""The first restored name of each link group, which the further names become hard links to.

There may be millions of groups: kept is one number for each, and the path is found again in the snapshot.
"""

from __future__ import annotations

import os
from array import array

from backthen.repository.content import Node, SnapshotTree
from backthen.repository.objects.source import BlobSource
from backthen.repository.restore.folders import Folder

_GROUPS_PER_BLOCK = 64
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class FirstNames:
    """Places of first names by link group, and the folder of the one that was asked for last. Close it."""

    def __init__(self, source: BlobSource, tree: SnapshotTree, top: Node, target: Folder) -> None:
        """For what is below `top`, which stands for the folder `target`."""
        self._source = source
        self._tree = tree
        self._target = target
        self._top_depth = 0 if top.place == 0 else len(list(tree.route(source, top.place)))
        self._blocks: dict[int, array[int]] = {}
        self._folder_place = -1
        self._folder = -1

    def close(self) -> None:
        """Close the folder that is kept open."""
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1

    def remember(self, node: Node) -> None:
        """A name of a group was restored."""
        block, index = divmod(node.position, _GROUPS_PER_BLOCK)
        places = self._blocks.get(block)
        if places is None:
            places = self._blocks[block] = array("Q", bytes(8 * _GROUPS_PER_BLOCK))
        places[index] = node.place

    def find(self, node: Node, current: Folder, current_place: int) -> tuple[int, bytes] | None:
        """(open folder, name) of the group's first restored name; None when there is none, or it is not found again.

        Args:
            node: a further name.
            current: the folder it is in.
            current_place: the place of that folder in the snapshot.
        """
        block, index = divmod(node.position, _GROUPS_PER_BLOCK)
        places = self._blocks.get(block)
        if places is None or not places[index]:
            return None
        route = list(self._tree.route(self._source, places[index]))[self._top_depth :]
        folder_place = route[-2].place if len(route) > 1 else -1
        if len(route) == 1:
            return self._target.descriptor, route[-1].name
        if folder_place == current_place:
            return current.descriptor, route[-1].name
        if folder_place != self._folder_place and not self._open(route[:-1]):
            return None
        return self._folder, route[-1].name

    def _open(self, route: list[Node]) -> bool:
        """Open the folder at the end of a route from the target."""
        self.close()
        self._folder_place = -1
        descriptor = os.dup(self._target.descriptor)
        for node in route:
            try:
                below = os.open(node.name, _FOLDER_FLAGS, dir_fd=descriptor)
            except OSError:
                return False
            finally:
                os.close(descriptor)
            descriptor = below
        self._folder = descriptor
        self._folder_place = route[-1].place
        return True
