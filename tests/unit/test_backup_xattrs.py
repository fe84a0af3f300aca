"""Extended attributes that cannot be read."""

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
    open_storage,
    read_file,
)
from backthen.repository.backup import entries
from backthen.repository.source import XattrRead

PROBLEM = "extended attribute user.note cannot be read: Input/output error"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    folders = Folders(tmp_path / "cache", tmp_path / "state")
    return create_repository(open_storage(str(tmp_path / "storage")), b"password", folders, Client("h", "u", "p"))


def test_a_file_that_lacks_some_is_read_again_and_named_each_time(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"content")
    os.utime(tree / "file", ns=(0, 0))
    monkeypatch.setattr(entries, "read_xattrs", lambda file: XattrRead((), PROBLEM if isinstance(file, int) else ""))
    for _ in range(2):
        problems: list[tuple[bytes, str]] = []
        listener = Silent()
        monkeypatch.setattr(listener, "problem", lambda *problem, found=problems: found.append(problem))
        request = SnapshotRequest(paths=(os.fsencode(tree),), host="h")
        create_snapshot(repository, request, listener)
        assert (os.fsencode(tree / "file"), PROBLEM) in problems
    snapshot = repository.tree(repository.snapshots()[-1])
    entry = snapshot.resolve(repository.blobs.source, os.fsencode(tree / "file")).entry
    assert (PROBLEM, b"content") == (entry.error, bytes(read_file(repository.blobs.source, entry, 0, 100)))
    repository.close()
