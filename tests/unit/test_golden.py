"""`tests/vectors/repository-v1/`: a repository of format 1, made by the real program, is readable for ever."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backthen.repository import (
    CheckRequest,
    Client,
    Folders,
    Repository,
    RestoreRequest,
    Silent,
    check_repository,
    find_repository,
    open_storage,
    restore_tree,
    unlock,
)
from tests.support.manifest import manifest
from tests.vectors import make_repository

EXPECTED: dict[str, Any] = json.loads(make_repository.EXPECTED.read_text(encoding="ascii"))


def _open(folder: Path, password: bytes) -> Repository:
    """A copy of it, because using a repository may tidy it up."""
    location = folder / "repository"
    shutil.copytree(make_repository.REPOSITORY, location)
    folders = Folders(folder / "cache", folder / "state")
    return unlock(find_repository(open_storage(str(location)), folders), password, Client("host", "user", "program"))


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with _open(tmp_path, b"golden") as repository:
        yield repository


def test_every_object_is_sound(repository: Repository) -> None:
    report = check_repository(repository, CheckRequest(read_data_percent=100), Silent())

    assert (report.findings, report.snapshots) == ([], 2)
    assert report.packs > 2


def test_snapshots_say_what_they_are(repository: Repository) -> None:
    infos = repository.snapshots()

    assert [each["id"] for each in EXPECTED["snapshots"]] == [info.id.hex() for info in infos]
    assert [each["tags"] for each in EXPECTED["snapshots"]] == [list(info.tags) for info in infos]
    assert {("golden", "golden", (os.fsencode(EXPECTED["path"]),))} == {
        (info.root.host, info.root.user, info.root.paths) for info in infos
    }
    assert [(), (infos[0].id,)] == [info.root.parents for info in infos]


@pytest.mark.parametrize("number", [0, 1])
def test_snapshot_is_restored_as_it_was(repository: Repository, tmp_path: Path, number: int) -> None:
    tree = repository.tree(repository.snapshots()[number])
    target = tmp_path / "restored"
    path = os.fsencode(EXPECTED["path"])
    report = restore_tree(repository.blobs.source, tree, path, RestoreRequest(target), Silent())

    assert report.problems == 0
    assert EXPECTED["snapshots"][number]["entries"] == manifest(target)


def test_second_password_opens_it(tmp_path: Path) -> None:
    with _open(tmp_path, b"golden too") as repository:
        assert len(repository.snapshots()) == 2
