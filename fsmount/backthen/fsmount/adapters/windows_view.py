"""The view in the terms of Windows: paths of UTF-16 names, file attributes, reparse points. Free of WinFsp's binding.

Names are looked for as they are, then without a difference in case. Symlinks are told to be ones, and never followed
in a path: whoever asks resolves them.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from backthen.fsmount.adapters.paths import Paths
from backthen.fsmount.adapters.windows_names import decode_name, encode_name, folded
from backthen.fsmount.adapters.windows_records import (
    file_attributes,
    filetime,
    reparse_data,
    reparse_tag,
    security_descriptor,
)
from backthen.fsmount.view import (
    ROOT_NUMBER,
    Attributes,
    DamagedContent,
    Gone,
    Listed,
    NotADirectory,
    NotASymlink,
    NotFound,
    OpenDirectory,
    OpenFile,
    View,
)
from backthen.repository import BlobSource, LRUCache

FOLDED_NAMES_MAX = 65536
"""Names that are remembered without their case, of all directories together: about 16 MiB."""
LINKS_MAX = 40

_ACCESS_ACL = b"system.posix_acl_access"

Info = dict[str, int | str]
"""A file's record, by the names that winfspy gives to its fields."""


class SymlinkOnTheWay(Exception):
    """A path leads through a symlink, which is to be resolved first."""


class NoSuchWay(Exception):
    """A path leads through something that is neither a directory nor a symlink."""


class WindowsNode(NamedTuple):
    """A node, and its names from the top as the snapshot has them."""

    names: tuple[bytes, ...]
    found: Attributes


@dataclass(slots=True)
class Opened:
    """What Windows has opened.

    Attributes:
        file: set once its content is asked for.
        listing: set once it is listed.
        ahead: what was listed last, since not all of it fits into each answer.
    """

    node: WindowsNode
    file: OpenFile | None = None
    listing: OpenDirectory | None = None
    ahead: list[Listed] = field(default_factory=list)


class WindowsView:
    """A view for Windows. Safe to use from several threads. Its methods raise what those of `View` raise."""

    def __init__(self, view: View, *, reader: str, allow_other: bool) -> None:
        """Take a view.

        Args:
            view: what to show.
            reader: the SID of the user who may read all of it.
            allow_other: let other users in, as far as the saved permissions do.
        """
        self._view = view
        self._paths = Paths(view)
        self._reader = reader
        self._allow_other = allow_other
        self._folded: LRUCache[int, dict[str, bytes]] = LRUCache(FOLDED_NAMES_MAX, len)

    def find(self, source: BlobSource, file_name: str) -> WindowsNode:
        """The node at a path.

        Raises:
            SymlinkOnTheWay, NoSuchWay: as they say.
        """
        node = WindowsNode((), self._view.attributes(source, ROOT_NUMBER))
        for name in filter(None, file_name.split("\\")):
            if stat.S_ISLNK(node.found.mode):
                raise SymlinkOnTheWay(file_name)
            if not node.found.is_directory:
                raise NoSuchWay(file_name)
            node = self.child(source, node, name)
        return node

    def child(self, source: BlobSource, parent: WindowsNode, name: str) -> WindowsNode:
        """A directory's child: of exactly that name, or else the first one whose name differs only in case."""
        directory, exact = parent.found.number, decode_name(name)
        try:
            return WindowsNode((*parent.names, exact), self._paths.lookup(source, directory, exact))
        except NotFound:
            similar = self._name_of_other_case(source, directory, folded(name))
            if similar is None:
                raise
            return WindowsNode((*parent.names, similar), self._paths.lookup(source, directory, similar))

    def info(self, source: BlobSource, node: WindowsNode) -> Info:
        """The record of a node."""
        found = node.found
        written = filetime(found.mtime_ns)
        return {
            "file_attributes": self.attributes(source, node),
            "reparse_tag": reparse_tag(found.mode),
            "allocation_size": found.allocated,
            "file_size": found.size,
            "creation_time": written,
            "last_access_time": written,
            "last_write_time": written,
            "change_time": filetime(found.ctime_ns),
            "index_number": found.number,
        }

    def attributes(self, source: BlobSource, node: WindowsNode) -> int:
        """The file attributes of a node."""
        is_directory = node.found.is_directory or self._leads_to_directory(source, node)
        return file_attributes(node.found.mode, is_directory=is_directory)

    def entries(
        self, source: BlobSource, opened: Opened, listing: OpenDirectory, marker: str | None, count: int
    ) -> list[Info]:
        """The entries of a directory after the one called `marker`: more than `count`, or all that are left.

        `.` and `..` come first, but not at the top.
        """
        node = opened.node
        entries: list[Info] = []
        if node.names and marker is None:
            entries.append({"file_name": ".", **self.info(source, node)})
        if node.names and marker in (None, "."):
            above = node.names[:-1]
            entries.append(
                {"file_name": "..", **self.info(source, WindowsNode(above, self._paths.find(source, above)))}
            )
        ahead, after = self._rest(source, listing, opened.ahead, None if marker in (".", "..") else marker)
        while len(ahead) <= count and (more := self._view.read_directory(source, listing, after)):
            ahead += more
            after = more[-1].cookie
        opened.ahead = ahead
        for listed in ahead:
            child = WindowsNode((*node.names, listed.name), listed.attributes)
            entries.append({"file_name": encode_name(listed.name), **self.info(source, child)})
        return entries

    def descriptor(self, source: BlobSource, found: Attributes) -> str:
        """The security descriptor of a node, as a string."""
        return security_descriptor(
            found.uid,
            found.gid,
            found.mode,
            reader=self._reader,
            has_acl=self._allow_other and _ACCESS_ACL in self._view.xattr_names(source, found.number),
            allow_other=self._allow_other,
        )

    def reparse_data(self, source: BlobSource, found: Attributes) -> bytes:
        """Where a symlink points, or what kind of special file something is.

        Raises:
            NotASymlink: it is a file or a directory.
        """
        if not reparse_tag(found.mode):
            raise NotASymlink(f"{found.number} is no reparse point")
        target = self._view.target(source, found.number) if stat.S_ISLNK(found.mode) else b""
        return reparse_data(found, target)

    def _name_of_other_case(self, source: BlobSource, directory: int, wanted: str) -> bytes | None:
        names = self._folded.get(directory)
        if names is None:
            names = {}
            for listed in self._entries(source, self._view.open_directory(source, directory)):
                similar = folded(encode_name(listed.name))
                # Of a directory with too many names none are remembered: then it is read up to the one that is wanted.
                if len(names) < FOLDED_NAMES_MAX:
                    names.setdefault(similar, listed.name)
                elif similar == wanted:
                    return names.get(wanted, listed.name)
            if len(names) < FOLDED_NAMES_MAX and self._view.is_lasting(directory):
                self._folded[directory] = names
        return names.get(wanted)

    def _rest(
        self, source: BlobSource, listing: OpenDirectory, ahead: list[Listed], marker: str | None
    ) -> tuple[list[Listed], int]:
        """What is known of the entries after a name, and the cookie after which the others come."""
        if marker is None:
            return [], 0
        wanted = decode_name(marker)
        for index, listed in enumerate(ahead):
            if listed.name == wanted:
                return ahead[index + 1 :], ahead[-1].cookie
        # Windows goes on elsewhere than where the last answer ended.
        for listed in self._entries(source, listing):
            if listed.name == wanted:
                return [], listed.cookie
        raise NotFound(f"no {wanted!r}")

    def _entries(self, source: BlobSource, listing: OpenDirectory) -> Iterator[Listed]:
        after = 0
        while listed := self._view.read_directory(source, listing, after):
            yield from listed
            after = listed[-1].cookie

    def _leads_to_directory(self, source: BlobSource, node: WindowsNode) -> bool:
        if not stat.S_ISLNK(node.found.mode):
            return False
        try:
            return self._resolve(source, node.names).is_directory
        except (NotFound, NotADirectory, Gone, DamagedContent):
            return False

    def _resolve(self, source: BlobSource, names: Sequence[bytes]) -> Attributes:
        """The node at a path, all symlinks followed as far as the volume goes.

        Raises:
            NotFound: a name is not there, or there are too many symlinks.
            NotADirectory: what is above a name is none.
        """
        top = self._view.attributes(source, ROOT_NUMBER)
        trail = [top]
        ahead = list(reversed(names))
        links = 0
        while ahead:
            name = ahead.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                trail = trail[:-1] or [top]
                continue
            found = self._paths.lookup(source, trail[-1].number, name)
            if not stat.S_ISLNK(found.mode):
                trail.append(found)
                continue
            links += 1
            if links > LINKS_MAX:
                raise NotFound("too many symlinks")
            target = self._view.target(source, found.number)
            if target.startswith(b"/"):
                trail = [top]
            ahead += reversed(target.split(b"/"))
        return trail[-1]
