"""What a walk of the live file system comes upon, in its order: depth first, names in raw byte order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from backthen.repository.source.attributes import XattrRead, path_in
from backthen.repository.source.files import Status


class WalkedDirectory(Protocol):
    """A directory while the walk is in it."""

    @property
    def name(self) -> bytes:
        """The raw name; empty for `/`."""
        ...

    @property
    def parent(self) -> WalkedDirectory | None:
        """The directory it is in; None for `/`."""
        ...

    @property
    def path(self) -> bytes:
        """The absolute path, without a slash at its end (so empty for `/`)."""
        ...

    @property
    def descriptor(self) -> int:
        """It, open.

        Raises:
            OSError: it was moved away, or cannot be opened.
        """
        ...

    def read_xattrs(self) -> XattrRead:
        """Its extended attributes."""
        ...


class EnterDirectory(NamedTuple):
    """What follows, up to the matching `LeaveDirectory`, is in this directory. The first event enters `/`."""

    directory: WalkedDirectory
    status: Status

    @property
    def name(self) -> bytes:
        """The raw name; empty for `/`."""
        return self.directory.name

    @property
    def path(self) -> bytes:
        """The absolute path."""
        return self.directory.path or b"/"


class Item(NamedTuple):
    """A name that is not entered; a directory here is a mount point, or one's own, that is saved as an empty one."""

    name: bytes
    status: Status
    directory: WalkedDirectory

    @property
    def path(self) -> bytes:
        """The absolute path."""
        return self.directory.path + b"/" + self.name

    @property
    def xattr_source(self) -> bytes:
        """What `read_xattrs` takes for this name."""
        return path_in(self.directory.descriptor, self.name)


class Items(NamedTuple):
    """Names of one directory, one after another, that are not entered, each with what the kernel says of it.

    They are handed over together because an event for each takes as long as all else that is done for an unchanged one.
    """

    directory: WalkedDirectory
    found: list[tuple[bytes, Status]]

    def one_by_one(self) -> Iterator[Item]:
        """Each of them by itself."""
        return (Item(name, status, self.directory) for name, status in self.found)


class Problem(NamedTuple):
    """A name that could not be examined (`status` is None) or entered."""

    name: bytes
    status: Status | None
    directory: WalkedDirectory
    message: str

    @property
    def path(self) -> bytes:
        """The absolute path."""
        return self.directory.path + b"/" + self.name


class LeaveDirectory(NamedTuple):
    """The directory is done; `error` says why some of its names are missing, or is empty."""

    directory: WalkedDirectory
    error: str


Event = EnterDirectory | Items | Problem | LeaveDirectory
