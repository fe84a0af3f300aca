"""A storage over a line that breaks now and then: what failed and may succeed later is tried again.

This is the only place that tries again; what a backend raises says whether it is worth it. Pauses double, and a random
part of each keeps many clients from coming back at one moment. Tries and time are bounded. While a storage fails beyond
that bound each call is tried once, so that whoever asks next is not kept waiting, until one is answered.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from typing_extensions import Buffer

from backthen.repository import clock, entropy
from backthen.repository.errors import ObjectExists, StorageError
from backthen.repository.storage.access import RETRY_FOR_S
from backthen.repository.storage.contract import Storage, StoredObject
from backthen.repository.storage.names import CONFIG_NAME, check_folder
from backthen.repository.storage.wrappers.wrapper import StorageWrapper

TRIES_MAX = 24
PAUSE_FIRST_S = 0.5
PAUSE_MAX_S = 20.0
FIRST_ANSWER_FOR_S = 10.0
"""How long a storage that never answered is tried: its address may be wrong."""

_NS_PER_S = 1_000_000_000
_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)


class RetryingStorage(StorageWrapper):
    """A `Storage` over another one. `close` ends pauses: what was begun before is not tried again."""

    def __init__(
        self,
        storage: Storage,
        *,
        retry_for_s: float = RETRY_FOR_S,
        monotonic_ns: Callable[[], int] = clock.monotonic_ns,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
        random_fraction: Callable[[], float] = entropy.random_fraction,
    ) -> None:
        """Try again what fails.

        Args:
            storage: what is asked.
            retry_for_s: seconds after which a call that keeps failing is given up.
            monotonic_ns: the clock.
            wait: pauses for seconds, or until the event happens; whether it did.
            random_fraction: a number from 0 to 1.
        """
        super().__init__(storage)
        self._retry_for_s = retry_for_s
        self._monotonic_ns = monotonic_ns
        self._wait = wait
        self._random_fraction = random_fraction
        self._closed = threading.Event()
        self._patience_s = min(retry_for_s, FIRST_ANSWER_FOR_S)

    def create(self) -> None:
        """See `Storage.create`.

        Raises:
            RepositoryExists: there is a repository.
            InvalidRequest: something else is there.
            StorageError: the storage failed.
        """
        self._call(lambda _: self._storage.create())

    def put(self, name: str, data: Buffer) -> None:
        """See `Storage.put`.

        Raises:
            ObjectExists: the name is taken, and not by a try of this call whose answer was lost.
            StorageError: the storage failed.
        """

        def put(failures: int) -> None:
            try:
                self._storage.put(name, data)
            except ObjectExists:
                if not failures or not self._has(name, data):
                    raise

        self._call(put)

    def put_file(self, name: str, path: Path) -> None:
        """See `Storage.put_file`.

        Raises:
            ObjectExists: the name is taken, and not by a try of this call whose answer was lost.
            StorageError: the storage failed; the file is left.
        """

        def put(failures: int) -> None:
            try:
                self._storage.put_file(name, path)
            except ObjectExists:
                if not failures or name == CONFIG_NAME:
                    raise

        self._call(put)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Storage.get`.

        Raises:
            ObjectMissing: there is no such object.
            StorageError: the storage failed.
        """
        return self._call(lambda _: self._storage.get(name, offset, length))

    def list(self, folder: str) -> Iterator[StoredObject]:
        """See `Storage.list`; one that breaks off begins anew, and shows what it has not shown yet."""
        check_folder(folder)
        return self._list(folder)

    def delete(self, name: str) -> None:
        """See `Storage.delete`.

        Raises:
            StorageError: the storage failed.
        """
        self._call(lambda _: self._storage.delete(name))

    def remove_abandoned_spool(self) -> int:
        """See `Storage.remove_abandoned_spool`.

        Raises:
            StorageError: the storage failed.
        """
        return self._call(lambda _: self._storage.remove_abandoned_spool())

    def close(self) -> None:
        """See `Storage.close`."""
        closed, self._closed = self._closed, threading.Event()
        closed.set()
        self._storage.close()

    def _has(self, name: str, data: Buffer) -> bool:
        """Whether what has the name is what was to be put. All names but one end in the digest of the bytes."""
        wanted = bytes(data)
        return name != CONFIG_NAME or self._storage.get(name, 0, len(wanted) + 1) == wanted

    def _list(self, folder: str) -> Iterator[StoredObject]:
        tries = self._begin()
        shown: set[str] = set()
        while True:
            try:
                for stored in self._storage.list(folder):
                    if stored.name not in shown:
                        shown.add(stored.name)
                        yield stored
            except StorageError as error:
                self._pause(tries, error)
            else:
                self._patience_s = self._retry_for_s
                return

    def _call(self, call: Callable[[int], _Result]) -> _Result:
        """What the call returns; it is told how many tries failed."""
        tries = self._begin()
        while True:
            try:
                result = call(tries.failures)
            except StorageError as error:
                self._pause(tries, error)
            else:
                self._patience_s = self._retry_for_s
                return result

    def _begin(self) -> _Tries:
        return _Tries(self._monotonic_ns(), self._closed)

    def _pause(self, tries: _Tries, error: StorageError) -> None:
        """Wait before the next try.

        Raises:
            StorageError: `error`, where there is to be none.
        """
        if not error.transient:
            self._patience_s = self._retry_for_s  # it answered
            raise error
        tries.failures += 1
        passed_s = (self._monotonic_ns() - tries.begun_ns) / _NS_PER_S
        pause_s = min(PAUSE_FIRST_S * 2 ** (tries.failures - 1), PAUSE_MAX_S) * (1 + self._random_fraction()) / 2
        if tries.closed.is_set():
            raise error
        if tries.failures == TRIES_MAX or passed_s + pause_s > self._patience_s:
            self._patience_s = 0.0
            raise error
        _log.warning("%s; trying again in %.1f s", error, pause_s)
        if self._wait(tries.closed, pause_s):
            raise error


@dataclass(slots=True)
class _Tries:
    """The tries of one call: when the first began, what ends the pauses between them, and how many failed."""

    begun_ns: int
    closed: threading.Event
    failures: int = 0
