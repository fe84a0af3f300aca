"""The program, with each request that reaches its mount written down as it comes.

    python -m tests.support.request_log LOG mount --foreground MOUNTPOINT

A line holds the kind of request, what it was about, and how it ended: a number of bytes, the name of an error, or `-`.
"""

from __future__ import annotations

import errno
import functools
import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pyfuse3

from backthen.cli.main import run
from backthen.fsmount.adapters.pyfuse3 import Adapter

_SILENT = ("forget", "init", "stacktrace")
"""What is no request that anybody waits for."""


def counted(log: Path, *, start: int = 0) -> Counter[str]:
    """How many requests of each kind were written down, from a line on."""
    return Counter(line.split(" ", 1)[0] for line in log.read_text().splitlines()[start:])


def _write_down_all(log: int) -> None:
    for name, answer in list(vars(Adapter).items()):
        if name in vars(pyfuse3.Operations) and name not in _SILENT and callable(answer):
            setattr(Adapter, name, _written_down(name, answer, log))


def _written_down(name: str, answer: Callable[..., Awaitable[object]], log: int) -> Callable[..., Awaitable[object]]:
    @functools.wraps(answer)
    async def written_down(self: Adapter, *arguments: object) -> object:
        about = " ".join(str(each) for each in arguments if isinstance(each, int | bytes))
        end = "-"
        try:
            result = await answer(self, *arguments)
            if isinstance(result, bytes | memoryview):
                end = str(len(result))
            elif isinstance(result, pyfuse3.EntryAttributes) and not result.st_ino:
                end = "ENOENT"
            return result
        except pyfuse3.FUSEError as error:
            end = errno.errorcode[error.errno]
            raise
        finally:
            os.write(log, f"{name} {about} {end}\n".encode())

    return written_down


if __name__ == "__main__":
    _write_down_all(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    sys.exit(run(sys.argv[2:]))
