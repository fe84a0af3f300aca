"""The program, with each request that reaches its mount written down as it comes.

    python -m tests.support.request_log LOG mount --foreground MOUNTPOINT

A line holds the kind of request, what it was about, and how it ended: a number of bytes, the name of an error, or `-`.
The drivers `libfuse3` and `pyfuse3` can be watched so.
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
from backthen.fsmount.adapters import libfuse3
from backthen.fsmount.adapters import pyfuse3 as pyfuse3_adapter
from backthen.fsmount.adapters.fuse_connection import Payload, Refusal, joined
from backthen.fsmount.adapters.fuse_protocol import READING, XATTR, Opcode
from backthen.repository import BlobSource

_SILENT = ("forget", "init", "stacktrace")
"""What is no request that anybody waits for."""
_ENTRY_NUMBER_BYTES = 8
_NO_NUMBER = bytes(_ENTRY_NUMBER_BYTES)
"""Where the answer to a look-up has the number of what was found, this means that there is nothing."""


def counted(log: Path, *, start: int = 0) -> Counter[str]:
    """How many requests of each kind were written down, from a line on."""
    return Counter(line.split(" ", 1)[0] for line in log.read_text().splitlines()[start:])


def _write_down_all(log: int) -> None:
    _write_down_libfuse3(log)
    adapter = pyfuse3_adapter.Adapter
    for name, answer in list(vars(adapter).items()):
        if name in vars(pyfuse3.Operations) and name not in _SILENT and callable(answer):
            setattr(adapter, name, _written_down(name, answer, log))


def _written_down(name: str, answer: Callable[..., Awaitable[object]], log: int) -> Callable[..., Awaitable[object]]:
    @functools.wraps(answer)
    async def written_down(self: pyfuse3_adapter.Adapter, *arguments: object) -> object:
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


def _write_down_libfuse3(log: int) -> None:
    answer = libfuse3.Adapter.answer

    @functools.wraps(answer)
    def written_down(self: libfuse3.Adapter, source: BlobSource, opcode: int, number: int, body: bytes) -> Payload:
        # What is not in memory is asked once more, and written down then.
        try:
            payload = answer(self, source, opcode, number, body)
        except Refusal as refusal:
            _write_line(log, opcode, number, body, errno.errorcode[refusal.number])
            raise
        _write_line(log, opcode, number, body, _end(opcode, payload))
        return payload

    libfuse3.Adapter.answer = written_down  # type: ignore[method-assign]


def _write_line(log: int, opcode: int, number: int, body: bytes, end: str) -> None:
    name = Opcode(opcode).name.lower() if opcode in set(Opcode) else f"opcode-{opcode}"
    if name not in _SILENT:
        os.write(log, f"{name} {number} {_about(opcode, body)} {end}\n".encode())


def _about(opcode: int, body: bytes) -> str:
    if opcode == Opcode.LOOKUP:
        return str(body[:-1])
    if opcode == Opcode.GETXATTR:
        return str(body[XATTR.size : -1])
    if opcode in (Opcode.READ, Opcode.READDIRPLUS):
        _, offset, size = READING.unpack_from(body)
        return f"{offset} {size}"
    return ""


def _end(opcode: int, payload: Payload) -> str:
    if opcode == Opcode.LOOKUP and joined(payload)[:_ENTRY_NUMBER_BYTES] == _NO_NUMBER:
        return "ENOENT"
    return str(len(joined(payload))) if opcode == Opcode.READ else "-"


if __name__ == "__main__":
    _write_down_all(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    sys.exit(run(sys.argv[2:]))
