"""The view as Windows sees it: WinFsp through winfspy. The only module that imports winfspy.

Invariants: WinFsp calls from many threads at once, and by path; no request, whatever it meets, ends the mount; every
change is refused, and the volume says that it is read-only. What has never run is said in docs/platforms.md.

The volume distinguishes case, so that two names of one folder that differ in nothing else stay two files; it is the
look-up that does not (`windows_view`). Symlinks are reparse points, which WinFsp resolves.
"""

from __future__ import annotations

import csv
import logging
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar

from winfspy import (
    BaseFileSystemOperations,
    FileSystem,
    NTStatusEndOfFile,
    NTStatusError,
    NTStatusMediaWriteProtected,
    WinFSPyError,
)
from winfspy.plumbing import NTSTATUS, SecurityDescriptor, ffi, lib, nt_success

from backthen.fsmount.adapters.asking import Asking
from backthen.fsmount.adapters.reports import Reports
from backthen.fsmount.adapters.windows_records import reparse_tag
from backthen.fsmount.adapters.windows_view import Info, NoSuchWay, Opened, SymlinkOnTheWay, WindowsView
from backthen.fsmount.errors import MountRefused
from backthen.fsmount.view import (
    REQUEST_DEADLINE_S,
    DamagedContent,
    Gone,
    NoSuchAttribute,
    NotADirectory,
    NotAFile,
    NotASymlink,
    NotFound,
    ReadOnly,
    StorageUnavailable,
    UnreadAtBackup,
    View,
    ViewError,
)
from backthen.repository import BlobSource

STATUSES: dict[type[ViewError], int] = {
    NotFound: NTSTATUS.STATUS_OBJECT_NAME_NOT_FOUND,
    Gone: NTSTATUS.STATUS_FILE_INVALID,
    NotADirectory: NTSTATUS.STATUS_NOT_A_DIRECTORY,
    NotAFile: NTSTATUS.STATUS_INVALID_DEVICE_REQUEST,
    NotASymlink: NTSTATUS.STATUS_NOT_A_REPARSE_POINT,
    NoSuchAttribute: NTSTATUS.STATUS_NOT_FOUND,
    ReadOnly: NTSTATUS.STATUS_MEDIA_WRITE_PROTECTED,
    # Not "file corrupt": for that Windows tells the user to repair the volume.
    DamagedContent: NTSTATUS.STATUS_CRC_ERROR,
    StorageUnavailable: NTSTATUS.STATUS_IO_DEVICE_ERROR,
    UnreadAtBackup: NTSTATUS.STATUS_FILE_NOT_AVAILABLE,
}
"""What each meaning is called on Windows."""

VOLUME_LABEL = "Backthen"
KEPT_MS = 500
"""How long Windows may keep what it was told. WinFsp has one such time for the whole volume."""
LISTING_BYTES_MAX = 64 * 1024
"""WinFsp never asks for more of a listing at once."""
SECURITY_DESCRIPTORS_MAX = 1024

_ENTRIES_MAX = LISTING_BYTES_MAX // int(ffi.sizeof("FSP_FSCTL_DIR_INFO"))
_FILE_READ_DATA = 1
"""Also FILE_LIST_DIRECTORY."""
_WHOAMI_TIMEOUT_S = 30
_SIGNAL_POLL_S = 0.5

_log = logging.getLogger("backthen.fsmount")
_P = ParamSpec("_P")
_R = TypeVar("_R")

# winfspy has no types, and what it hands over is memory of C.
_Pointer = Any


class Operations(BaseFileSystemOperations):  # type: ignore[misc]
    """Answers WinFsp's requests from a view. The methods are those of winfspy."""

    def __init__(
        self, view: View, *, reader: str, allow_other: bool, request_deadline_s: float = REQUEST_DEADLINE_S
    ) -> None:
        """Take a view.

        Args:
            view: what to show.
            reader: the SID of the user who may read all of it.
            allow_other: let other users in, as far as the saved permissions do.
            request_deadline_s: how many seconds a request may take.
        """
        super().__init__()
        self._view = view
        self._windows = WindowsView(view, reader=reader, allow_other=allow_other)
        self._ask = Asking(view, deadline_s=request_deadline_s)
        self._reports = Reports()
        self._by_name = ffi.callback(
            "NTSTATUS(FSP_FILE_SYSTEM *, PVOID, PWSTR, BOOLEAN, PVOID, PSIZE_T)",
            self._reparse_point_by_name,
            error=NTSTATUS.STATUS_UNEXPECTED_IO_ERROR,
        )

    def get_volume_info(self) -> Info:
        """As large as what is stored, and full."""
        stored = self._answer(self._view.capacity).stored_bytes
        return {"total_size": stored, "free_size": 0, "volume_label": VOLUME_LABEL}

    def get_security_by_name(self, file_name: str) -> tuple[int, bytes, int]:
        """The file attributes and the security descriptor at a path, and the latter's length."""

        def ask(source: BlobSource) -> tuple[int, str]:
            node = self._windows.find(source, file_name)
            return self._windows.attributes(source, node), self._windows.descriptor(source, node.found)

        attributes, descriptor = self._answer(ask)
        encoded = _encoded_descriptor(descriptor)
        return attributes, encoded, len(encoded)

    def open(self, file_name: str, create_options: int, granted_access: int) -> Opened:
        """Open what is at a path; a reparse point itself. Whoever is to read is told at once that it cannot be read."""
        opened = Opened(self._answer(self._windows.find, file_name))
        found = opened.node.found
        if granted_access & _FILE_READ_DATA:
            if found.is_directory:
                opened.listing = self._answer(self._view.open_directory, found.number)
            elif not reparse_tag(found.mode):
                opened.file = self._answer(self._view.open_file, found.number)
        return opened

    def close(self, file_context: Opened) -> None:
        """It is not used any more."""

    def cleanup(self, file_context: Opened, file_name: str | None, flags: int) -> None:
        """Nothing is kept for what is open."""

    def flush(self, file_context: Opened) -> None:
        """Nothing waits to be written."""

    def get_file_info(self, file_context: Opened) -> Info:
        """The record of what is open."""
        return self._answer(self._windows.info, file_context.node)

    def get_security(self, file_context: Opened) -> tuple[bytes, int]:
        """The security descriptor of what is open, and its length."""
        encoded = _encoded_descriptor(self._answer(self._windows.descriptor, file_context.node.found))
        return encoded, len(encoded)

    def read(self, file_context: Opened, offset: int, length: int) -> bytes | memoryview:
        """Bytes of a file. The kernel reads, too, what was opened to be executed."""
        if file_context.file is None:
            file_context.file = self._answer(self._view.open_file, file_context.node.found.number)
        data = self._answer(self._view.read, file_context.file, offset, length)
        if length and not data:
            raise NTStatusEndOfFile
        return data

    def read_directory(self, file_context: Opened, marker: str | None) -> list[Info]:
        """The entries after the one that is called `marker`: all, or more than WinFsp takes at once."""
        if marker is None or file_context.listing is None:
            file_context.listing = self._answer(self._view.open_directory, file_context.node.found.number)
        return self._answer(self._windows.entries, file_context, file_context.listing, marker, _ENTRIES_MAX)

    def get_dir_info_by_name(self, file_context: Opened, file_name: str) -> Info:
        """The record of a directory's child."""

        def ask(source: BlobSource) -> Info:
            return self._windows.info(source, self._windows.child(source, file_context.node, file_name))

        return self._answer(ask)

    def get_reparse_point(self, file_context: Opened, file_name: str, buffer: _Pointer, p_size: _Pointer) -> None:
        """Where an open symlink points, or what kind of special file it is."""
        _fill(buffer, p_size, self._answer(self._windows.reparse_data, file_context.node.found))

    def resolve_reparse_points(
        self,
        file_name: str,
        reparse_point_index: int,
        resolve_last_path_component: bool,
        p_io_status: _Pointer,
        buffer: _Pointer,
        p_size: _Pointer,
    ) -> None:
        """Where a path leads that has symlinks in it: WinFsp walks it, and asks for each name."""
        # The first argument is handed to the callback and not looked at.
        status = lib.FspFileSystemResolveReparsePoints(
            ffi.NULL,
            self._by_name,
            ffi.NULL,
            file_name,
            reparse_point_index,
            resolve_last_path_component,
            p_io_status,
            buffer,
            p_size,
        )
        if not nt_success(status):
            raise NTStatusError(status)

    def _refuse_change(self, *_: object) -> NoReturn:
        raise NTStatusMediaWriteProtected

    can_delete = create = delete_reparse_point = overwrite = rename = set_basic_info = set_delete = _refuse_change
    set_file_size = set_reparse_point = set_security = set_volume_label = write = _refuse_change

    def _reparse_point_by_name(
        self,
        file_system: _Pointer,
        context: _Pointer,
        file_name: _Pointer,
        is_directory: int,
        buffer: _Pointer,
        p_size: _Pointer,
    ) -> int:
        path = ffi.string(file_name)

        def ask(source: BlobSource) -> bytes:
            return self._windows.reparse_data(source, self._windows.find(source, path).found)

        try:
            _fill(buffer, p_size, self._answer(ask))
        except NTStatusError as error:
            return int(error.value)
        return int(NTSTATUS.STATUS_SUCCESS)

    def _answer(self, ask: Callable[Concatenate[BlobSource, _P], _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return self._ask(ask, *args, **kwargs)
        except SymlinkOnTheWay:
            raise NTStatusError(NTSTATUS.STATUS_REPARSE) from None
        except NoSuchWay:
            raise NTStatusError(NTSTATUS.STATUS_OBJECT_PATH_NOT_FOUND) from None
        except ViewError as error:
            self._reports.report(error)
            raise NTStatusError(STATUSES[type(error)]) from error
        except Exception as error:
            # A bug, in whatever is below.
            _log.exception("a request failed")
            raise NTStatusError(NTSTATUS.STATUS_UNEXPECTED_IO_ERROR) from error


def serve_view(
    view: View,
    mountpoint: Path,
    *,
    allow_other: bool,
    request_deadline_s: float,
    mounted: Callable[[], None],
    ready: Callable[[], None],
) -> None:
    """Mount a view and serve it until the process is told to stop by Ctrl-C, Ctrl-Break or SIGTERM.

    Args:
        view: what to show.
        mountpoint: a drive that is free (`X:`), or a directory that does not exist.
        allow_other: let other users in.
        request_deadline_s: how many seconds a request may take.
        mounted: called when the mount answers; when it raises, the mount is taken away.
        ready: called after that.

    Raises:
        MountRefused: WinFsp did not make the mount.
    """
    operations = Operations(
        view, reader=current_user_sid(), allow_other=allow_other, request_deadline_s=request_deadline_s
    )
    try:
        file_system = FileSystem(str(mountpoint), operations, **_volume_parameters(mountpoint))
    except WinFSPyError as error:
        raise _refused(mountpoint, error) from error
    with _told_by_signals() as told:
        try:
            try:
                file_system.start()
            except (WinFSPyError, OSError) as error:
                raise _refused(mountpoint, error) from error
            mounted()
            ready()
            # On Windows no signal interrupts a wait.
            while not told.wait(_SIGNAL_POLL_S):
                pass
        finally:
            file_system.stop()


def current_user_sid() -> str:
    """The SID of the user whose process this is.

    Raises:
        MountRefused: Windows did not say.
    """
    command = ["whoami", "/user", "/fo", "csv", "/nh"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_WHOAMI_TIMEOUT_S, check=True)
        ((_, sid),) = csv.reader(done.stdout.splitlines())
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise MountRefused(f"Windows did not say who mounts: {error}") from error
    return sid


def _refused(mountpoint: Path, error: Exception) -> MountRefused:
    return MountRefused(f"cannot mount at {mountpoint}: {error}", hint="Mount at a drive that is free, such as X:.")


def _volume_parameters(mountpoint: Path) -> dict[str, int | str]:
    is_drive = mountpoint.parent == mountpoint
    return {
        "sector_size": 512,
        "sectors_per_allocation_unit": 8,
        "max_component_length": 255,
        "file_info_timeout": KEPT_MS,
        "case_sensitive_search": 1,
        "case_preserved_names": 1,
        "unicode_on_disk": 1,
        "persistent_acls": 1,
        "reparse_points": 1,
        "read_only_volume": 1,
        "post_cleanup_when_modified_only": 1,
        "um_file_context_is_user_context2": 1,
        # So that virus scanners do not hold up a mount on a directory; winfspy's own example does the same.
        "reject_irp_prior_to_transact0": int(not is_drive),
        "file_system_name": VOLUME_LABEL,
    }


@contextmanager
def _told_by_signals() -> Iterator[threading.Event]:
    """What is set by the signals that stop a mount."""
    told = threading.Event()

    def stop(number: int, _: FrameType | None) -> None:
        _log.info("told to stop by %s", signal.Signals(number).name)
        told.set()

    names = [name for name in ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP") if hasattr(signal, name)]
    kept = {number: signal.signal(number, stop) for number in (signal.Signals[name] for name in names)}
    try:
        yield told
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


@lru_cache(maxsize=SECURITY_DESCRIPTORS_MAX)
def _encoded_descriptor(text: str) -> bytes:
    """A security descriptor as Windows encodes it: bytes of ours, which nothing frees while they are copied."""
    descriptor = SecurityDescriptor.from_string(text)
    return bytes(ffi.buffer(ffi.cast("char *", descriptor.handle), descriptor.size))


def _fill(buffer: _Pointer, p_size: _Pointer, data: bytes) -> None:
    if len(data) > p_size[0]:
        raise NTStatusError(NTSTATUS.STATUS_BUFFER_TOO_SMALL)
    ffi.memmove(buffer, data, len(data))
    p_size[0] = len(data)
