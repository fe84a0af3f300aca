"""A storage that refuses any one request of a prune: nothing that is needed is gone, and the next prune finishes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from backthen.repository import CheckRequest, Silent, StorageError, check_repository, prune_repository
from tests.support.prune_world import PruneWorld, forget, save
from tests.support.scheduling import SteppingStorage

SNAPSHOTS = 4
REQUESTS_MIN = 30


class _Refusing:
    """Refuses one request, the `number`th, and counts all."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.count = 0

    def __call__(self) -> None:
        self.count += 1
        if self.count == self._number:
            raise StorageError("the line is broken")


@pytest.fixture
def world(tmp_path: Path) -> PruneWorld:
    """Some snapshots of machines that have saved much of the same; two are forgotten."""
    made = PruneWorld(random.Random(11), tmp_path)
    for _ in range(SNAPSHOTS):
        save(made, made.rng, SteppingStorage(made.storage, lambda: None))
    for _ in range(2):
        forget(made, made.rng, SteppingStorage(made.storage, lambda: None))
    return made


def test_a_prune_that_is_refused_something_loses_nothing(world: PruneWorld) -> None:
    before = dict(world.storage._objects)
    number, count = 0, REQUESTS_MIN
    while number < count:
        number += 1
        world.storage._objects = dict(before)
        refusing = _Refusing(number)
        with world.machine(SteppingStorage(world.storage, refusing)) as (repository, _):
            try:
                prune_repository(repository, Silent(), dry_run=False)
            except StorageError:
                pass
            else:
                count = refusing.count  # it came to its end; what was refused did not matter, or was not asked for
        world.check()
        with world.machine(world.storage) as (repository, _):
            prune_repository(repository, Silent(), dry_run=False)
            assert [] == check_repository(repository, CheckRequest(read_data_percent=100), Silent()).findings
            assert SNAPSHOTS - 2 == len(repository.snapshots())
            assert [] == list(repository.storage.list("marks"))
        count = max(count, refusing.count)
    assert number >= REQUESTS_MIN


def test_a_dry_run_puts_and_deletes_nothing(world: PruneWorld) -> None:
    before = dict(world.storage._objects)
    with world.machine(world.storage) as (repository, _):
        report = prune_repository(repository, Silent(), dry_run=True)
    assert before == world.storage._objects
    assert 2 == len(report.forgotten)
    assert report.packs
