"""Mounting by hand, so that the kernel can be told what libfuse's bindings do not let through.

Nearly every path of a history leads through a symlink, and a program that names files by their whole path (a file
manager, `cp`, `ls`) has it read again in each system call unless the kernel may keep where it points. The flag for that
belongs into the answer to the kernel's first request. So libfuse gets one end of a socket at first, the first request
and its answer are carried over, and then the device takes the socket's place.

Relied on: `fusermount3` sends the device over the socket that `_FUSE_COMMFD` names; `fuse_session_mount` takes the
mountpoint `/dev/fd/N` for a device that is mounted already (libfuse 3.3); FUSE_INIT is laid out as in <linux/fuse.h>.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from collections.abc import Collection
from pathlib import Path

from backthen.fsmount.adapters.libfuse import refused_mount
from backthen.fsmount.errors import MountRefused

MOUNT_TIMEOUT_S = 30
MESSAGE_BYTES_MAX = 1 << 16
"""What is read of the first request; the kernel refuses to give it to whoever asks for less than 8 KiB."""

_CACHE_SYMLINKS = 1 << 23
# After the header: major and minor version, the longest read-ahead, the flags.
_FLAGS_OF_REQUEST = struct.Struct("=40x12xI")
_FLAGS_OF_ANSWER = struct.Struct("=16x12xI")
_FLAGS_BYTES = 4


def open_mounted_device(mountpoint: Path, options: Collection[str]) -> int:
    """Mount, and open the device by which the mount is served. The mount is dead once that is closed.

    Raises:
        MountRefused: the operating system did not make the mount.
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            said = _run_fusermount(mountpoint, options, theirs.fileno())
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1, socket.MSG_CMSG_CLOEXEC)
    if not descriptors:
        raise refused_mount(mountpoint, said)
    return descriptors[0]


def with_kept_symlinks(request: bytes, answer: bytes) -> bytes:
    """The answer to the kernel's first request, with the leave to keep where symlinks point, if the kernel can."""
    (offered,) = _FLAGS_OF_REQUEST.unpack_from(request)
    (flags,) = _FLAGS_OF_ANSWER.unpack_from(answer)
    end = _FLAGS_OF_ANSWER.size
    return answer[: end - _FLAGS_BYTES] + struct.pack("=I", flags | (offered & _CACHE_SYMLINKS)) + answer[end:]


def _run_fusermount(mountpoint: Path, options: Collection[str], channel: int) -> str:
    """Have the mount made and its device sent over a socket; what was said about it."""
    program = ["fusermount3", "-o", ",".join(sorted(options)), "--", os.fspath(mountpoint)]
    command = ["env", f"_FUSE_COMMFD={channel}", *program]
    try:
        done = subprocess.run(command, pass_fds=[channel], capture_output=True, timeout=MOUNT_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise MountRefused(f"fusermount3 did not come back for {mountpoint}") from None
    return done.stderr.decode(errors="replace").strip()
