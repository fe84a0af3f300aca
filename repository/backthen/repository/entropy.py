"""The only place that draws random bytes."""

from __future__ import annotations

import hashlib
import itertools
import os

from backthen.repository import clock

_counter = itertools.count()


def random_bytes(length: int) -> bytes:
    """Cryptographically strong random bytes from the operating system."""
    return os.urandom(length)


def fresh_salt(content: bytes = b"") -> bytes:
    """A 32-byte salt that differs even when the system's random numbers repeat (FORMAT.md, section 3).

    A cloned virtual machine can repeat its random numbers; process, clocks, a counter and the content do not repeat
    with them.

    Args:
        content: what is known of what will be sealed under the salt.
    """
    parts = hashlib.sha256()
    parts.update(random_bytes(32))
    for number in (os.getpid(), clock.now_ns(), clock.monotonic_ns(), next(_counter)):
        parts.update(number.to_bytes(16, "big", signed=True))
    parts.update(hashlib.sha256(content).digest())
    return parts.digest()


def random_fraction() -> float:
    """A random number, at least 0 and below 1: for what should not happen everywhere at one moment."""
    return int.from_bytes(random_bytes(4), "big") / 2**32
