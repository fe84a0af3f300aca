"""A folder seen through a file system that can stop to answer, or fail: a disk or server that goes away for a time.

    python -m tests.support.stalling SOURCE MOUNTPOINT

Says `ready` on standard output, then obeys the words on standard input, one a line, and repeats each when it is done:
`answer` (as it does at first), `stall` (no request is answered any more), `fail` (each is answered with EIO). It ends,
and unmounts, with its input. It is read-only, and nothing is kept by the kernel, so every look goes through it.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pyfuse3
import trio
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    FUSEError,
    InodeT,
    ReaddirToken,
    RequestContext,
)


class Stalling(pyfuse3.Operations):
    """Passes requests on to a folder, as long as it is to answer."""

    def __init__(self, source: Path) -> None:
        super().__init__()
        self._paths: dict[int, bytes] = {int(pyfuse3.ROOT_INODE): os.fsencode(source)}
        self._listings: dict[int, list[bytes]] = {}
        self._mode = "answer"
        self._changed = trio.Event()

    def obey(self, mode: str) -> None:
        """Answer from now on as the word says, also those who wait."""
        self._mode = mode
        self._changed.set()
        self._changed = trio.Event()

    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        await self._pass()
        return self._entry(os.path.join(self._paths[parent_inode], name))

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        pass

    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        await self._pass()
        return self._entry(self._paths[inode])

    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        await self._pass()
        handle = FileHandleT(len(self._listings) + 1)
        self._listings[handle] = [os.path.join(self._paths[inode], name) for name in os.listdir(self._paths[inode])]
        return handle

    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        await self._pass()
        for number, path in enumerate(self._listings[fh][start_id:], start=start_id + 1):
            if not pyfuse3.readdir_reply(token, FileNameT(os.path.basename(path)), self._entry(path), number):
                break

    async def releasedir(self, fh: FileHandleT) -> None:
        self._listings[fh] = []

    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        await self._pass()
        return FileInfo(fh=FileHandleT(os.open(self._paths[inode], os.O_RDONLY)), direct_io=True)

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        await self._pass()
        return os.pread(fh, size, off)

    async def release(self, fh: FileHandleT) -> None:
        os.close(fh)

    async def _pass(self) -> None:
        while self._mode == "stall":
            await self._changed.wait()
        if self._mode == "fail":
            raise FUSEError(errno.EIO)

    def _entry(self, path: bytes) -> EntryAttributes:
        try:
            found = os.lstat(path)
        except OSError as error:
            raise FUSEError(error.errno or errno.EIO) from error
        entry = EntryAttributes()
        for name in ("st_ino", "st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_ctime_ns"):
            setattr(entry, name, getattr(found, name))
        entry.entry_timeout = entry.attr_timeout = 0
        self._paths.setdefault(found.st_ino, path)
        return entry


async def _serve(operations: Stalling) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pyfuse3.main)
        print("ready", flush=True)
        descriptor = trio.lowlevel.FdStream(os.dup(0))
        async for words in descriptor:
            for word in words.decode().split():
                operations.obey(word)
                print(word, flush=True)
        nursery.cancel_scope.cancel()


def main(source: str, mountpoint: str) -> None:
    """Mount, and serve until standard input ends."""
    operations = Stalling(Path(source))
    pyfuse3.init(operations, mountpoint, {"fsname=stalling", "ro"})
    try:
        trio.run(_serve, operations)
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
