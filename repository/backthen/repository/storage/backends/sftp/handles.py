"""Which handle a server will give: what is to be done with a file can then be sent along with the request to open it.

OpenSSH numbers what is open in a channel from 0, in four bytes, gives first what was closed last, and works the
requests off in order. The protocol promises none of it, so a foretold handle is a guess. It never names what is known
to be open, and whoever is given another handle than was foretold believes no answer to what was sent along. Pure.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

_HANDLE_BYTES = 4


@dataclass(slots=True)
class Request:
    """What opens or closes something.

    Attributes:
        handle: the one that is closed, or that the server gave; None where it gave none, or has not answered.
        opens: whether it opens.
        is_answered: whether the server has answered.
    """

    handle: bytes | None
    opens: bool
    is_answered: bool = False


class Handles:
    """The handles of one channel, as far as the server has answered, and the requests that it has not answered."""

    def __init__(self) -> None:
        """Nothing is open yet."""
        self._are_numbers = True
        self._free: list[int] = []
        self._given = 0
        self._sent: deque[Request] = deque()

    def foretell(self) -> bytes | None:
        """The handle of what is opened next, if all that was sent succeeds; None where the server numbers otherwise."""
        if not self._are_numbers:
            return None
        free, given = list(self._free), self._given
        for request in self._sent:
            given = _apply(request, free, given)
        return (free[-1] if free else given).to_bytes(_HANDLE_BYTES)

    def opening(self) -> Request:
        """A request that opens something is about to be sent."""
        return self._add(Request(None, opens=True))

    def closing(self, handle: bytes) -> Request:
        """A request that closes something is about to be sent."""
        return self._add(Request(handle, opens=False))

    def answered(self, request: Request, handle: bytes | None) -> None:
        """The server gave or closed a handle, or None."""
        request.handle = handle
        request.is_answered = True
        while self._sent and self._sent[0].is_answered:
            self._settle(self._sent.popleft())

    def give_up(self) -> None:
        """Foretell no more: an answer will never be known."""
        self._are_numbers = False
        self._sent.clear()

    def _add(self, request: Request) -> Request:
        if self._are_numbers:
            self._sent.append(request)
        return request

    def _settle(self, request: Request) -> None:
        if request.handle is None:
            if not request.opens:
                self.give_up()
            return
        expected = (self._free[-1] if self._free else self._given).to_bytes(_HANDLE_BYTES)
        if len(request.handle) != _HANDLE_BYTES or (request.opens and request.handle != expected):
            self.give_up()
            return
        self._given = _apply(request, self._free, self._given)


def _apply(request: Request, free: list[int], given: int) -> int:
    """What a request that succeeds, or failed already, changes: the numbers that are free, and how many were given."""
    if request.opens:
        if request.is_answered and request.handle is None:
            return given
        if not free:
            return given + 1
        free.pop()
    elif request.handle is not None:
        free.append(int.from_bytes(request.handle))
    return given
