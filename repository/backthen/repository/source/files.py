"""Reading regular files of the live system: opened without being led elsewhere, holes skipped, changes noticed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

_BLOCK_BYTES = 512
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_ACCESS_TIME = getattr(os, "O_NOATIME", 0)


class Seen(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the kernel said of a file to another process, by the names of `os.stat_result`."""

    st_mode: int
    st_ino: int
    st_dev: int
    st_nlink: int
    st_uid: int
    st_gid: int
    st_size: int
    st_blocks: int
    st_rdev: int
    st_mtime_ns: int
    st_ctime_ns: int


Status = os.stat_result | Seen


class FileReplaced(OSError):
    """A name stands for something else than when it was looked at."""

    def __init__(self) -> None:
        super().__init__(errno.ESTALE, "it was replaced while the folder was read")


class Stretch(NamedTuple):
    """A part of a file that is all data or all hole; offset and length in bytes."""

    offset: int
    length: int
    is_hole: bool


def open_file(directory: int, name: bytes, expected: Status) -> tuple[int, os.stat_result]:
    """Open a regular file in an open directory: (descriptor, what the kernel says of it now). The caller closes it.

    Reading it does not change its access time where that is allowed. A FIFO put in its place does not block.

    Raises:
        FileReplaced: it is not the file that was looked at.
        OSError: it cannot be opened.
    """
    try:
        descriptor = open_quietly(name, directory, _OPEN_FLAGS, expected.st_uid)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise FileReplaced from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or (status.st_ino, status.st_dev) != (expected.st_ino, expected.st_dev):
            raise FileReplaced
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, status


def open_quietly(name: bytes, directory: int | None, flags: int, owner: int) -> int:
    """Open without changing the access time where the owner's number allows that.

    Raises:
        OSError: it cannot be opened.
    """
    user = os.geteuid()
    if user in (0, owner):
        try:
            return os.open(name, flags | _NO_ACCESS_TIME, dir_fd=directory)
        except PermissionError as error:
            if error.errno != errno.EPERM:
                raise
    return os.open(name, flags, dir_fd=directory)


def open_same(name: bytes, directory: int, flags: int, identity: tuple[int, int]) -> int | None:
    """Open a directory in an open one if it is still the one of that device and inode, else None."""
    try:
        descriptor = os.open(name, flags, dir_fd=directory)
    except OSError:
        return None
    status = os.fstat(descriptor)
    if (status.st_dev, status.st_ino) != identity:
        os.close(descriptor)
        return None
    return descriptor


def is_gone(directory: int, name: bytes) -> bool:
    """Whether there is nothing of that name in an open directory."""
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def read_whole(descriptor: int, size: int) -> bytes:
    """The first `size` bytes of a small file, in one call as a rule; fewer when it got shorter.

    Raises:
        OSError: it cannot be read.
    """
    data = os.read(descriptor, size)
    # A read that meets a bad block gives what is before it, and only the next one fails.
    while len(data) < size and (more := os.read(descriptor, size - len(data))):
        data += more
    return data


def is_sparse(status: Status) -> bool:
    """Whether a file takes less room than its length, so that holes must be looked for."""
    return status.st_blocks * _BLOCK_BYTES < status.st_size


def stretches(descriptor: int, status: Status) -> Iterator[Stretch]:
    """The data and holes of an open file up to the size in `status`, in order and without gaps.

    Raises:
        OSError: the file system fails.
    """
    size = status.st_size
    if not is_sparse(status):
        if size:
            yield Stretch(0, size, is_hole=False)
        return
    offset = 0
    while offset < size:
        data = _next_data(descriptor, offset, size)
        if data > offset:
            yield Stretch(offset, data - offset, is_hole=True)
        if data == size:
            return
        offset = _next_hole(descriptor, data, size)
        yield Stretch(data, offset - data, is_hole=False)


def _next_data(descriptor: int, offset: int, size: int) -> int:
    """Where the next data begins, at most `size`. A file system that knows no holes has data everywhere."""
    try:
        return min(os.lseek(descriptor, offset, os.SEEK_DATA), size)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size
        if error.errno == errno.EINVAL:
            return offset
        raise


def _next_hole(descriptor: int, offset: int, size: int) -> int:
    """Where the data at `offset` ends, at most `size`; also where the file got shorter since the data was found."""
    try:
        return min(os.lseek(descriptor, offset, os.SEEK_HOLE), size)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.EINVAL):
            return size
        raise


def reason_of(error: OSError) -> str:
    """What an error of the operating system says, without its number and path."""
    return error.strerror or str(error)


def is_changed(before: Status, after: Status) -> bool:
    """Whether an open file was written to, or its attributes set, between two looks at it."""
    return (before.st_size, before.st_mtime_ns, before.st_ctime_ns) != (
        after.st_size,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )
