"""Processes that take one step at a time, under a scheduler that may pause or kill each anywhere.

A process is real code in a thread that waits for the scheduler before every storage operation, or a generator.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from typing_extensions import Buffer

from backthen.repository.errors import DamageError
from backthen.repository.storage import Storage, StoredObject
from backthen.repository.storage.wrappers.wrapper import StorageWrapper
from tests.support.memory_storage import MemoryStorage

PROCESSES_MAX = 6
_THREADS_MAX = 100


class Scheduled(Protocol):
    """What processes work on."""

    rng: random.Random
    storage: Any


class Killed(BaseException):
    """The process was killed."""


class SteppingStorage(StorageWrapper):
    """A storage whose every operation but `put_file` waits for the scheduler."""

    def __init__(self, storage: Storage, wait: Callable[[], None]) -> None:
        super().__init__(storage)
        self.wait = wait

    def create(self) -> None:
        """See `Storage.create`."""
        self._storage.create()

    def put(self, name: str, data: Buffer) -> None:
        """See `Storage.put`."""
        self.wait()
        self._storage.put(name, data)

    def put_file(self, name: str, path: Path) -> None:
        """See `Storage.put_file`."""
        self._storage.put_file(name, path)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Storage.get`."""
        self.wait()
        return self._storage.get(name, offset, length)

    def list(self, folder: str) -> Iterator[StoredObject]:
        """See `Storage.list`."""
        self.wait()
        return self._storage.list(folder)

    def delete(self, name: str) -> None:
        """See `Storage.delete`."""
        self.wait()
        self._storage.delete(name)

    def remove_abandoned_spool(self) -> int:
        """See `Storage.remove_abandoned_spool`."""
        return self._storage.remove_abandoned_spool()

    def close(self) -> None:
        """See `Storage.close`."""
        self._storage.close()


class Loss(Exception):
    """Something that was reported as saved is gone."""


class Watched(Protocol):
    """A world in which something can be lost."""

    events: Counter[str]

    def check(self) -> None:
        """Stop at a loss.

        Raises:
            Loss: something is gone.
        """
        ...


class WatchedStorage(MemoryStorage):
    """Looks for a loss after every deletion: nothing else can lose something that was there when it was reported."""

    def __init__(self, world: Watched) -> None:
        super().__init__()
        self._world = world

    def delete(self, name: str) -> None:
        """See `Storage.delete`.

        Raises:
            Loss: something is gone.
        """
        self._world.events[f"{name.partition('/')[0]} deleted"] += 1
        super().delete(name)
        self._world.check()


class RealProcess:
    """The real code in a thread; takes one step at a time."""

    def __init__(
        self, world: Scheduled, kind: type[SteppingStorage], work: Callable[[Any, random.Random, SteppingStorage], None]
    ) -> None:
        self._work = work
        self._go = threading.Semaphore(0)
        self._paused = threading.Semaphore(0)
        self._is_killed = False
        self._failure: BaseException | None = None
        self._is_done = False
        self._rng = random.Random(world.rng.random())
        self._storage = kind(world.storage, self._wait)
        self._world = world
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._paused.acquire()

    def step(self) -> bool:
        """Let it take one step; whether it goes on after that."""
        self._go.release()
        self._paused.acquire()
        if self._failure is not None:
            raise self._failure
        if self._is_done:
            self._thread.join()
        return not self._is_done

    def kill(self) -> None:
        """Stop it where it is."""
        self._is_killed = True
        self._go.release(_THREADS_MAX)  # of threads of its own, each may be waiting
        self._thread.join()

    def _wait(self) -> None:
        self._paused.release()
        self._go.acquire()
        if self._is_killed:
            raise Killed

    def _run(self) -> None:
        try:
            self._wait()
            self._work(self._world, self._rng, self._storage)
        except Killed:
            pass
        except DamageError as error:
            # A storage that lies shows what is gone; that is noticed, and nothing is reported.
            self._failure = error if type(self._storage) is SteppingStorage else None
        except BaseException as error:  # noqa: BLE001 - `step` raises it where the test runs
            self._failure = error
        self._is_done = True
        self._paused.release()


class GeneratorProcess:
    """A process written as a generator."""

    def __init__(self, steps: Iterator[None]) -> None:
        self._steps = steps

    def step(self) -> bool:
        """Take one step; whether it goes on after that."""
        return next(self._steps, StopIteration) is None

    def kill(self) -> None:
        """Stop it where it is."""


class Process(Protocol):
    """Something that takes one step at a time."""

    def step(self) -> bool:
        """Take one step; whether it goes on after that."""
        ...

    def kill(self) -> None:
        """Stop it where it is."""
        ...


def run_processes(
    rng: random.Random, starts: Sequence[Callable[[], Process]], weights: Sequence[int], steps: int
) -> None:
    """Start processes, let them take steps, pause and kill them, all at random."""
    running: list[tuple[Process, float]] = []
    try:
        for _ in range(steps):
            if len(running) < PROCESSES_MAX and rng.random() < 0.25:
                running.append((rng.choices(starts, weights)[0](), 1.0))
            if not running:
                continue
            at = rng.choices(range(len(running)), [speed for _, speed in running])[0]
            process, speed = running.pop(at)
            if rng.random() < 0.004:
                process.kill()
                continue
            if rng.random() < 0.08:
                speed = rng.choice([0.01, 1.0, 5.0])  # goes to sleep or wakes
            if process.step():
                running.append((process, speed))
    finally:
        for process, _ in running:
            process.kill()
