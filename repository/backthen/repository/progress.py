"""How long operations tell what they do, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A listener. Calls are cheap and come from one thread; nothing it does may fail the operation."""

    @property
    def names_each(self) -> bool:
        """Whether each file is to be told by itself; else `advance` may tell of several at once."""
        ...

    def start(self, phase: str, *, files_total: int | None = None, bytes_total: int | None = None) -> None:
        """A phase begins; totals are None where they are not known, and may be what it took the last time."""
        ...

    def advance(self, *, files: int = 0, size: int = 0, current: bytes = b"") -> None:
        """So many more files and bytes are done; `current` is the path being worked on."""
        ...

    def problem(self, path: bytes, message: str) -> None:
        """Something at `path` could not be read or written as it is; the operation goes on."""
        ...


class Silent:
    """A listener that ignores everything."""

    names_each = False

    def start(self, phase: str, *, files_total: int | None = None, bytes_total: int | None = None) -> None:
        """Ignore it."""

    def advance(self, *, files: int = 0, size: int = 0, current: bytes = b"") -> None:
        """Ignore it."""

    def problem(self, path: bytes, message: str) -> None:
        """Ignore it."""
