"""What is counted beforehand is what a snapshot then goes through."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backthen.cli.counting import counted
from backthen.cli.progress import ConsoleReporter
from backthen.repository import (
    Client,
    ExclusionRules,
    Folders,
    PathNotFound,
    Repository,
    Silent,
    SnapshotRequest,
    SourceAmount,
    count_source,
    create_repository,
    create_snapshot,
    open_storage,
)
from tests.support.sample_tree import make_sample_tree


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    """A repository inside of what is saved."""
    folders = Folders(cache=tmp_path / "saved" / "cache", state=tmp_path / "state")
    storage = open_storage(str(tmp_path / "saved" / "repository"))
    (tmp_path / "saved").mkdir()
    with create_repository(storage, b"password", folders, Client("host", "user", "test")) as made:
        yield made


@pytest.mark.parametrize("patterns", [(), ("*.txt",), ("below/",)])
def test_the_count_is_what_the_snapshot_goes_through(
    repository: Repository, tmp_path: Path, patterns: tuple[str, ...]
) -> None:
    (tmp_path / "saved" / "tree").mkdir()
    make_sample_tree(tmp_path / "saved" / "tree", as_root=False)
    paths = (os.fsencode(tmp_path / "saved"),)
    request = SnapshotRequest(paths=paths, host="host", rules=ExclusionRules(patterns=patterns))
    amount = count_source(repository, request, lambda: True)
    statistics = create_snapshot(repository, request, Silent()).statistics
    assert amount is not None
    assert statistics.files == amount.files > 3
    assert amount.size >= statistics.size > 0


def test_nothing_is_counted_for_nobody(repository: Repository, tmp_path: Path) -> None:
    request = SnapshotRequest(paths=(os.fsencode(tmp_path),), host="host")
    assert count_source(repository, request, lambda: False) is None


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backthen.cli.counting.QUIET_AT_FIRST_S", 0)


@pytest.mark.usefixtures("at_once")
def test_somebody_who_watches_is_told() -> None:
    listener, told = ConsoleReporter(draws=True), threading.Event()

    def count(_is_wanted: object) -> SourceAmount:
        told.set()
        return SourceAmount(3, 4000)

    with counted(listener, count):
        told.wait()
    assert not listener.lacks_totals


@pytest.mark.usefixtures("at_once")
def test_counting_ends_with_the_work_and_its_errors_are_left_to_that() -> None:
    listener, begun = ConsoleReporter(draws=True), threading.Event()

    def count(is_wanted: object) -> SourceAmount:
        begun.set()
        assert callable(is_wanted)
        while is_wanted():
            threading.Event().wait(0.001)
        raise PathNotFound("it is gone")

    with counted(listener, count):
        begun.wait()
    assert listener.lacks_totals
    assert "count" not in {thread.name for thread in threading.enumerate()}


def test_nothing_is_started_where_nobody_watches() -> None:
    with counted(ConsoleReporter(draws=False), lambda _: None):
        assert "count" not in {thread.name for thread in threading.enumerate()}
