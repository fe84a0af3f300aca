"""What the main thread of a mount waits for, for adapters that serve in another one."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INITIALISED = 0
"""The kernel has opened the connection."""
ENDED = 255
"""The serving thread ends."""
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_log = logging.getLogger("backthen.fsmount")


class Events:
    """What the main thread waits for: signals that stop a mount, and what the serving thread says.

    All of it goes through one pipe. A signal alone wakes the main thread only if it is the one that gets it, and waits
    already.
    """

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)

    def tell(self, event: int) -> None:
        """Say that something happened: a number below 256 that is not a signal's."""
        os.write(self._writing, bytes((event,)))

    def wait(self) -> int:
        """Wait for what happens next: what was told, or the number of a signal."""
        while (event := os.read(self._reading, 1)[0]) not in (INITIALISED, ENDED, *STOPPING):
            _log.debug("signal %d is not for the mount", event)
        return event

    @contextmanager
    def told_by_signals(self) -> Iterator[None]:
        """Take the signals."""
        kept_descriptor = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        kept = {number: signal.signal(number, _note) for number in STOPPING}
        try:
            yield
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(kept_descriptor)

    def close(self) -> None:
        """Nobody tells anything any more."""
        os.close(self._reading)
        os.close(self._writing)


def _note(number: int, _: FrameType | None) -> None:
    """Python has written the number into the pipe already."""
