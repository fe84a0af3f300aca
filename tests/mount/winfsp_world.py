"""The place where the behaviour suite runs on the adapter for Windows: requests as WinFsp's driver would make them.

They go through winfspy's own functions for C, with C's types, into the adapter. What is in place of WinFsp is
`tests.support.winfsp_binding`, and `Volume` here, which does what its library does before and after a request.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import struct
from typing import NamedTuple

from tests.support.winfsp_binding import (
    REPARSE,
    SUCCESS,
    TAG_SYMLINK,
    Pointer,
    ffi,
    native,
    reparse_tag,
    symlink_target,
)

# isort: split
# Only with the above winfspy can be imported here.
from winfspy import FileSystem

from backthen.fsmount.adapters.windows_names import decode_name, decode_target, encode_name
from backthen.fsmount.adapters.winfspy import Operations
from backthen.fsmount.view import Owner, View, history_view
from backthen.repository import monotonic_ns
from tests.mount.sample import sample_history
from tests.mount.worlds import Limits, Stat

READER = "S-1-5-21-1-2-3-1001"

ATTRIBUTE_DIRECTORY = 0x10
ATTRIBUTE_REPARSE_POINT = 0x400
TAG_NFS = 0x80000014
READ_DATA = 0x1
READ_ATTRIBUTES = 0x80
OPEN_DIRECTORY = 0x1
OPEN_NO_DIRECTORY = 0x40
OPEN_REPARSE_POINT = 0x200000
END_OF_FILE = 0xC0000011
NOT_A_DIRECTORY = 0xC0000103
FILE_IS_A_DIRECTORY = 0xC00000BA

# What the C library of Windows calls them, except for those that it has no name for.
ERRORS = {
    0xC0000034: errno.ENOENT,  # STATUS_OBJECT_NAME_NOT_FOUND
    0xC000003A: errno.ENOENT,  # STATUS_OBJECT_PATH_NOT_FOUND
    0xC000003F: errno.EIO,  # STATUS_CRC_ERROR
    0xC0000098: errno.ESTALE,  # STATUS_FILE_INVALID
    0xC00000A2: errno.EROFS,  # STATUS_MEDIA_WRITE_PROTECTED
    0xC00000E9: errno.EIO,  # STATUS_UNEXPECTED_IO_ERROR
    NOT_A_DIRECTORY: errno.ENOTDIR,
    FILE_IS_A_DIRECTORY: errno.EISDIR,
    0xC0000185: errno.EIO,  # STATUS_IO_DEVICE_ERROR
    0xC0000275: errno.EINVAL,  # STATUS_NOT_A_REPARSE_POINT
    0xC0000280: errno.ELOOP,  # STATUS_REPARSE_POINT_NOT_RESOLVED
    0xC0000467: errno.EIO,  # STATUS_FILE_NOT_AVAILABLE
}
BUFFER_BYTES = 16 * 1024
LISTING_BYTES = 64 * 1024

_EPOCH_FILETIME = 116_444_736_000_000_000
_SPECIAL = {b"FIFO": stat.S_IFIFO, b"SOCK": stat.S_IFSOCK, b"CHR\0": stat.S_IFCHR, b"BLK\0": stat.S_IFBLK}
_ENTRY = re.compile(r"\(A;;(0x[0-9a-f]+);;;([^)]+)\)")


class Record(NamedTuple):
    """A file's record as Windows has it."""

    attributes: int
    tag: int
    allocated: int
    size: int
    written: int
    changed: int
    number: int


class Volume:
    """A volume of the adapter, as WinFsp's driver asks it."""

    def __init__(self, operations: Operations) -> None:
        # Whoever makes it keeps it: the driver knows only its address.
        self._made = FileSystem("X:", operations)
        self.interface = native.interface
        self.file_system = native.file_system

    def open(self, path: str, access: int, options: int = 0) -> tuple[Pointer, Record]:
        """Open what is at a path. Reparse points on the way are resolved, and the last one if nothing else is asked.

        Raises:
            OSError: it is refused.
        """
        attributes = self._resolve(path, options)
        while isinstance(attributes, str):
            path = attributes
            attributes = self._resolve(path, options)
        if options & OPEN_DIRECTORY and not attributes & ATTRIBUTE_DIRECTORY:
            _check(NOT_A_DIRECTORY)
        if options & OPEN_NO_DIRECTORY and attributes & ATTRIBUTE_DIRECTORY:
            _check(FILE_IS_A_DIRECTORY)
        p_context, info = ffi.new("PVOID *"), ffi.new("FSP_FSCTL_FILE_INFO *")
        _check(self.interface.Open(self.file_system, path, options, access, p_context, info))
        return p_context[0], _record(info)

    def close(self, context: Pointer) -> None:
        """It is not used any more."""
        self.interface.Cleanup(self.file_system, context, ffi.NULL, 0)
        self.interface.Close(self.file_system, context)

    def security(self, path: str) -> tuple[int, int, str]:
        """What is asked by name: status, file attributes, security descriptor."""
        p_attributes, p_size = ffi.new("UINT32 *"), ffi.new("SIZE_T *", 8)
        status, descriptor = 0x80000005, ffi.new("char[]", 8)
        while status == 0x80000005:  # STATUS_BUFFER_OVERFLOW: once more, with as much as it takes
            descriptor = ffi.new("char[]", p_size[0])
            handle = ffi.cast("PSECURITY_DESCRIPTOR", descriptor)
            status = self.interface.GetSecurityByName(self.file_system, path, p_attributes, handle, p_size)
        text = bytes(ffi.buffer(descriptor, p_size[0])).decode() if status == SUCCESS else ""
        return status, p_attributes[0], text

    def descriptor(self, context: Pointer) -> str:
        """The security descriptor of what is open."""
        buffer, p_size = ffi.new("char[]", BUFFER_BYTES), ffi.new("SIZE_T *", BUFFER_BYTES)
        handle = ffi.cast("PSECURITY_DESCRIPTOR", buffer)
        _check(self.interface.GetSecurity(self.file_system, context, handle, p_size))
        return bytes(ffi.buffer(buffer, p_size[0])).decode()

    def reparse_data(self, context: Pointer, path: str) -> bytes:
        """The reparse data of what is open."""
        buffer, p_size = ffi.new("char[]", BUFFER_BYTES), ffi.new("SIZE_T *", BUFFER_BYTES)
        _check(self.interface.GetReparsePoint(self.file_system, context, path, buffer, p_size))
        return bytes(ffi.buffer(buffer, p_size[0]))

    def list(self, context: Pointer, marker: str | None, length: int) -> tuple[list[tuple[str, Record]], bool]:
        """Entries after a name, as many as fit into a buffer, and whether these were the last."""
        buffer, p_used = ffi.new("char[]", length), ffi.new("ULONG *")
        after = ffi.NULL if marker is None else marker
        _check(self.interface.ReadDirectory(self.file_system, context, ffi.NULL, after, buffer, length, p_used))
        entries: list[tuple[str, Record]] = []
        start = 0
        while start < p_used[0]:
            info = ffi.cast("FSP_FSCTL_DIR_INFO *", buffer + start)
            if info.Size == 0:
                return entries, True
            name_bytes = info.Size - ffi.sizeof("FSP_FSCTL_DIR_INFO")
            name = bytes(ffi.buffer(info.FileNameBuf, name_bytes)).decode("utf-16-le", errors="surrogatepass")
            entries.append((name, _record(info.FileInfo)))
            start = -(-(start + info.Size) // 8) * 8
        return entries, False

    def _resolve(self, path: str, options: int) -> int | str:
        status, attributes, _ = self.security(path)
        is_last = status == SUCCESS and attributes & ATTRIBUTE_REPARSE_POINT
        follow = not options & OPEN_REPARSE_POINT
        if status != REPARSE and not (is_last and follow):
            _check(status)
            return attributes
        io_status = ffi.new("IO_STATUS_BLOCK *")
        buffer, p_size = ffi.new("char[]", BUFFER_BYTES), ffi.new("SIZE_T *", BUFFER_BYTES)
        _check(self.interface.ResolveReparsePoints(self.file_system, path, 0, follow, io_status, buffer, p_size))
        data = bytes(ffi.buffer(buffer, p_size[0]))
        if reparse_tag(data) != TAG_SYMLINK:
            raise OSError(errno.ENXIO, f"{path} cannot be opened")
        return symlink_target(data)[0]


class WinFspWorld:
    """The sample history under winfspy. Others are let in, so that all permissions can be seen."""

    limits = Limits(
        # Windows has no set-user-ID, set-group-ID and sticky bits; and nobody may write to a read-only volume.
        permissions=0o555,
        # A FILETIME counts 100 ns.
        time_ns=100,
        # WinFsp leaves the number of links to be zero.
        has_link_counts=False,
        # winfspy does not hand through extended attributes.
        has_xattrs=False,
    )

    def __init__(self, view: View | None = None) -> None:
        self.view = view or history_view(sample_history()[0], Owner(os.getuid(), os.getgid()), monotonic_ns)
        self.volume = Volume(Operations(self.view, reader=READER, allow_other=True))

    def names(self, path: bytes) -> list[bytes]:
        context, _ = self.volume.open(_path(path), READ_DATA, OPEN_DIRECTORY)
        names: list[str] = []
        is_end = False
        while not is_end:
            entries, is_end = self.volume.list(context, names[-1] if names else None, LISTING_BYTES)
            names += [name for name, _ in entries]
        self.volume.close(context)
        if path.strip(b"/"):
            assert names[:2] == [".", ".."]
            names = names[2:]
        return [decode_name(name) for name in names]

    def lstat(self, path: bytes) -> Stat:
        shown = _path(path)
        context, record = self.volume.open(shown, READ_ATTRIBUTES, OPEN_REPARSE_POINT)
        kind, device = self._kind(context, shown, record)
        uid, gid, permissions = _owner_and_permissions(self.volume.descriptor(context))
        self.volume.close(context)
        return Stat(
            record.number,
            kind | permissions,
            0,
            uid,
            gid,
            record.size,
            record.allocated // 512,
            (record.written - _EPOCH_FILETIME) * 100,
            (record.changed - _EPOCH_FILETIME) * 100,
            device,
        )

    def read(self, path: bytes, offset: int, length: int) -> bytes:
        context, _ = self.volume.open(_path(path), READ_DATA, OPEN_NO_DIRECTORY)
        buffer, p_read = ffi.new("char[]", length), ffi.new("ULONG *")
        try:
            status = self.volume.interface.Read(self.volume.file_system, context, buffer, offset, length, p_read)
            if status != END_OF_FILE:
                _check(status)
            return bytes(ffi.buffer(buffer, p_read[0]))
        finally:
            self.volume.close(context)

    def target(self, path: bytes) -> bytes:
        context, _ = self.volume.open(_path(path), READ_ATTRIBUTES, OPEN_REPARSE_POINT)
        target, is_relative = symlink_target(self.volume.reparse_data(context, _path(path)))
        self.volume.close(context)
        assert is_relative
        return decode_target(target)

    def xattrs(self, path: bytes) -> dict[bytes, bytes]:
        raise NotImplementedError

    def xattr(self, path: bytes, name: bytes) -> bytes:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing to do."""

    def _kind(self, context: Pointer, path: str, record: Record) -> tuple[int, tuple[int, int]]:
        if not record.attributes & ATTRIBUTE_REPARSE_POINT:
            assert record.tag == 0
            return stat.S_IFDIR if record.attributes & ATTRIBUTE_DIRECTORY else stat.S_IFREG, (0, 0)
        data = self.volume.reparse_data(context, path)
        assert reparse_tag(data) == record.tag
        if record.tag == TAG_SYMLINK:
            return stat.S_IFLNK, (0, 0)
        assert record.tag == TAG_NFS
        kind = _SPECIAL[data[8:12]]
        return kind, struct.unpack("<II", data[16:]) if kind in (stat.S_IFCHR, stat.S_IFBLK) else (0, 0)


def _path(path: bytes) -> str:
    return "\\" + "\\".join(encode_name(name) for name in path.split(b"/") if name)


def _check(status: int) -> None:
    if status not in (SUCCESS, REPARSE):
        raise OSError(ERRORS[status], f"{status:#010x}")


def _record(info: Pointer) -> Record:
    return Record(
        info.FileAttributes,
        info.ReparseTag,
        info.AllocationSize,
        info.FileSize,
        info.LastWriteTime,
        info.ChangeTime,
        info.IndexNumber,
    )


def _owner_and_permissions(descriptor: str) -> tuple[int, int, int]:
    owner = re.match(r"O:S-1-22-1-(\d+)G:S-1-22-2-(\d+)D:P", descriptor)
    assert owner is not None
    uid, gid = int(owner[1]), int(owner[2])
    classes = {f"S-1-22-1-{uid}": 6, f"S-1-22-2-{gid}": 3, "WD": 0}
    permissions = 0
    for rights, sid in _ENTRY.findall(descriptor):
        # FILE_READ_DATA and FILE_EXECUTE; nobody may write.
        allowed = (4 if int(rights, 16) & 0x1 else 0) | (1 if int(rights, 16) & 0x20 else 0)
        if sid in classes:
            permissions |= allowed << classes[sid]
    return uid, gid, permissions
