"""Mountpoints and the mount table: what is mounted where, whether it is alive, and how it is taken away.

Knows Linux' mount table and nothing of how a mount is served. No path that may be a dead or slow mount is looked at
before the table was asked.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import logging
import os
import re
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from backthen.fsmount.errors import MountBusy, MountRefused, NotMounted, UnusableMountpoint
from backthen.fsmount.holders import Held, Holder, find_holders

FILE_SYSTEM_TYPE = "fuse.backthen"
REQUIRED_OPTIONS = frozenset({"ro", "nosuid", "nodev"})
READ_AHEAD_KIB = 1024
FUSERMOUNT_TIMEOUT_S = 30
PROBE_TIMEOUT_S = 5.0
"""More than a mount takes to answer for its top, whatever its storage does."""
HOLDERS_NAMED_MAX = 10

_MOUNT_TABLE = Path("/proc/self/mountinfo")
_BACKING_DEVICES = Path("/sys/class/bdi")
_CONNECTIONS = Path("/sys/fs/fuse/connections")
_OCTAL_ESCAPE = re.compile(rb"\\([0-7]{3})")
# From <sys/mount.h>.
_MNT_FORCE = 1
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_DEAD = (errno.ENOTCONN, errno.ECONNABORTED)

_log = logging.getLogger("backthen.fsmount")


class MountState(enum.Enum):
    """What is at a path."""

    FREE = "nothing is mounted"
    LIVE = "a mount of Backthen that answers"
    SILENT = "a mount of Backthen that does not answer"
    STALE = "a mount of Backthen whose server has died"
    FOREIGN = "a mount of something else"


@dataclass(frozen=True, slots=True)
class MountLine:
    """One line of the mount table.

    Attributes:
        id: its number, as the system has it elsewhere too.
        device: `major:minor`.
        mountpoint: where it is mounted, absolute.
        options: those of the mount itself, not of its file system.
        file_system: its type.
        file_system_options: those of the file system.
    """

    id: int
    device: str
    mountpoint: Path
    options: frozenset[str]
    file_system: str
    file_system_options: frozenset[str]


def parse_mount_table(data: bytes) -> list[MountLine]:
    """The lines of a `mountinfo`, in order; proc(5) has the format."""
    lines = []
    # Not `splitlines`: a carriage return in a path is not escaped.
    for line in data.split(b"\n")[:-1]:
        fields = line.split(b" ")
        after = fields.index(b"-", 6)
        lines.append(
            MountLine(
                id=int(fields[0]),
                device=fields[2].decode(),
                mountpoint=Path(os.fsdecode(_unescape(fields[4]))),
                options=frozenset(fields[5].decode().split(",")),
                file_system=os.fsdecode(_unescape(fields[after + 1])),
                file_system_options=frozenset(os.fsdecode(fields[after + 3]).split(",")),
            )
        )
    return lines


def mounted_at(path: Path) -> MountLine | None:
    """The line of what is mounted at a path, the topmost one, or None."""
    lines = {line.mountpoint: line for line in parse_mount_table(_MOUNT_TABLE.read_bytes())}
    return lines.get(_canonical(path, lines))


def mount_state(path: Path) -> MountState:
    """What is at a path now; found out within a few seconds even where a mount does not answer."""
    line = mounted_at(path)
    if line is None:
        return MountState.FREE
    if line.file_system != FILE_SYSTEM_TYPE:
        return MountState.FOREIGN
    found: list[MountState] = []
    # A daemon: nobody waits for it at the end of this process.
    probe = threading.Thread(target=lambda: found.append(_probe(line.mountpoint)), name="probe", daemon=True)
    probe.start()
    probe.join(PROBE_TIMEOUT_S)
    return found[0] if found else MountState.SILENT


def _probe(mountpoint: Path) -> MountState:
    try:
        # Opening is always asked of the server; attributes may come from the kernel's memory.
        os.close(os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        return MountState.STALE if error.errno in _DEAD else MountState.LIVE
    return MountState.LIVE


def prepare_mountpoint(path: Path, *, repository_folder: Path | None = None) -> Path:
    """Make sure that a path can be mounted at; a dead mount of ours that is there is cleaned up.

    Args:
        path: an empty directory.
        repository_folder: where the repository is, if it is on this machine.

    Returns:
        The path without links.

    Raises:
        UnusableMountpoint: it cannot be mounted at.
        MountBusy, MountRefused: the dead mount cannot be taken away.
    """
    state = mount_state(path)
    if state is MountState.STALE:
        clean_stale(path)
    elif state is not MountState.FREE:
        raise UnusableMountpoint(
            f"{path} is taken: there is {state.value}", hint=f"Take it away first: backthen umount {path}"
        )
    target = Path(os.path.realpath(path))
    if repository_folder is not None and target.is_relative_to(os.path.realpath(repository_folder)):
        raise UnusableMountpoint(f"{path} is inside the repository", hint="Mount at a folder outside of it.")
    try:
        if any(os.scandir(target)):
            raise UnusableMountpoint(f"{path} is not empty", hint="Mount at an empty folder.")
    except FileNotFoundError:
        raise UnusableMountpoint(f"{path} does not exist", hint=f"Make it first: mkdir {path}") from None
    except NotADirectoryError:
        raise UnusableMountpoint(f"{path} is not a folder") from None
    except OSError as error:
        raise UnusableMountpoint(f"{path} cannot be read: {error.strerror}") from error
    if not os.access(target, os.W_OK):
        raise UnusableMountpoint(
            f"{path} cannot be written by this user, and mounting needs that", hint="Mount at a folder of your own."
        )
    return target


def check_mounted(path: Path) -> None:
    """Prove by the mount table that our mount is at a path, read-only, without set-user-id programs and devices.

    Raises:
        MountRefused: it is not there, or is not mounted so.
    """
    line = mounted_at(path)
    if line is None or line.file_system != FILE_SYSTEM_TYPE:
        raise MountRefused(f"the mount does not appear at {path}")
    missing = REQUIRED_OPTIONS - line.options
    if missing:
        raise MountRefused(f"the system mounted {path} without {', '.join(sorted(missing))}")


def raise_read_ahead(path: Path) -> None:
    """Let the kernel read ahead more than its 128 KiB, where this process may say so: each request costs the same."""
    line = mounted_at(path)
    if line is None:
        return
    setting = _BACKING_DEVICES / line.device / "read_ahead_kb"
    try:
        setting.write_text(f"{READ_AHEAD_KIB}\n")
    except OSError as error:
        _log.debug("the read-ahead stays as it is: %s", error)


def unmount(path: Path, *, lazy: bool = False) -> None:
    """Take a mount of Backthen away, dead or alive.

    Args:
        path: its mountpoint.
        lazy: also when it is in use; those who use it keep what they have open, unless it does not answer: then they
            are told that it is gone.

    Raises:
        NotMounted: there is none.
        MountBusy: it is in use.
        MountRefused: the system did not do it.
    """
    line = mounted_at(path)
    state = mount_state(path)
    if line is None or state is MountState.FREE:
        raise NotMounted(f"nothing is mounted at {path}")
    if state is MountState.FOREIGN:
        raise NotMounted(f"what is mounted at {path} is not Backthen's")
    _detach(line.mountpoint, lazy=lazy or state is MountState.STALE, is_forced=lazy and state is MountState.SILENT)


def clean_stale(path: Path) -> bool:
    """Take a mount of Backthen away whose server has died.

    Returns:
        Whether there was one.

    Raises:
        MountBusy, MountRefused: the system did not do it.
    """
    line = mounted_at(path)
    if line is None or mount_state(path) is not MountState.STALE:
        return False
    _detach(line.mountpoint, lazy=True)
    return True


def detach(mountpoint: Path) -> None:
    """Take away what is mounted at a path, in use or not, without asking it anything.

    Raises:
        MountBusy, MountRefused: the system did not do it.
    """
    _detach(mountpoint, lazy=True)


def _detach(mountpoint: Path, *, lazy: bool, is_forced: bool = False) -> None:
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        flags = _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0) | (_MNT_FORCE if is_forced else 0)
        if libc.umount2(os.fsencode(mountpoint), flags) == 0:
            return
        number = ctypes.get_errno()
        _refuse(mountpoint, os.strerror(number), is_busy=number == errno.EBUSY)
    if is_forced:
        _abort_connection(mountpoint)
    command = ["fusermount3", "-u", *(["-z"] if lazy else []), "--", os.fspath(mountpoint)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=FUSERMOUNT_TIMEOUT_S, check=False)
    except FileNotFoundError:
        raise MountRefused("fusermount3 is missing", hint="Install the package fuse3.") from None
    except subprocess.TimeoutExpired:
        raise MountRefused(f"fusermount3 did not come back for {mountpoint}") from None
    if done.returncode != 0:
        message = done.stderr.decode(errors="replace").strip()
        _refuse(mountpoint, message, is_busy=os.strerror(errno.EBUSY) in message)


def _abort_connection(mountpoint: Path) -> None:
    """Have the kernel answer what the server does not, where it lets an ordinary user say so."""
    line = mounted_at(mountpoint)
    if line is None:
        return
    try:
        (_CONNECTIONS / line.device.partition(":")[2] / "abort").write_text("1\n")
    except OSError as error:
        _log.debug("what waits for the mount goes on waiting: %s", error)


def _refuse(mountpoint: Path, message: str, *, is_busy: bool) -> NoReturn:
    line = mounted_at(mountpoint)
    if line is None or not is_busy:
        raise MountRefused(f"cannot unmount {mountpoint}: {message}")
    holders = find_holders(Held(line.id, line.device, mountpoint))
    unseen = "" if os.geteuid() == 0 else " Programs of other users may use it too, and only root sees those."
    raise MountBusy(
        f"{mountpoint} is busy: {_who(mountpoint, holders)}",
        hint=f"Close what uses it, or take it away all the same: `backthen umount --lazy {mountpoint}`.{unseen}",
        holders=tuple(holders),
    )


def _who(mountpoint: Path, holders: list[Holder]) -> str:
    named = [f"{name} (process {process}) {use}" for process, name, use in holders[:HOLDERS_NAMED_MAX]]
    if len(holders) > HOLDERS_NAMED_MAX:
        named.append(f"{len(holders) - HOLDERS_NAMED_MAX} more processes use it")
    inside = [other.mountpoint for other in parse_mount_table(_MOUNT_TABLE.read_bytes())]
    named += [f"something is mounted at {path}" for path in inside if mountpoint in path.parents]
    return ", ".join(named) or "a program uses it that cannot be seen from here"


def _canonical(path: Path, lines: dict[Path, MountLine]) -> Path:
    """The path without links; what is in the table already is not looked at."""
    absolute = Path(os.path.abspath(path))
    above = Path(os.path.realpath(absolute.parent)) / absolute.name
    return above if above in lines else Path(os.path.realpath(absolute))


def _unescape(field: bytes) -> bytes:
    return _OCTAL_ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field)
