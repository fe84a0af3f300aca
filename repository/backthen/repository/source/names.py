"""The names of a directory in raw byte order, however many there are.

Invariants: at most `NAMES_IN_MEMORY_MAX` names, and one block for each sorted run, are in memory; what is written to a
disk is sealed.
"""

from __future__ import annotations

import heapq
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import IO

from backthen.repository.errors import CacheError
from backthen.repository.private import make_private_folder
from backthen.repository.source.files import reason_of

NAMES_IN_MEMORY_MAX = 100_000
_name_of = attrgetter("name")
_BLOCK_BYTES = 64 * 1024
_LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True)
class Spill:
    """Where names go that memory must not hold, and how they are hidden there.

    Attributes:
        folder: on a local disk; made when it is needed.
        seal_block: hides a block.
        open_block: gives back what `seal_block` hid.
    """

    folder: Path
    seal_block: Callable[[bytes], bytes]
    open_block: Callable[[bytes], bytes]


def sorted_names(directory: int, spill: Spill, *, names_in_memory_max: int = NAMES_IN_MEMORY_MAX) -> Iterator[bytes]:
    """The names in an open directory in ascending order. All of them are read before this returns.

    Raises:
        OSError: the directory cannot be read.
        CacheError: the folder to spill to cannot be used; also while iterating.
    """
    with os.scandir(directory) as entries:
        run = _sorted_run(entries, names_in_memory_max)
        if len(run) < names_in_memory_max:
            return iter(run)
        runs = _SortedRuns(spill)
        try:
            while run:
                runs.add(run)
                run = _sorted_run(entries, names_in_memory_max)
        except BaseException:
            runs.close()
            raise
    return runs.merged()


def _sorted_run(entries: Iterator[os.DirEntry[str]], count_max: int) -> list[bytes]:
    """The next names in order; encoded all at once, which takes a tenth of encoding each. No name holds a NUL."""
    names = list(map(_name_of, islice(entries, count_max)))
    return sorted(os.fsencode("\0".join(names)).split(b"\0")) if names else []


@dataclass(frozen=True, slots=True)
class _Block:
    offset: int
    length: int


class _SortedRuns:
    """Sorted runs of names in an unlinked file."""

    def __init__(self, spill: Spill) -> None:
        self._spill = spill
        self._runs: list[list[_Block]] = []
        self._end = 0
        try:
            make_private_folder(spill.folder)
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=spill.folder, buffering=0)  # noqa: SIM115
        except OSError as error:
            raise self._unusable(error) from error

    def close(self) -> None:
        self._file.close()

    def add(self, names: Iterable[bytes]) -> None:
        blocks: list[_Block] = []
        try:
            for block in _encoded_blocks(names):
                sealed = self._spill.seal_block(block)
                self._file.write(sealed)
                blocks.append(_Block(self._end, len(sealed)))
                self._end += len(sealed)
        except OSError as error:
            raise self._unusable(error) from error
        self._runs.append(blocks)

    def merged(self) -> Iterator[bytes]:
        with self._file:
            yield from heapq.merge(*(self._read_run(blocks) for blocks in self._runs))

    def _read_run(self, blocks: list[_Block]) -> Iterator[bytes]:
        for block in blocks:
            try:
                sealed = os.pread(self._file.fileno(), block.length, block.offset)
            except OSError as error:
                raise self._unusable(error) from error
            yield from _decode_block(self._spill.open_block(sealed))

    def _unusable(self, error: OSError) -> CacheError:
        return CacheError(
            f"{self._spill.folder} cannot be used: {reason_of(error)}", hint="Choose another --cache-dir."
        )


def _encoded_blocks(names: Iterable[bytes]) -> Iterator[bytes]:
    block = bytearray()
    for name in names:
        block += len(name).to_bytes(_LENGTH_BYTES, "big") + name
        if len(block) >= _BLOCK_BYTES:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)


def _decode_block(block: bytes) -> Iterator[bytes]:
    offset = 0
    while offset < len(block):
        start = offset + _LENGTH_BYTES
        offset = start + int.from_bytes(block[offset:start], "big")
        yield block[start:offset]
