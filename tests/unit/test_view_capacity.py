"""What the storage holds, as somebody hears who asks again and again."""

from __future__ import annotations

import logging
import threading

import pytest

from backthen.fsmount.view import capacity
from backthen.fsmount.view.capacity import REFRESH_INTERVAL_S, StoredBytes
from backthen.repository import NotInMemory, StorageError
from tests.support.history import NS

WAIT_S = 20


class Storage:
    """Counts how often it is asked, and how much it holds by it; waits, or fails, when told to."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.asked = 0
        self.gate = threading.Event()
        self.gate.set()
        self.answered = threading.Semaphore(0)
        self.is_failing = False
        self.stored = StoredBytes(self._count, lambda: self.now_ns)

    def _count(self) -> int:
        self.asked += 1
        count = self.asked * 1000
        self.answered.release()
        self.gate.wait()
        if self.is_failing:
            raise StorageError("unplugged")
        return count

    def pass_time(self) -> None:
        self.now_ns += int(REFRESH_INTERVAL_S * NS) + 1

    def wait_for_figure(self, figure: int) -> None:
        """Ask until the figure is there."""
        while self.stored.get(wait=True) != figure:
            assert self.asked <= 2


@pytest.fixture
def storage() -> Storage:
    return Storage()


def test_figure_is_kept_for_a_while(storage: Storage) -> None:
    assert [storage.stored.get(wait=True) for _ in range(3)] == [1000] * 3
    assert storage.stored.get(wait=False) == 1000
    assert storage.asked == 1


def test_nobody_waits_for_a_newer_figure(storage: Storage) -> None:
    storage.stored.get(wait=True)
    storage.pass_time()
    storage.gate.clear()

    assert [storage.stored.get(wait=is_waiting) for is_waiting in (False, True, False)] == [1000] * 3
    assert storage.answered.acquire(timeout=WAIT_S) and storage.answered.acquire(timeout=WAIT_S)
    assert storage.asked == 2
    storage.gate.set()
    storage.wait_for_figure(2000)


def test_first_figure_is_not_waited_for_where_that_is_not_allowed(storage: Storage) -> None:
    with pytest.raises(NotInMemory):
        storage.stored.get(wait=False)
    assert storage.asked == 0


def test_storage_that_hangs_gives_nothing_for_a_figure(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "PATIENCE_S", 0.01)
    storage.gate.clear()

    assert [storage.stored.get(wait=True) for _ in range(3)] == [0] * 3
    assert storage.asked == 1
    storage.gate.set()
    storage.wait_for_figure(1000)


def test_storage_that_fails_leaves_the_last_figure(storage: Storage, caplog: pytest.LogCaptureFixture) -> None:
    storage.stored.get(wait=True)
    storage.pass_time()
    storage.is_failing = True
    storage.stored.get(wait=True)
    assert storage.answered.acquire(timeout=WAIT_S) and storage.answered.acquire(timeout=WAIT_S)

    assert storage.stored.get(wait=True) == 1000
    for thread in threading.enumerate():
        if thread.name == "stored bytes":
            thread.join(WAIT_S)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "it cannot be found out how much the storage holds: unplugged"
    ]
