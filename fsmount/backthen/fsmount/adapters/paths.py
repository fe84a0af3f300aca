"""Finds nodes by path, for adapters that are asked by path: one look-up a name, some of them from memory.

Only look-ups in directories that never change are remembered. As each path is walked from the top, and the directories
at the top change, nothing is found in a snapshot that is not shown any more.
"""

from __future__ import annotations

from collections.abc import Sequence

from backthen.fsmount.view import ROOT_NUMBER, Attributes, View
from backthen.repository import BlobSource, LRUCache

REMEMBERED_MAX = 16384
"""Look-ups that are remembered: about 8 MiB."""


class Paths:
    """Finds the nodes of a view. Safe to use from several threads."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._remembered: LRUCache[tuple[int, bytes], Attributes] = LRUCache(REMEMBERED_MAX)

    def find(self, source: BlobSource, names: Sequence[bytes]) -> Attributes:
        """The node at a path from the top, as its names. Symlinks on the way are not followed.

        Raises:
            NotFound: a name is not there.
            NotADirectory: what is above a name is none.
            ViewError: the view refuses.
            NotInMemory: as the view's methods raise it.
        """
        if not names:
            return self._view.attributes(source, ROOT_NUMBER)
        number = ROOT_NUMBER
        for name in names[:-1]:
            number = self.lookup(source, number, name).number
        return self.lookup(source, number, names[-1])

    def lookup(self, source: BlobSource, directory: int, name: bytes) -> Attributes:
        """A directory's child, as the view's `lookup` finds it."""
        found = self._remembered.get((directory, name))
        if found is None:
            found = self._view.lookup(source, directory, name)
            if self._view.is_lasting(directory):
                self._remembered[directory, name] = found
        return found
