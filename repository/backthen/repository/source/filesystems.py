"""Which file system a file is on, by a name that survives a reboot (device numbers do not). Linux: the mount table."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

MOUNT_TABLE = Path("/proc/self/mountinfo")
_OCTAL = re.compile(rb"\\([0-7]{3})")


class FileSystems:
    """The top directory of each file system, by device number. Use one for a whole snapshot."""

    def __init__(self, mount_table: Path = MOUNT_TABLE) -> None:
        self._mount_points = _read_mount_points(mount_table)
        self._tops: dict[int, bytes] = {}

    def top_of_device(self, device: int, path: bytes) -> bytes:
        """The path of the top directory of a file system: of several mounts of it, always the same one.

        Args:
            device: `st_dev` of a file.
            path: the file's absolute path.
        """
        top = self._tops.get(device)
        if top is None:
            top = self._tops[device] = self._find_top(device, path)
        return top

    def _find_top(self, device: int, path: bytes) -> bytes:
        """The mount table knows most devices; sub-volumes, which it does not list, begin where the number changes.

        A file can be on another device than its own folder (overlay mounts number their layers): such devices are told
        apart by the order in which they are met, after a double slash that no path has.
        """
        if device in self._mount_points:
            return self._mount_points[device]
        top = os.path.dirname(path)
        device_of_folder = _device_of(top)
        if device_of_folder == device:
            while top != b"/" and _device_of(os.path.dirname(top)) == device:
                top = os.path.dirname(top)
            return top
        if device_of_folder is not None:
            top = self.top_of_device(device_of_folder, path)
        return b"%b//%d" % (top, len(self._tops))


def _device_of(path: bytes) -> int | None:
    try:
        return os.lstat(path).st_dev
    except OSError:
        return None


def devices_of_type(file_system: bytes, mount_table: Path = MOUNT_TABLE) -> frozenset[int]:
    """The devices (`st_dev`) that are mounted now with a file system of that type."""
    try:
        lines = mount_table.read_bytes().splitlines()
    except OSError:
        return frozenset()
    found = (line for line in lines if line.partition(b" - ")[2].split(b" ")[0] == file_system)
    return frozenset(device for device, _, _ in _parse_mounts(b"\n".join(found)))


def _read_mount_points(mount_table: Path) -> dict[int, bytes]:
    """Device to mount point; of several the one that shows the whole file system, then the shortest, then the first."""
    try:
        content = mount_table.read_bytes()
    except OSError:
        return {}
    # A later mount hides an earlier one at the same point, so that no two devices have one name.
    visible = {point: (device, root) for device, root, point in _parse_mounts(content)}
    best: dict[int, tuple[bool, int, bytes]] = {}
    for point, (device, root) in visible.items():
        rank = (root != b"/", len(point), point)
        if device not in best or rank < best[device]:
            best[device] = rank
    return {device: point for device, (_, _, point) in best.items()}


def _parse_mounts(content: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(device, root within the file system, mount point) of each line; see proc_pid_mountinfo(5)."""
    for line in content.splitlines():
        fields = line.split(b" ")
        major, _, minor = fields[2].partition(b":")
        yield os.makedev(int(major), int(minor)), _unescape(fields[3]), _unescape(fields[4])


def _unescape(field: bytes) -> bytes:
    return _OCTAL.sub(lambda match: bytes((int(match[1], 8),)), field)
