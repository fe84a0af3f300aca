"""Guesses which folder a program that walks a tree opens next. Pure.

Programs walk in one of few ways: into each folder before the next one of the same listing, from the first folder of a
listing to the last or the other way round. Who does something else is not followed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice

FOLDERS_MAX = 2048
"""Folders of one listing that are kept in mind."""
DEPTH_MAX = 32
AHEAD = 4
LISTINGS = 4
"""How many folders of one listing are named ahead of the walk, and from how many listings."""


class Siblings:
    """The folders of one listing that were not opened yet."""

    __slots__ = ("_is_backwards", "_numbers")

    def __init__(self, above: Siblings | None) -> None:
        """None yet; they will be opened in the same direction as the folders of another listing."""
        self._numbers: deque[int] = deque()
        self._is_backwards: bool | None = None if above is None else above._is_backwards

    def add(self, numbers: Iterable[int]) -> None:
        """What comes next in the listing."""
        self._numbers.extend(islice(numbers, max(FOLDERS_MAX - len(self._numbers), 0)))

    def take(self, number: int) -> bool:
        """Whether a folder is the next one from either end; it is taken out."""
        numbers = self._numbers
        if not numbers or number not in (numbers[0], numbers[-1]):
            return False
        # The only one says nothing of the direction.
        if len(numbers) > 1:
            self._is_backwards = number == numbers[-1]
        if number == numbers[0]:
            numbers.popleft()
        else:
            numbers.pop()
        return True

    def next(self) -> Iterator[int]:
        """Those that are opened next, if any; from both ends where nothing is known of the direction."""
        numbers = self._numbers
        for index in range(min(AHEAD, len(numbers))):
            if not self._is_backwards:
                yield numbers[index]
            if self._is_backwards is not False:
                yield numbers[-1 - index]


class Upcoming:
    """Follows one walk by what is listed and opened; of several at once it loses track."""

    def __init__(self) -> None:
        """Nothing was listed yet."""
        self._listings: deque[Siblings] = deque(maxlen=DEPTH_MAX)

    def begin(self) -> Siblings:
        """A folder begins to be listed; what is to be told of the folders in it."""
        siblings = Siblings(self._listings[-1] if self._listings else None)
        self._listings.append(siblings)
        return siblings

    def opened(self, number: int) -> None:
        """A folder is opened. What the walk has left behind is forgotten."""
        while self._listings and not self._listings[-1].take(number):
            self._listings.pop()

    def next(self) -> Iterator[int]:
        """The folders that are opened next, the likeliest first."""
        return chain.from_iterable(siblings.next() for siblings in islice(reversed(self._listings), LISTINGS))
