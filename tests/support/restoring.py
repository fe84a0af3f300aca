"""A folder to save and a folder to restore to, for tests of restores without a repository."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import msgspec
import pytest

from backthen.repository.content import SnapshotTree
from backthen.repository.model.entry import Extent
from backthen.repository.objects import BlobSource
from backthen.repository.progress import Silent
from backthen.repository.restore import RestoreReport, RestoreRequest, restore_tree, restoring
from backthen.repository.restore.sharing import Forks
from tests.support.comparison import Aspects, differences
from tests.support.memory import MemoryBlobs, MemorySaver

SECOND_NS = 1_000_000_000


class Listener(Silent):
    """Remembers problems and progress."""

    def __init__(self) -> None:
        self.problems: list[tuple[bytes, str]] = []
        self.files = 0
        self.files_total: int | None = None

    def start(self, phase: str, *, files_total: int | None = None, bytes_total: int | None = None) -> None:
        if phase == "restore":
            self.files_total = files_total

    def advance(self, *, files: int = 0, size: int = 0, current: bytes = b"") -> None:
        self.files += files

    def problem(self, path: bytes, message: str) -> None:
        self.problems.append((path, message))


class MemoryForks:
    """Lets other processes read what is in memory when they are forked."""

    def __init__(self, blobs: MemoryBlobs) -> None:
        self._blobs = blobs

    def forking(self) -> AbstractContextManager[bool]:
        return nullcontext(True)

    def forked_source(self) -> BlobSource:
        return self._blobs


class Work:
    """A folder to save, a folder to restore to, and the snapshot between them."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "source"
        self.target = folder / "target"
        self.source.mkdir()
        self.saver = MemorySaver(folder / "spill")
        self.listener = Listener()
        self.tree: SnapshotTree | None = None
        self.forks: Forks | None = None

    def share(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have other processes make files, however few there are."""
        self.forks = MemoryForks(self.blobs)
        monkeypatch.setattr(restoring, "_SHARED_NAMES_MIN", 0)

    @property
    def blobs(self) -> MemoryBlobs:
        return self.saver.blobs

    def save(self) -> None:
        self.tree = self.saver.save(os.fsencode(self.source))
        assert self.saver.problems == []

    def restore(self, path: str | None = None, **options: object) -> RestoreReport:
        """Restore what `source` was, or something else by its path."""
        assert self.tree is not None
        self.listener = Listener()
        request = msgspec.convert({"target": self.target, **options}, RestoreRequest)
        node_path = os.fsencode(self.source if path is None else path)
        report = restore_tree(self.blobs, self.tree, node_path, request, self.listener, forks=self.forks)
        assert report.problems == len(self.listener.problems)
        return report

    def differences(self) -> list[str]:
        return list(differences(os.fsencode(self.source), os.fsencode(self.target), Aspects()))

    def shown(self) -> list[str]:
        return sorted(str(path.relative_to(self.target)) for path in self.target.rglob("*"))


def fill(folder: Path, files: dict[str, bytes]) -> None:
    """Write small files, all with one time."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, ns=(0, 1_000 * SECOND_NS))


def chunk(blobs: MemoryBlobs, data: bytes) -> Extent:
    """Store a chunk, and give its extent."""
    ref = blobs.put(data)
    return Extent(ref.id, ref.length)
