"""Mounts by the system's libfuse 3, which calls fusermount3 where an ordinary user mounts. Nobody else knows it.

Nothing but the making and the end of a mount is asked of it, so none of its structures whose layout changed between
versions is touched. All functions that are called are in each of its versions since 3.0.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

from backthen.fsmount.adapters.libfuse import refused_mount, spoken_on_stderr

# 4 is what 3.17 and later are called.
_NAMES = ("libfuse3.so.4", "libfuse3.so.3")
_VERSION_LEAST = 310
_VERSION_END = 400
_NO_OPERATIONS = b"\0" * 8


class _Arguments(ctypes.Structure):
    """`struct fuse_args` of <fuse_opt.h>."""

    _fields_ = (("count", ctypes.c_int), ("values", ctypes.POINTER(ctypes.c_char_p)), ("is_allocated", ctypes.c_int))


_SIGNATURES: dict[str, tuple[object, Sequence[object]]] = {
    "fuse_version": (ctypes.c_int, ()),
    "fuse_session_new": (
        ctypes.c_void_p,
        (ctypes.POINTER(_Arguments), ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p),
    ),
    "fuse_session_mount": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_char_p)),
    "fuse_session_fd": (ctypes.c_int, (ctypes.c_void_p,)),
    "fuse_session_unmount": (None, (ctypes.c_void_p,)),
    "fuse_session_destroy": (None, (ctypes.c_void_p,)),
}


def load_library() -> ctypes.CDLL:
    """The system's libfuse 3.

    Raises:
        OSError: there is none, or one that is not known.
    """
    library = _first_library()
    for name, (result, arguments) in _SIGNATURES.items():
        try:
            function = getattr(library, name)
        except AttributeError as error:
            raise OSError(f"libfuse3 lacks the function {name}") from error
        function.restype, function.argtypes = result, arguments
    version: int = library.fuse_version()
    if not _VERSION_LEAST <= version < _VERSION_END:
        raise OSError(f"libfuse3 is of version {version // 100}.{version % 100}, needed is 3.10 or a later 3.x")
    return library


def _first_library() -> ctypes.CDLL:
    for name in _NAMES[:-1]:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return ctypes.CDLL(_NAMES[-1])


class Session:
    """A mount as libfuse knows it.

    Attributes:
        descriptor: where the kernel's requests are read and answered. It stays open when the mount is taken away.
    """

    def __init__(self, library: ctypes.CDLL, mountpoint: Path, options: Sequence[str]) -> None:
        """Mount.

        Args:
            library: the system's libfuse 3.
            mountpoint: an empty directory.
            options: of the mount, each as after `-o`.

        Raises:
            MountRefused: the operating system did not make the mount.
        """
        words = (b"backthen", b"-o", os.fsencode(",".join(options)))
        arguments = _Arguments(len(words), (ctypes.c_char_p * (len(words) + 1))(*words, None), 0)
        self._library = library
        with spoken_on_stderr() as spoken:
            # No operations: libfuse is not to answer anything.
            self._session = library.fuse_session_new(ctypes.byref(arguments), _NO_OPERATIONS, 0, None)
            if not self._session:
                raise refused_mount(mountpoint, spoken() or "libfuse refuses the options")
            if library.fuse_session_mount(self._session, os.fsencode(mountpoint)) != 0:
                library.fuse_session_destroy(self._session)
                raise refused_mount(mountpoint, spoken() or "libfuse does not say why")
        self.descriptor = os.dup(library.fuse_session_fd(self._session))

    def unmount(self) -> None:
        """Take the mount away, also when it is in use."""
        self._library.fuse_session_unmount(self._session)

    def sever(self) -> None:
        """Let go of the connection: what is mounted still is dead from now on.

        Of the descriptor nothing is read any more, and what is written to it goes nowhere.
        """
        self._library.fuse_session_destroy(self._session)
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(nothing, self.descriptor, inheritable=False)
        os.close(nothing)
