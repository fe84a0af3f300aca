"""Who keeps a mount busy, read from /proc alone: no request is made of the mount, which may not answer.

An ordinary user sees the processes of nobody else.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_PROCESSES = Path("/proc")
# A process may end while it is looked at, and may be somebody else's.
_UNSEEN = (FileNotFoundError, ProcessLookupError, PermissionError)


class Holder(NamedTuple):
    """A process that uses a mount: its id and name, and what it does there."""

    process: int
    name: str
    use: str


class Held(NamedTuple):
    """What is held: a mount by its id in the mount table, its device as `major:minor`, and where it is."""

    mount_id: int
    device: str
    mountpoint: Path


def find_holders(held: Held) -> list[Holder]:
    """The processes that this user can see using a mount, each once, by their ids."""
    namespace = os.readlink(_PROCESSES / "self/ns/mnt")
    found = (_look_at(folder, held, namespace) for folder in _process_folders())
    return sorted(holder for holder in found if holder is not None)


def _process_folders() -> Iterator[Path]:
    own = os.getpid()
    return (path for path in _PROCESSES.iterdir() if path.name.isdigit() and int(path.name) != own)


def _look_at(folder: Path, held: Held, namespace: str) -> Holder | None:
    with suppress(*_UNSEEN):
        # Elsewhere the same mount is another one, and does not keep this one busy.
        if os.readlink(folder / "ns/mnt") != namespace:
            return None
        use = _use(folder, held)
        if use:
            return Holder(int(folder.name), (folder / "comm").read_text(errors="replace").rstrip("\n"), use)
    return None


def _use(folder: Path, held: Held) -> str:
    if _is_inside(folder / "cwd", held.mountpoint):
        return "works in it"
    if _is_inside(folder / "root", held.mountpoint):
        return "has its root in it"
    if any(_is_of_mount(info, held.mount_id) for info in (folder / "fdinfo").iterdir()):
        return "has a file of it open"
    if any(_maps_device((folder / "maps").read_bytes().splitlines(), held.device)):
        return "has a file of it mapped"
    return ""


def _is_inside(link: Path, mountpoint: Path) -> bool:
    return Path(os.readlink(link)).is_relative_to(mountpoint)


def _is_of_mount(info: Path, mount_id: int) -> bool:
    """Whether an open file, by its `fdinfo` (proc(5)), is of a mount."""
    with suppress(*_UNSEEN):
        return b"mnt_id:\t%d\n" % mount_id in info.read_bytes()
    return False


def _maps_device(lines: Iterable[bytes], device: str) -> Iterator[bool]:
    """For each mapping of `maps` (proc(5)) whether it is of a device."""
    major, _, minor = device.partition(":")
    wanted = b"%02x:%02x" % (int(major), int(minor))
    return (line.split(None, 4)[3] == wanted for line in lines)
