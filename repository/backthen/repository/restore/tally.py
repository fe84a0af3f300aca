"""Counts and notes of a restore while it runs."""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, field

from backthen.repository.progress import Progress
from backthen.repository.restore.request import RestoreReport


class Note(enum.Enum):
    """What cannot be restored here at all. Said once with a count, not for each name."""

    OWNER = "the owner was not restored: that needs root"
    SET_ID = "set-user-id or set-group-id was left off: the owner was not restored"
    DEVICE = "a device node was left out: that needs root"
    XATTR_UNSUPPORTED = "extended attributes were left off: the target's file system does not take them"
    XATTR_PRIVILEGED = "extended attributes were left off: they need root"
    LINK_UNSUPPORTED = "a further name of a file became a copy: the target's file system has no (more) hard links"


@dataclass(slots=True)
class Tally:
    """What was done so far."""

    progress: Progress
    files: int = 0
    directories: int = 0
    others: int = 0
    kept: int = 0
    verified: int = 0
    bytes_written: int = 0
    problems: int = 0
    damaged: int = 0
    _told: int = 0  # bytes of the name that is being worked on
    notes: Counter[Note] = field(default_factory=Counter)

    def begin(self, path: bytes) -> None:
        """A name is going to be worked on that may take long."""
        self.progress.advance(current=path)

    def part(self, size: int) -> None:
        """So many bytes of it are done."""
        self._told += size
        self.progress.advance(size=size)

    def done(self, path: bytes, size: int) -> None:
        """A name is done, with so many bytes in all."""
        self.progress.advance(files=1, size=size - self._told, current=path)
        self._told = 0

    def problem(self, path: bytes, message: str) -> None:
        """Name a path that is not restored as it should be."""
        self.problems += 1
        self.progress.problem(path, message)

    def damage(self, message: str) -> str:
        """Count something that the repository has lost; gives back the message, for whoever knows the path to tell."""
        self.damaged += 1
        return message

    def report(self) -> RestoreReport:
        """The final report."""
        counted = sorted((note.value, count) for note, count in self.notes.items())
        return RestoreReport(
            files=self.files,
            directories=self.directories,
            others=self.others,
            kept=self.kept,
            verified=self.verified,
            bytes_written=self.bytes_written,
            problems=self.problems,
            damaged=self.damaged,
            notes=tuple(f"{count:,} times: {text}" for text, count in counted),
        )
