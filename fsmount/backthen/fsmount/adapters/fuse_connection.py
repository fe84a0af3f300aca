"""Reads the kernel's requests and writes the answers: at once in the reading thread, or later from a worker thread.

Knows nothing of what is asked and answered.
"""

from __future__ import annotations

import errno
import logging
import os
import select
from collections.abc import Callable
from typing import Protocol

from backthen.fsmount.adapters import fuse_protocol as protocol
from backthen.fsmount.adapters.reports import Reports
from backthen.fsmount.adapters.waiting import Answer, Waiting
from backthen.fsmount.view import REQUEST_DEADLINE_S, View
from backthen.repository import BlobSource, NotInMemory, monotonic_ns

_UNANSWERED = frozenset((protocol.Opcode.FORGET, protocol.Opcode.BATCH_FORGET))
_GONE = frozenset((errno.ENOENT, errno.ENODEV, errno.ENOTCONN, errno.ECONNABORTED))
"""What writing an answer says when nobody waits for it any more."""

_PARTS_MAX = 1024
"""How many pieces one call of writev(2) takes, the header being one of them."""

AWAKE_NS = 50_000
"""How long to look out for the next request before sleeping: being woken up takes longer than most answers."""

_log = logging.getLogger("backthen.fsmount")

Payload = bytes | list[bytes | memoryview]
"""What is answered; long content as the parts that it is in."""


def joined(payload: Payload) -> bytes:
    """A payload in one piece."""
    return payload if isinstance(payload, bytes) else b"".join(payload)


class Refusal(Exception):
    """A request is refused with an error number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Answering(Protocol):
    """Answers requests. Safe to use from several threads."""

    def __call__(self, source: BlobSource, opcode: int, number: int, body: bytes, /) -> Payload:
        """The answer to a request: read from a source, about an inode, with the body of the request.

        Raises:
            Refusal: it is refused.
            NotInMemory: the near source was given, and something that is not in memory is needed.
        """
        ...


class Connection:
    """Reads the kernel's requests and writes the answers."""

    def __init__(
        self,
        descriptor: int,
        view: View,
        answer: Answering,
        prepare: Callable[[], bool],
        *,
        deadline_s: float = REQUEST_DEADLINE_S,
    ) -> None:
        """Take an open connection.

        Args:
            descriptor: of the connection. As answers may come late, it must stay open, if only to nowhere.
            view: what is asked.
            answer: answers a request from a source of the view.
            prepare: called where no request is there; does a little of what requests to come will need, at once, and
                says whether there was anything to do.
            deadline_s: how many seconds a request may take.
        """
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._requests = select.poll()
        self._requests.register(descriptor, select.POLLIN)
        self._awake_ns = 0
        self._awake_max_ns = AWAKE_NS if len(os.sched_getaffinity(0)) > 1 else 0
        self._view = view
        self._near = view.near
        self._source = view.source
        self._answer = answer
        self._prepare = prepare
        self._reports = Reports()
        self._waiting = Waiting(self._give_up, lambda: view.patience_s(deadline_s))

    def serve(self) -> None:
        """Answer requests until the mount is taken away, or the connection is severed.

        Raises:
            OSError: the kernel has given the connection up.
        """
        buffer = bytearray(protocol.REQUEST_BYTES)
        try:
            while length := self._next(buffer):
                self._handle(buffer, length)
        finally:
            self._waiting.close()

    def _next(self, buffer: bytearray) -> int:
        """Read a request; how long it is, or 0 at the end."""
        awake_until_ns = monotonic_ns() + self._awake_ns
        while True:
            try:
                return os.readv(self._descriptor, (buffer,))
            except BlockingIOError:
                if not self._prepare() and monotonic_ns() > awake_until_ns:
                    self._requests.poll()
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return 0
                # ENOENT: who asked was killed before the request could be read.
                if error.errno != errno.ENOENT:
                    raise

    def _handle(self, buffer: bytearray, length: int) -> None:
        _, opcode, request, number, *_ = protocol.REQUEST.unpack_from(buffer)
        if opcode in _UNANSWERED:
            return
        # Whoever reads content in order needs the processors for opening what comes next.
        self._awake_ns = 0 if opcode == protocol.Opcode.READ else self._awake_max_ns
        body = bytes(memoryview(buffer)[protocol.REQUEST.size : length])
        try:
            payload = self._answer(self._near, opcode, number, body)
        except NotInMemory:
            self._waiting.add(request, lambda: self._ask(request, opcode, number, body))
        except Refusal as refusal:
            self._refuse(request, refusal.number)
        else:
            self._reply(request, payload)

    def _ask(self, request: int, opcode: int, number: int, body: bytes) -> Answer:
        try:
            payload = self._answer(self._source, opcode, number, body)
        except Refusal as refusal:
            error = refusal.number
            return lambda: self._refuse(request, error)
        return lambda: self._reply(request, payload)

    def _give_up(self, request: int) -> None:
        self._reports.report(self._view.give_up())
        self._refuse(request, errno.EIO)

    def _reply(self, request: int, payload: Payload) -> None:
        try:
            parts = payload if isinstance(payload, list) and len(payload) < _PARTS_MAX else [joined(payload)]
            os.writev(self._descriptor, (protocol.reply_header(request, sum(map(len, parts))), *parts))
        except OSError as error:
            if error.errno not in _GONE:
                _log.error("the kernel does not take an answer: %s", error)
                self._refuse(request, errno.EIO)

    def _refuse(self, request: int, number: int) -> None:
        try:
            os.write(self._descriptor, protocol.refusal(request, number))
        except OSError as error:
            if error.errno not in _GONE:
                _log.error("the kernel does not take a refusal: %s", error)
