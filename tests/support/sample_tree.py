"""A real directory tree with one of everything that a file system of Linux can hold."""

from __future__ import annotations

import os
import random
import socket
import subprocess
from pathlib import Path

SPARSE_BYTES = 10 * 1024 * 1024
ODD_NAMES = (
    b"\xff\xfe not UTF-8",
    b"new\nline\r\t\x1b[31m",
    b"n" * 255,
    "Über".encode(),
    b" leading and trailing ",
    b"-rf",
    b"...",
    b"*?[a]\\",
)


def make_sample_tree(folder: Path, *, as_root: bool) -> None:
    """Fill an existing empty folder."""
    random_bytes = random.Random(1).randbytes
    (folder / "text").write_text("hello\n")
    (folder / "empty").touch()
    (folder / "small").write_bytes(random_bytes(70_000))
    (folder / "large").write_bytes(random_bytes(3_000_000) + bytes(2_000_000) + random_bytes(100))
    _make_sparse(folder / "sparse")
    for name in ODD_NAMES:
        (Path(os.fsdecode(os.fsencode(folder) + b"/" + name))).write_bytes(name)
    _make_links(folder)
    os.mkfifo(folder / "fifo", 0o620)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fsencode(folder / "socket"))
    _make_modes(folder)
    os.setxattr(folder / "text", "user.note", b"kept\0binary")
    os.setxattr(folder / "small", "user.large", random_bytes(2500))
    subprocess.run(["setfacl", "-m", "u:12:rw,g:34:r", folder / "text"], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:12:rwx", folder / "folder"], check=True)
    if as_root:
        _make_for_root(folder)
    _set_times(folder)


def _make_sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"begin")
        file.seek(SPARSE_BYTES // 2)
        file.write(b"middle" * 1000)
        file.truncate(SPARSE_BYTES)


def _make_links(folder: Path) -> None:
    inner = folder / "folder" / "deeper"
    inner.mkdir(parents=True)
    (inner / "first name").write_bytes(b"one inode")
    os.link(inner / "first name", folder / "second name")
    os.link(inner / "first name", folder / "folder" / "third name")
    os.symlink("text", folder / "link")
    os.symlink("nowhere/at all", folder / "dangling")
    os.symlink("/", folder / "link to top")
    os.symlink(b"\xff\n", os.fsencode(inner / "odd link"))


def _make_modes(folder: Path) -> None:
    for mode in (0o000, 0o400, 0o755, 0o4755, 0o2755, 0o6711):
        path = folder / f"mode {mode:o}"
        path.write_bytes(b"x")
        path.chmod(mode)
    for mode in (0o555, 0o1777, 0o2770):
        path = folder / f"folder {mode:o}"
        path.mkdir()
        (path / "inside").write_bytes(b"y")
        path.chmod(mode)


def _make_for_root(folder: Path) -> None:
    os.mknod(folder / "character", 0o020640, os.makedev(1, 3))
    os.mknod(folder / "block", 0o060660, os.makedev(259, 300))
    os.chown(folder / "small", 12345, 54321)
    os.chown(folder / "link", 7, 8, follow_symlinks=False)
    os.setxattr(folder / "text", "trusted.note", b"for root")
    # capability "cap_net_bind_service+ep", as setcap writes it (linux/capability.h, revision 2)
    os.setxattr(folder / "large", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))


def _set_times(folder: Path) -> None:
    """Times to the nanosecond, some before 1970, the deepest first so that they stay."""
    number = 0
    for parent, folders, files in os.walk(os.fsencode(folder), topdown=False):
        for name in (*files, *folders):
            number += 1
            seconds = -number if number % 7 == 0 else 1_500_000_000 + number
            time_ns = seconds * 1_000_000_000 + 123_456_789 + number
            os.utime(os.path.join(parent, name), ns=(time_ns, time_ns), follow_symlinks=False)
    os.utime(folder, ns=(0, 1_600_000_000_987_654_321))
