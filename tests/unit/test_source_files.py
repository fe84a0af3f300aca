"""Reading files and attributes of the live system."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from pathlib import Path

import pytest

from backthen.repository.model.entry import EntryType
from backthen.repository.source import (
    FileReplaced,
    FileSystems,
    OwnerNames,
    Stretch,
    is_changed,
    make_entry,
    open_file,
    path_in,
    read_target,
    read_whole,
    read_xattrs,
    stretches,
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="devices and trusted attributes need root")
_BLOCK = 4096


@pytest.fixture
def folder(tmp_path: Path) -> int:
    return os.open(tmp_path, os.O_RDONLY)


def _open(folder: int, name: bytes) -> tuple[int, os.stat_result]:
    return open_file(folder, name, os.stat(name, dir_fd=folder, follow_symlinks=False))


def test_a_small_file_is_read_whole(tmp_path: Path, folder: int) -> None:
    (tmp_path / "file").write_bytes(b"content")
    descriptor, status = _open(folder, b"file")
    assert (b"content", 7) == (read_whole(descriptor, status.st_size), status.st_size)


@pytest.mark.parametrize("is_readable", [True, False])
def test_a_short_read_is_not_the_end_of_a_small_file(
    tmp_path: Path, folder: int, monkeypatch: pytest.MonkeyPatch, is_readable: bool
) -> None:
    (tmp_path / "file").write_bytes(b"content")
    descriptor, status = _open(folder, b"file")
    parts = iter([b"cont", b"ent", b""])

    def read(_descriptor: int, length: int) -> bytes:
        assert length > 0
        part = next(parts)
        if part == b"ent" and not is_readable:  # a bad block gives what is before it first
            raise OSError(errno.EIO, "bad block")
        return part

    monkeypatch.setattr(os, "read", read)
    if is_readable:
        assert read_whole(descriptor, status.st_size) == b"content"
    else:
        with pytest.raises(OSError, match="bad block"):
            read_whole(descriptor, status.st_size)


@pytest.mark.parametrize("kind", ["link", "fifo", "other file", "directory"])
def test_what_took_the_place_of_a_file_is_not_read(tmp_path: Path, folder: int, kind: str) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "file").write_bytes(b"content")
    looked_at = os.stat("file", dir_fd=folder)
    (tmp_path / "file").rename(tmp_path / "was file")
    if kind == "link":
        (tmp_path / "file").symlink_to("secret")
    elif kind == "fifo":
        os.mkfifo(tmp_path / "file")
    elif kind == "directory":
        (tmp_path / "file").mkdir()
    else:
        (tmp_path / "file").write_bytes(b"other")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileReplaced):
        open_file(folder, b"file", looked_at)
    assert before == os.listdir("/proc/self/fd")


def test_reading_keeps_the_access_time_of_own_files(tmp_path: Path, folder: int) -> None:
    (tmp_path / "file").write_bytes(b"content")
    os.utime(tmp_path / "file", ns=(1, 2))
    descriptor, status = _open(folder, b"file")
    read_whole(descriptor, status.st_size)
    assert os.stat(tmp_path / "file").st_atime_ns == 1


def test_data_and_holes_follow_one_another(tmp_path: Path, folder: int) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(100 * _BLOCK)
        os.pwrite(file.fileno(), b"x" * _BLOCK, 10 * _BLOCK)
        os.pwrite(file.fileno(), b"y", 50 * _BLOCK)
        os.fsync(file.fileno())
    descriptor, status = _open(folder, b"sparse")
    assert [
        Stretch(0, 10 * _BLOCK, is_hole=True),
        Stretch(10 * _BLOCK, _BLOCK, is_hole=False),
        Stretch(11 * _BLOCK, 39 * _BLOCK, is_hole=True),
        Stretch(50 * _BLOCK, _BLOCK, is_hole=False),
        Stretch(51 * _BLOCK, 49 * _BLOCK, is_hole=True),
    ] == list(stretches(descriptor, status))


def test_a_file_that_is_one_hole_is_one_stretch(tmp_path: Path, folder: int) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(100 << 30)
    descriptor, status = _open(folder, b"sparse")
    assert [Stretch(0, 100 << 30, is_hole=True)] == list(stretches(descriptor, status))


@pytest.mark.parametrize("size", [0, 1, 5000])
def test_a_file_without_holes_is_one_stretch(tmp_path: Path, folder: int, size: int) -> None:
    (tmp_path / "file").write_bytes(b"x" * size)
    descriptor, status = _open(folder, b"file")
    assert [Stretch(0, size, is_hole=False)][: min(size, 1)] == list(stretches(descriptor, status))


def test_a_change_while_reading_is_noticed(tmp_path: Path, folder: int) -> None:
    (tmp_path / "file").write_bytes(b"content")
    descriptor, before = _open(folder, b"file")
    assert not is_changed(before, os.fstat(descriptor))
    os.utime(tmp_path / "file", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert is_changed(before, os.fstat(descriptor))


def test_entries_have_their_type_and_owner(tmp_path: Path, folder: int) -> None:
    (tmp_path / "file").touch(mode=0o640)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere\udcff")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fsencode(tmp_path / "socket"))
    owners = OwnerNames()
    found = {}
    for name in os.listdir(os.fsencode(tmp_path)):
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        target = read_target(folder, name) if name == b"link" else b""
        entry = make_entry(name, status, owners, target=target)
        assert (entry.uid, entry.gid) == (os.geteuid(), os.getegid())
        assert (entry.mtime_ns, entry.ctime_ns) == (status.st_mtime_ns, status.st_ctime_ns)
        found[name] = (entry.type, entry.size, entry.target)
    assert {
        b"file": (EntryType.FILE, 0, b""),
        b"folder": (EntryType.DIRECTORY, 0, b""),
        b"link": (EntryType.SYMLINK, 8, b"nowhere\xff"),
        b"fifo": (EntryType.FIFO, 0, b""),
        b"socket": (EntryType.SOCKET, 0, b""),
    } == found


def test_owners_without_a_name_have_none() -> None:
    owners = OwnerNames()
    assert ("root", "root") == (owners.user(0), owners.group(0))
    assert ("", "") == (owners.user(3_000_000_000), owners.group(3_000_000_000))


@needs_root
def test_device_nodes_have_their_numbers(tmp_path: Path, folder: int) -> None:
    os.mknod(tmp_path / "node", 0o060600, os.makedev(259, 70000))
    entry = make_entry(b"node", os.stat("node", dir_fd=folder), OwnerNames())
    assert (EntryType.BLOCK_DEVICE, 259, 70000, 0o600) == (
        entry.type,
        entry.device_major,
        entry.device_minor,
        entry.mode,
    )


@needs_root
def test_all_extended_attributes_are_read_by_name_and_by_descriptor(tmp_path: Path, folder: int) -> None:
    (tmp_path / "file").touch()
    os.setxattr(tmp_path / "file", "user.b", b"\0\xff")
    os.setxattr(tmp_path / "file", "user.a", b"")
    os.setxattr(tmp_path / "file", "trusted.x", b"y")
    subprocess.run(["setfacl", "-m", "u:12:rw", tmp_path / "file"], check=True)
    descriptor, _ = _open(folder, b"file")
    found = read_xattrs(descriptor)
    assert [b"system.posix_acl_access", b"trusted.x", b"user.a", b"user.b"] == [name for name, _ in found.xattrs]
    assert {b"user.a": b"", b"user.b": b"\0\xff", b"trusted.x": b"y"}.items() <= dict(found.xattrs).items()
    assert found == read_xattrs(path_in(folder, b"file"))
    assert found.problem == ""


@needs_root
def test_extended_attributes_of_a_link_are_its_own(tmp_path: Path, folder: int) -> None:
    (tmp_path / "file").touch()
    os.setxattr(tmp_path / "file", "trusted.x", b"of the file")
    (tmp_path / "link").symlink_to("file")
    os.setxattr(tmp_path / "link", "trusted.x", b"of the link", follow_symlinks=False)
    assert ((b"trusted.x", b"of the link"),) == read_xattrs(path_in(folder, b"link")).xattrs


def test_attributes_of_what_is_gone_are_a_problem(folder: int) -> None:
    found = read_xattrs(path_in(folder, b"gone"))
    assert ((), "extended attributes cannot be read: No such file or directory") == found


_MOUNTS = b"""\
22 1 8:1 / / rw - ext4 /dev/a rw
23 22 8:2 / /home rw - ext4 /dev/b rw
24 22 8:2 /me /mnt rw - ext4 /dev/b rw
25 22 8:3 /sub /bind rw - ext4 /dev/c rw
26 22 8:4 / /odd\\040name rw - ext4 /dev/d rw
27 22 8:5 / /hidden rw - ext4 /dev/e rw
28 22 8:6 / /hidden rw - ext4 /dev/f rw
"""


@pytest.mark.parametrize(
    ("device", "top"), [(1, b"/"), (2, b"/home"), (3, b"/bind"), (4, b"/odd name"), (6, b"/hidden")]
)
def test_a_file_system_is_known_by_where_it_is_mounted(tmp_path: Path, device: int, top: bytes) -> None:
    (tmp_path / "mountinfo").write_bytes(_MOUNTS)
    assert top == FileSystems(tmp_path / "mountinfo").top_of_device(os.makedev(8, device), b"/any/path")


def test_a_device_that_is_not_listed_begins_where_the_number_changes(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_bytes(b"")
    (tmp_path / "file").touch()
    path = os.fsencode(tmp_path / "file")
    device = os.lstat(path).st_dev
    top = FileSystems(tmp_path / "mountinfo").top_of_device(device, path)
    assert os.lstat(top).st_dev == device
    assert top == b"/" or os.lstat(os.path.dirname(top)).st_dev != device


def test_unlisted_devices_in_one_folder_are_told_apart(tmp_path: Path) -> None:
    systems = FileSystems()
    path = os.fsencode(tmp_path / "file")
    tops = [systems.top_of_device(os.makedev(4000, number), path) for number in (1, 2, 1)]
    assert tops[0] == tops[2] != tops[1]
    assert all(b"//" in top for top in tops)
