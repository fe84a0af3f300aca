"""The commit code against prunes, forgets and other writers, under random schedules with pauses and kills.

That a loss can be seen at all is shown by writers and pruners whose storage lies to them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import ClassVar

import pytest
from typing_extensions import Buffer

from backthen.repository.storage import StoredObject
from tests.support.commit_world import run_schedule
from tests.support.memory_storage import MemoryStorage
from tests.support.scheduling import Loss, SteppingStorage

SCHEDULES = 1500
SCHEDULES_WEAKENED_MAX = 1500


class HidingMarks(SteppingStorage):
    """Never shows a mark."""

    def list(self, folder: str) -> Iterator[StoredObject]:
        """See `Storage.list`."""
        return iter(()) if folder == "marks" else super().list(folder)


class LookingBeforeTheRoot(SteppingStorage):
    """Shows after the root was put what it showed before, so that the look comes too early."""

    def __init__(self, storage: MemoryStorage, wait: Callable[[], None]) -> None:
        super().__init__(storage, wait)
        self._seen: dict[str, list[StoredObject]] = {}
        self._put: list[StoredObject] = []

    def put(self, name: str, data: Buffer) -> None:
        """See `Storage.put`."""
        if name.startswith("roots/"):
            self._seen = {
                folder: list(super(LookingBeforeTheRoot, self).list(folder)) for folder in ("marks", "roots", "packs")
            }
        super().put(name, data)
        self._put.append(StoredObject(name, len(memoryview(data))))

    def list(self, folder: str) -> Iterator[StoredObject]:
        """See `Storage.list`."""
        if folder in self._seen:
            return (stored for stored in {*self._seen[folder], *self._put} if stored.name.startswith(f"{folder}/"))
        return super().list(folder)


class NotLookingAgain(SteppingStorage):
    """Shows after the log entry was put what it showed before, so that there is no second look."""

    def __init__(self, storage: MemoryStorage, wait: Callable[[], None]) -> None:
        super().__init__(storage, wait)
        self._seen: dict[str, list[StoredObject]] = {}
        self._is_logged = False

    def put(self, name: str, data: Buffer) -> None:
        """See `Storage.put`."""
        super().put(name, data)
        self._is_logged |= name.startswith("log/")

    def list(self, folder: str) -> Iterator[StoredObject]:
        """See `Storage.list`."""
        if not self._is_logged or folder == "log":
            self._seen[folder] = list(super().list(folder))
        return iter(self._seen[folder])


class TrustingLostParents(SteppingStorage):
    """Shows every root that there ever was, so that parents vouch that are gone."""

    def __init__(self, storage: MemoryStorage, wait: Callable[[], None]) -> None:
        super().__init__(storage, wait)
        self._seen: dict[str, StoredObject] = {}

    def list(self, folder: str) -> Iterator[StoredObject]:
        """See `Storage.list`."""
        found = list(super().list(folder))
        if folder != "roots":
            return iter(found)
        self._seen.update((stored.name, stored) for stored in found)
        return iter(list(self._seen.values()))


class EarlyListing(SteppingStorage):
    """Shows of one folder what was there at first, as to a prune that looks at it before it looks at the marks."""

    early: ClassVar[str]

    def __init__(self, storage: MemoryStorage, wait: Callable[[], None]) -> None:
        super().__init__(storage, wait)
        self._seen = list(storage.list(self.early))

    def list(self, folder: str) -> Iterator[StoredObject]:
        """See `Storage.list`."""
        return iter(self._seen) if folder == self.early else super().list(folder)


class EarlyLog(EarlyListing):
    """Does not show what was logged since."""

    early = "log"


class EarlyRoots(EarlyListing):
    """Does not show new roots."""

    early = "roots"


class OwnMarksOnly(SteppingStorage):
    """Shows no marks of others, so that what they condemned counts as there to stay."""

    def __init__(self, storage: MemoryStorage, wait: Callable[[], None]) -> None:
        super().__init__(storage, wait)
        self._own: set[str] = set()

    def put(self, name: str, data: Buffer) -> None:
        """See `Storage.put`."""
        super().put(name, data)
        self._own.add(name)

    def list(self, folder: str) -> Iterator[StoredObject]:
        """See `Storage.list`."""
        found = super().list(folder)
        return found if folder != "marks" else (stored for stored in found if stored.name in self._own)


def test_nothing_reported_is_ever_lost() -> None:
    events: Counter[str] = Counter()
    for seed in range(SCHEDULES):
        events += run_schedule(seed)
    for event in ("reported", "forgotten", "condemned", "bad packs", "lost parents", "roots deleted", "packs deleted"):
        assert events[event] > SCHEDULES / 100, f"too few schedules in which: {event}"


@pytest.mark.parametrize("kind", [HidingMarks, LookingBeforeTheRoot, NotLookingAgain, TrustingLostParents])
def test_a_weaker_look_loses_something(kind: type[SteppingStorage]) -> None:
    with pytest.raises(Loss):
        for seed in range(SCHEDULES_WEAKENED_MAX):
            run_schedule(seed, kind)


@pytest.mark.parametrize("kind", [EarlyLog, EarlyRoots, OwnMarksOnly])
def test_a_prune_that_looks_worse_loses_something(kind: type[SteppingStorage]) -> None:
    with pytest.raises(Loss):
        for seed in range(SCHEDULES_WEAKENED_MAX):
            run_schedule(seed, pruning=kind)


def test_a_schedule_follows_from_its_seed() -> None:
    assert run_schedule(7) == run_schedule(7)
