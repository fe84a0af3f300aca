"""A bounded memory of things seen lately. Safe to use from several threads without a lock."""

from __future__ import annotations

from typing import Generic, TypeVar

_Value = TypeVar("_Value")


class Recent(Generic[_Value]):
    """Remembers at least the last `count` values that were put, and at most twice as many and a few.

    Two generations: when the young one is full it becomes the old one, and the old one is dropped. Each step is one
    operation on a dict, so threads that meet can lose a value from memory but never see a wrong one.
    """

    __slots__ = ("_count", "_old", "_young")

    def __init__(self, count: int) -> None:
        self._count = count
        self._young: dict[int, _Value] = {}
        self._old: dict[int, _Value] = {}

    def get(self, number: int) -> _Value | None:
        """The value of a number, or None where it is not remembered."""
        found = self._young.get(number)
        return self._old.get(number) if found is None else found

    def put(self, number: int, value: _Value) -> None:
        """Remember a value."""
        self._room()[number] = value

    def put_all(self, values: dict[int, _Value]) -> None:
        """Remember several values at once, far fewer than are remembered in all."""
        self._room().update(values)

    def _room(self) -> dict[int, _Value]:
        if len(self._young) >= self._count:
            self._old = self._young
            self._young = {}
        return self._young
