"""What is asked of a restore, and what it reports."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path


class Overwrite(enum.Enum):
    """What happens to what stands in the target under a restored name; the names and meanings are restic's.

    ALWAYS replaces it. IF_CHANGED keeps the content of a file of the same size and modification time (of other things:
    that are the same), and sets the attributes that differ. IF_NEWER replaces what is older than the snapshot's. NEVER
    keeps it.
    """

    ALWAYS = "always"
    IF_CHANGED = "if-changed"
    IF_NEWER = "if-newer"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """Where to restore to and what.

    Attributes:
        target: the folder restored into, made where it is missing. It gets the attributes of what it holds when
            it is made.
        include: patterns as in a .gitignore file that stands in the target: restore only what matches, and what
            is below.
        exclude: patterns likewise: leave out what matches, and what is below.
        overwrite: what to do with what is there.
        dry_run: write nothing.
        verify: read back all that was restored or kept as unchanged, and compare it with the snapshot.
    """

    target: Path
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    overwrite: Overwrite = Overwrite.IF_CHANGED
    dry_run: bool = False
    verify: bool = False


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What was done; after a dry run, what would have been.

    Attributes:
        files: regular files made, further names of one file included.
        directories: directories made, or brought in line with the snapshot.
        others: symlinks, FIFOs, sockets and devices made.
        kept: names that were left, being as they are in the snapshot or not to be overwritten.
        verified: files compared with the snapshot.
        bytes_written: bytes of files, without holes.
        problems: how often the listener was told of a problem.
        damaged: how many of them are damage of the repository.
        notes: what could not be restored on this system at all, one sentence for each kind.
    """

    files: int
    directories: int
    others: int
    kept: int
    verified: int
    bytes_written: int
    problems: int
    damaged: int
    notes: tuple[str, ...]

    @property
    def restored(self) -> int:
        """All names restored."""
        return self.files + self.directories + self.others
