"""Keeps the layout up to date with the storage's list of snapshots.

Invariants: the list is read at most once a second, by one thread at a time; whoever asks waits for it a second at most;
a storage that fails or hangs leaves the list as it was.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from backthen.fsmount.view.attributes import Describe, Owner
from backthen.fsmount.view.history import History
from backthen.fsmount.view.layout import Layout, MakeMakers, history_layout
from backthen.fsmount.view.numbers import SnapshotRanges
from backthen.repository import NotInMemory, RepositoryError, SnapshotInfo

REFRESH_INTERVAL_S = 1.0
REFRESH_PATIENCE_S = 1.0
"""How long a request waits for the storage's list before it makes do with the one it has; not at all where the storage
has kept others waiting for as long already."""

_NS_PER_S = 1_000_000_000
_log = logging.getLogger("backthen.fsmount")


class Layouts(Protocol):
    """Where the view gets its layout from. Safe to use from several threads."""

    @property
    def known(self) -> Layout:
        """The layout as it is known; at once."""
        ...

    def current(self, *, wait: bool) -> Layout:
        """A layout that is not older than a second, if the storage answers.

        Raises:
            NotInMemory: `wait` is not set, and the storage would have to be asked.
        """
        ...


class FixedLayout:
    """A layout that never changes."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    @property
    def known(self) -> Layout:
        """The layout."""
        return self._layout

    def current(self, *, wait: bool) -> Layout:
        """The layout."""
        return self._layout


class FollowingLayout:
    """A layout that follows the storage."""

    def __init__(
        self,
        history: History,
        owner: Owner,
        monotonic_ns: Callable[[], int],
        make: MakeMakers,
        describe: Describe,
    ) -> None:
        """Read the list for the first time.

        Args:
            history: what is shown.
            owner: to whom all that is in no snapshot belongs.
            monotonic_ns: a clock.
            make: what makes `at` and `versions` of each layout.
            describe: gives the attributes of the snapshots' entries.

        Raises:
            RepositoryError: it cannot be read.
        """
        self._history = history
        self._owner = owner
        self._describe = describe
        self._monotonic_ns = monotonic_ns
        self._make = make
        self._ranges = SnapshotRanges(history.inode_prf)
        self._lock = threading.Lock()
        self._reading: threading.Event | None = None
        self._started_ns = 0
        self._is_failing = False
        self._checked_ns = monotonic_ns()
        self._shown: object = None
        self._layout = Layout([], {})
        self._show(history.snapshots())

    @property
    def known(self) -> Layout:
        """The layout as it is known; at once."""
        return self._layout

    def current(self, *, wait: bool) -> Layout:
        """A layout that is not older than a second, if the storage answers.

        Raises:
            NotInMemory: `wait` is not set, and the storage would have to be waited for.
        """
        if self._monotonic_ns() - self._checked_ns < REFRESH_INTERVAL_S * _NS_PER_S:
            return self._layout
        # Begun in any case: where nobody is free to wait for it, the next one finds it done.
        done, patience_s = self._start_reading()
        if not wait and patience_s and not done.is_set():
            raise NotInMemory
        done.wait(patience_s)
        return self._layout

    def _start_reading(self) -> tuple[threading.Event, float]:
        with self._lock:
            now_ns = self._monotonic_ns()
            if self._reading is None:
                self._started_ns = now_ns
                self._reading = threading.Event()
                # A daemon: a storage that hangs must not keep the process from ending.
                threading.Thread(target=self._read, args=(self._reading,), name="snapshot list", daemon=True).start()
            silent_since_ns = self._history.storage_state.silent_since_ns
            since_ns = self._started_ns if silent_since_ns is None else min(self._started_ns, silent_since_ns)
            return self._reading, max(REFRESH_PATIENCE_S - (now_ns - since_ns) / _NS_PER_S, 0.0)

    def _read(self, done: threading.Event) -> None:
        try:
            self._show(self._history.snapshots())
            if self._is_failing:
                _log.info("the list of snapshots can be read again")
            self._is_failing = False
        except RepositoryError as error:
            if not self._is_failing:
                _log.warning("the list of snapshots cannot be read, the last one stays: %s", error)
            self._is_failing = True
        except Exception:  # noqa: BLE001 - a bug below must not end the following of the list
            if not self._is_failing:
                _log.exception("the list of snapshots cannot be read, the last one stays")
            self._is_failing = True
        finally:
            self._checked_ns = self._monotonic_ns()
            with self._lock:
                self._reading = None
            done.set()

    def _show(self, infos: Sequence[SnapshotInfo]) -> None:
        shown = tuple((info.id, info.tags) for info in infos)
        if shown == self._shown:
            return
        trees = [(info, self._history.tree(info)) for info in infos]
        prf = self._history.inode_prf
        self._layout = history_layout(trees, self._ranges, prf, self._owner, self._make, self._describe)
        self._shown = shown
