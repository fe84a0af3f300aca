"""Counting what a snapshot does while it does it."""

from __future__ import annotations

from backthen.repository.model.entry import Entry, EntryType
from backthen.repository.model.records import Statistics
from backthen.repository.progress import Progress

_UNTOLD_BYTES_MAX = 1_000_000
_FILE = int(EntryType.FILE)


class Tally:
    """Running figures of one snapshot, told on to a listener. Sizes in bytes."""

    __slots__ = (
        "_progress",
        "_untold",
        "bytes_read",
        "directories",
        "errors",
        "files",
        "files_changed",
        "files_new",
        "files_unchanged",
        "others",
        "size",
    )

    def __init__(self, progress: Progress) -> None:
        """Begin at nothing."""
        self._progress = progress
        self.files = self.directories = self.others = self.size = 0
        self.files_new = self.files_changed = self.files_unchanged = 0
        self.bytes_read = self.errors = self._untold = 0

    def file(self, path: bytes, size: int, *, known: bool, unchanged: bool) -> None:
        """A regular file is done; `known` says whether a parent has a file of that name."""
        self.files += 1
        self.size += size
        if unchanged:
            self.files_unchanged += 1
            self._progress.advance(files=1, size=size, current=path)
            return
        if known:
            self.files_changed += 1
        else:
            self.files_new += 1
        untold, self._untold = self._untold, 0
        self._progress.advance(files=1, size=untold, current=path)

    def unchanged(self, folder: bytes, entries: list[Entry]) -> None:
        """Entries of the folder at a path, none of them a directory, that are a parent's."""
        sizes = [entry.size for entry in entries if entry.type == _FILE]
        self.others += len(entries) - len(sizes)
        self.files += len(sizes)
        self.files_unchanged += len(sizes)
        self.size += sum(sizes)
        if self._progress.names_each:
            for entry in entries:
                if entry.type == _FILE:
                    self._progress.advance(files=1, size=entry.size, current=folder + b"/" + entry.name)
        else:
            self._progress.advance(files=len(sizes), size=sum(sizes), current=folder + b"/" + entries[-1].name)

    def begin(self, path: bytes) -> None:
        """A file is going to be read that may take long."""
        self._progress.advance(current=path)

    def read(self, count: int) -> None:
        """So many bytes of file content were read."""
        self.bytes_read += count
        self._untold += count
        if self._untold > _UNTOLD_BYTES_MAX:
            untold, self._untold = self._untold, 0
            self._progress.advance(size=untold)

    def problem(self, path: bytes, message: str) -> None:
        """Something could not be saved as it is."""
        self.errors += 1
        self._progress.problem(path, message)

    def statistics(self, bytes_added: int) -> Statistics:
        """The figures so far."""
        return Statistics(
            files=self.files,
            directories=self.directories,
            others=self.others,
            size=self.size,
            files_new=self.files_new,
            files_changed=self.files_changed,
            files_unchanged=self.files_unchanged,
            bytes_read=self.bytes_read,
            bytes_added=bytes_added,
            errors=self.errors,
        )
