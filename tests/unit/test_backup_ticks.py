"""A file may change in the same tick of the file system's clock in which a snapshot read it.

Newer kernels stamp a file anew when somebody has looked at its times, so the case itself cannot be made everywhere.
What can be seen everywhere is that times as young as the snapshot are not trusted.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backthen.repository import (
    Client,
    Folders,
    Repository,
    Silent,
    SnapshotRequest,
    create_repository,
    create_snapshot,
    now_ns,
    open_storage,
)

TICK_NS = 20_000_000


class Meddler(Silent):
    """Writes one file when the snapshot is done with the one before it."""

    def __init__(self, earlier: Path, path: Path) -> None:
        self.earlier = earlier
        self.path = path

    def advance(self, *, files: int = 0, size: int = 0, current: bytes = b"") -> None:
        if files and current == os.fsencode(self.earlier):
            self.path.write_bytes(b"a moment ago")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    folders = Folders(tmp_path / "cache", tmp_path / "state")
    return create_repository(open_storage(str(tmp_path / "repository")), b"password", folders, Client("h", "u", "p"))


def test_file_written_while_a_snapshot_ran_is_read_by_the_next_one_and_then_trusted(
    repository: Repository, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    earlier, path = tree / "a", tree / "b"
    earlier.write_bytes(b"long ago")
    path.write_bytes(b"to be written")
    _wait_until_after(earlier)
    request = SnapshotRequest((os.fsencode(tree),), "host")
    with repository:
        create_snapshot(repository, request, Meddler(earlier, path))
        _wait_until_after(path)
        read = [create_snapshot(repository, request, Silent()).statistics.bytes_read for _ in range(2)]

    assert read == [len(b"a moment ago"), 0]


def _wait_until_after(path: Path) -> None:
    while now_ns() < path.stat().st_ctime_ns + 2 * TICK_NS:
        pass
