"""The paths a snapshot is made of, and which directories lead to them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from backthen.repository.errors import InvalidRequest, PathNotFound
from backthen.repository.source.files import reason_of


@dataclass(slots=True)
class Branch:
    """A directory on the way to saved paths.

    Attributes:
        is_saved: it is itself a saved path.
        children: names in it that are saved paths or lead to them.
    """

    is_saved: bool = False
    children: dict[bytes, Branch] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SavedPaths:
    """What a snapshot is made of.

    Attributes:
        paths: absolute, sorted, each once; a path may lie below another, whose walk then covers it.
    """

    paths: tuple[bytes, ...]

    def tree(self) -> Branch:
        """The paths as a tree from `/`."""
        top = Branch()
        for path in self.paths:
            branch = top
            for name in path.split(b"/"):
                if name:
                    branch = branch.children.setdefault(name, Branch())
            branch.is_saved = True
        return top


def saved_paths(paths: Iterable[bytes]) -> SavedPaths:
    """Make paths absolute, with their parents resolved; a link at the end of a path is not followed.

    Raises:
        PathNotFound: there is nothing at one of them.
        InvalidRequest: there are none, or one is empty.
    """
    absolute = tuple(sorted({_absolute(path) for path in paths}))
    if not absolute:
        raise InvalidRequest("there is no path to save")
    return SavedPaths(absolute)


def _absolute(path: bytes) -> bytes:
    if not path:
        raise InvalidRequest("an empty path cannot be saved")
    parent, name = os.path.split(path.rstrip(b"/") or b"/")
    try:
        if name in (b"", b".", b".."):
            return os.path.realpath(path, strict=True)
        found = os.path.join(os.path.realpath(parent or b".", strict=True), name)
        os.lstat(found)
    except OSError as error:
        shown = path.decode(errors="backslashreplace")
        raise PathNotFound(f"{shown!r} cannot be saved: {reason_of(error)}") from error
    return found
