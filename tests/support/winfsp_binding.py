"""winfspy's real Python part, importable without Windows: what is native below it is replaced.

Importing this module puts winfspy, as ci/setup has unpacked it, where it can be imported. The declarations of WinFsp's
interface are the ones that winfspy is built with; `Native` does what WinFsp's library does, as far as it is called.
Nothing in here knows Backthen.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import cffi

FOLDER = Path(sys.prefix) / "winfspy"

SUCCESS = 0
REPARSE = 0x104
OBJECT_NAME_NOT_FOUND = 0xC0000034
OBJECT_PATH_NOT_FOUND = 0xC000003A
NOT_A_REPARSE_POINT = 0xC0000275
REPARSE_POINT_NOT_RESOLVED = 0xC0000280

TAG_SYMLINK = 0xA000000C
_LINKS_MAX = 32
_REPARSE_BYTES_MAX = 16 * 1024

# What <windows.h> declares, in the sizes of 64-bit Windows.
_WINDOWS = """
typedef void VOID; typedef void *PVOID; typedef void *HANDLE; typedef void *HLOCAL;
typedef int BOOL; typedef BOOL *LPBOOL; typedef uint8_t BOOLEAN; typedef BOOLEAN *PBOOLEAN;
typedef uint8_t UINT8; typedef uint8_t *PUCHAR; typedef uint16_t WORD; typedef uint16_t UINT16;
typedef uint32_t UINT32; typedef UINT32 *PUINT32; typedef uint32_t ULONG; typedef ULONG *PULONG;
typedef uint32_t DWORD; typedef DWORD *LPDWORD; typedef uint64_t UINT64;
typedef uint64_t SIZE_T; typedef SIZE_T *PSIZE_T;
typedef char16_t WCHAR; typedef WCHAR *PWSTR; typedef WCHAR *LPWSTR; typedef const WCHAR *LPCWSTR;
"""
# Sizes that winfspy leaves to the compiler; <winfsp/fsctl.h> and <winfsp/winfsp.h> have them.
_SIZES = {"Prefix": 192, "FileSystemName": 16, "VolumeName": 260, "Operations": 22, "ServiceName": 1}

_CONSTANTS: dict[str, int | str] = {
    "FILE_DIRECTORY_FILE": 0x1,
    "FILE_WRITE_THROUGH": 0x2,
    "FILE_SEQUENTIAL_ONLY": 0x4,
    "FILE_NO_INTERMEDIATE_BUFFERING": 0x8,
    "FILE_SYNCHRONOUS_IO_ALERT": 0x10,
    "FILE_SYNCHRONOUS_IO_NONALERT": 0x20,
    "FILE_NON_DIRECTORY_FILE": 0x40,
    "FILE_CREATE_TREE_CONNECTION": 0x80,
    "FILE_COMPLETE_IF_OPLOCKED": 0x100,
    "FILE_NO_EA_KNOWLEDGE": 0x200,
    "FILE_RANDOM_ACCESS": 0x800,
    "FILE_DELETE_ON_CLOSE": 0x1000,
    "FILE_OPEN_BY_FILE_ID": 0x2000,
    "FILE_OPEN_FOR_BACKUP_INTENT": 0x4000,
    "FILE_OPEN_REQUIRING_OPLOCK": 0x10000,
    "FILE_RESERVE_OPFILTER": 0x100000,
    "FILE_OPEN_REPARSE_POINT": 0x200000,
    "FILE_ATTRIBUTE_INVALID_FILE_ATTRIBUTES": 0xFFFFFFFF,
    "STRING_SECURITY_DESCRIPTOR_REVISION": 1,
    "FSP_FSCTL_DISK_DEVICE_NAME": "WinFsp.Disk",
    "FSP_FSCTL_NET_DEVICE_NAME": "WinFsp.Net",
}

_Function = TypeVar("_Function", bound=Callable[..., object])
Pointer = Any


def _declarations() -> str:
    """winfspy's declarations as cffi takes them without a compiler: every structure whole, and of a known size."""
    text = (FOLDER / "winfsp.cdef.h").read_text()
    # As winfspy does: it does not know which version of WinFsp will be there.
    text = re.sub(r"(?ms)^#if WINFSP_VERSION.*?^#endif", "", text)
    text = re.sub(r"(?m)^\s*\.\.\.;", "uint64_t opaque[4];", text)
    return re.sub(r"(\w+)\[\];", lambda match: f"{match[1]}[{_SIZES.get(match[1], '')}];", text)


class Native:
    """What winfspy calls `lib`.

    Attributes:
        interface: the functions of the file system that was made last.
        file_system: it.
        parameters: what it says of its volume.
        calls: what was done with it, in order.
    """

    def __init__(self, ffi: cffi.FFI) -> None:
        self._ffi = ffi
        self._allocated: dict[Pointer, object] = {}
        self.interface: Pointer = None
        self.file_system: Pointer = None
        self.parameters: dict[str, int | str] = {}
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> int | str:
        try:
            return _CONSTANTS[name.removeprefix("WFSPY_")]
        except KeyError:
            raise AttributeError(name) from None

    def wcslen(self, text: Pointer) -> int:
        return len(self._ffi.string(text).encode("utf-16-le")) // 2

    def ConvertStringSecurityDescriptorToSecurityDescriptorW(  # noqa: N802
        self, text: str, revision: int, p_descriptor: Pointer, p_size: Pointer
    ) -> int:
        """Here a descriptor is its string."""
        data = text.encode()
        memory = self._ffi.new("char[]", data)
        p_descriptor[0] = self._ffi.cast("SECURITY_DESCRIPTOR *", memory)
        p_size[0] = len(data)
        self._allocated[p_descriptor[0]] = memory
        return 1

    def LocalFree(self, handle: Pointer) -> None:  # noqa: N802
        if handle:
            del self._allocated[handle]

    def configure_FSP_FSCTL_VOLUME_PARAMS(self, parameters: Pointer, *values: int | str) -> None:  # noqa: N802
        import inspect

        from winfspy.file_system import _volume_params_factory

        self.parameters = dict(zip(inspect.signature(_volume_params_factory).parameters, values, strict=True))

    def FspFileSystemCreate(  # noqa: N802
        self, device_path: str, parameters: Pointer, interface: Pointer, p_file_system: Pointer
    ) -> int:
        self.interface = interface
        self.file_system = p_file_system[0] = self._ffi.new("FSP_FILE_SYSTEM *")
        self.calls.append("create")
        return SUCCESS

    def FspFileSystemSetMountPoint(self, file_system: Pointer, mountpoint: str) -> int:  # noqa: N802
        self.calls.append(f"mount at {mountpoint}")
        return SUCCESS

    def FspFileSystemStartDispatcher(self, file_system: Pointer, threads: int) -> int:  # noqa: N802
        self.calls.append("start")
        return SUCCESS

    def FspFileSystemStopDispatcher(self, file_system: Pointer) -> None:  # noqa: N802
        self.calls.append("stop")

    def FspFileSystemDelete(self, file_system: Pointer) -> None:  # noqa: N802
        self.calls.append("delete")

    def FspFileSystemAddDirInfo(self, info: Pointer, buffer: Pointer, length: int, p_used: Pointer) -> int:  # noqa: N802
        """Append an entry, or the mark of the end, to a buffer, if it still fits."""
        start = -(-p_used[0] // 8) * 8
        size = info.Size if info else 2
        if start + size > length:
            return 0
        target = self._ffi.cast("char *", buffer) + start
        if info:
            self._ffi.memmove(target, info, size)
        else:
            self._ffi.memmove(target, bytes(2), 2)
        p_used[0] = start + size
        return 1

    def FspFileSystemResolveReparsePoints(  # noqa: N802
        self,
        file_system: Pointer,
        by_name: Pointer,
        context: Pointer,
        file_name: str,
        index: int,
        resolve_last: bool,
        p_io_status: Pointer,
        buffer: Pointer,
        p_size: Pointer,
    ) -> int:
        """Follow a path's symlinks; stop at a reparse point of another kind, or at one that leads out of the volume."""
        done: list[str] = []
        ahead = [name for name in file_name.split("\\") if name][::-1]
        links = 0
        while ahead:
            name = ahead.pop()
            if name == ".":
                continue
            if name == "..":
                done = done[:-1]
                continue
            done.append(name)
            if not ahead and not resolve_last:
                break
            path = "\\" + "\\".join(done)
            data, size = self._ffi.new("char[]", _REPARSE_BYTES_MAX), self._ffi.new("SIZE_T *", _REPARSE_BYTES_MAX)
            status = by_name(file_system, context, path, bool(ahead), data, size)
            if status == NOT_A_REPARSE_POINT:
                continue
            if status == OBJECT_NAME_NOT_FOUND and not ahead:
                break
            if status != SUCCESS:
                return OBJECT_PATH_NOT_FOUND if status != OBJECT_NAME_NOT_FOUND else OBJECT_NAME_NOT_FOUND
            found = bytes(self._ffi.buffer(data, size[0]))
            if reparse_tag(found) != TAG_SYMLINK:
                return self._give(found, reparse_tag(found), p_io_status, buffer, p_size)
            links += 1
            if links == _LINKS_MAX:
                return REPARSE_POINT_NOT_RESOLVED
            target, is_relative = symlink_target(found)
            assert is_relative
            done = [] if target.startswith("\\") else done[:-1]
            ahead += [name for name in target.split("\\") if name][::-1]
        return self._give(symlink_data("\\" + "\\".join(done)), TAG_SYMLINK, p_io_status, buffer, p_size)

    def _give(self, data: bytes, tag: int, p_io_status: Pointer, buffer: Pointer, p_size: Pointer) -> int:
        assert len(data) <= p_size[0]
        self._ffi.memmove(buffer, data, len(data))
        p_size[0] = len(data)
        self._ffi.cast("uint64_t *", p_io_status)[1] = tag
        return REPARSE


def reparse_tag(data: bytes) -> int:
    """The tag of a REPARSE_DATA_BUFFER; its length is checked."""
    tag, length = struct.unpack_from("<IH", data)
    assert len(data) == 8 + length
    assert isinstance(tag, int)
    return tag


def symlink_target(data: bytes) -> tuple[str, bool]:
    """Where a symlink's REPARSE_DATA_BUFFER points, and whether that is relative."""
    offset, length, _, _, flags = struct.unpack_from("<HHHHI", data, 8)
    return data[20 + offset : 20 + offset + length].decode("utf-16-le"), flags == 1


def symlink_data(target: str) -> bytes:
    """The REPARSE_DATA_BUFFER of a relative symlink."""
    path = target.encode("utf-16-le")
    return struct.pack("<IHHHHHHI", TAG_SYMLINK, 12 + len(path), 0, 0, len(path), 0, len(path), 1) + path


def _install() -> tuple[cffi.FFI, Native]:
    ffi = cffi.FFI()
    ffi.cdef(_WINDOWS)
    ffi.cdef(_declarations())
    native = Native(ffi)
    functions = dict(ffi.typeof("FSP_FILE_SYSTEM_INTERFACE").fields)

    def def_extern() -> Callable[[_Function], _Function]:
        def define(function: _Function) -> _Function:
            name = function.__name__.removeprefix("_trampolin_fs_")
            if name in functions:
                setattr(native, function.__name__, ffi.callback(functions[name].type, function))
            return function

        return define

    ffi.def_extern = def_extern
    bindings = ModuleType("winfspy.plumbing.bindings")
    vars(bindings).update(ffi=ffi, lib=native, enable_debug_log=lambda: None)
    sys.modules["winfspy.plumbing.bindings"] = bindings
    # Only asked where WinFsp is installed, which nobody does here.
    sys.modules.setdefault("winreg", ModuleType("winreg"))
    sys.path.append(str(FOLDER))
    return ffi, native


ffi, native = _install()
