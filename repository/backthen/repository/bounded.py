"""Bounded memory: a cache that forgets what was used least recently, and a budget of bytes in flight."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class LRUCache(Generic[_Key, _Value]):
    """Values by key, up to a total cost; the least recently used go first. Safe to use from several threads."""

    __slots__ = ("_cost", "_entries", "_lock", "_total", "cost_max")

    def __init__(self, cost_max: int, cost: Callable[[_Value], int] | None = None) -> None:
        """An empty cache.

        Args:
            cost_max: bound of the sum of all costs.
            cost: what a value costs; one each when None.
        """
        self.cost_max = cost_max
        self._cost = cost
        # A plain dict would look for its oldest key among all that were taken out before it.
        self._entries: OrderedDict[_Key, _Value] = OrderedDict()
        self._total = 0
        self._lock = threading.Lock()

    @property
    def cost_total(self) -> int:
        """What is kept now costs so much."""
        return self._total

    def get(self, key: _Key) -> _Value | None:
        """The value, or None; it becomes the most recently used."""
        with self._lock:
            value = self._entries.get(key)
            if value is not None:
                self._entries.move_to_end(key)
            return value

    def __contains__(self, key: _Key) -> bool:
        """Whether the value is there; how recently it was used does not change."""
        return key in self._entries

    def __setitem__(self, key: _Key, value: _Value) -> None:
        """Keep a value; others go to make room."""
        with self._lock:
            old = self._entries.pop(key, None)
            if old is not None:
                self._total -= self._cost_of(old)
            self._entries[key] = value
            self._total += self._cost_of(value)
            while self._total > self.cost_max and len(self._entries) > 1:
                _, oldest = self._entries.popitem(last=False)
                self._total -= self._cost_of(oldest)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._total = 0

    def _cost_of(self, value: _Value) -> int:
        return 1 if self._cost is None else self._cost(value)


class ByteBudget:
    """At most so many bytes in flight; one taker may always go ahead, however much it takes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._changed = threading.Condition()

    def take(self, count: int) -> None:
        """Wait until `count` bytes fit."""
        with self._changed:
            while self._taken and self._taken + count > self._limit:
                self._changed.wait()
            self._taken += count

    def give_back(self, count: int) -> None:
        """Return bytes that were taken."""
        with self._changed:
            self._taken -= count
            self._changed.notify_all()
