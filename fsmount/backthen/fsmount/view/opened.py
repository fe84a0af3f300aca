"""What a view hands out to be given back: directories and files that are open, and how large all is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from backthen.fsmount.view.ahead import Ahead
from backthen.fsmount.view.attributes import Listed
from backthen.fsmount.view.layout import Located
from backthen.repository import Node


class Capacity(NamedTuple):
    """How large the file system is: bytes in storage, and how many inodes it shows."""

    stored_bytes: int
    entry_count: int


@dataclass(slots=True)
class OpenDirectory:
    """A directory being listed: a node of a snapshot, or the frozen listing of a virtual one.

    Attributes:
        located: the node, or None.
        frozen: the listing of a virtual one.
        last: the cookie after which nothing comes; -1 where the end was not seen yet.
    """

    located: Located | None
    frozen: Sequence[Listed] = ()
    last: int = -1


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file being read.

    Attributes:
        node: a file of a snapshot, or None.
        text: what any other file holds; it stays as it was at the opening.
        ahead: how it is read.
    """

    node: Node | None
    text: bytes = b""
    ahead: Ahead = field(default_factory=Ahead)

    @property
    def is_lasting(self) -> bool:
        """Whether the content is the same at every opening."""
        return self.node is not None
