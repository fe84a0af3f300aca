"""What is in a directory tree, written down so that it can be kept as JSON."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}

Manifest = dict[str, dict[str, object]]


def manifest(folder: Path) -> Manifest:
    """All that is below a folder, by path. Paths and targets are Latin-1, which loses no byte."""
    top = os.fsencode(folder)
    paths = [os.path.join(parent, name) for parent, folders, files in os.walk(top) for name in (*folders, *files)]
    first_names: dict[int, bytes] = {}
    found: Manifest = {}
    for path in sorted(paths):
        status = os.lstat(path)
        described = _describe(path, status)
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            described["link_of"] = os.path.relpath(first_names.setdefault(status.st_ino, path), top).decode("latin-1")
        found[os.path.relpath(path, top).decode("latin-1")] = described
    return found


def _describe(path: bytes, status: os.stat_result) -> dict[str, object]:
    described: dict[str, object] = {
        "type": _TYPES[stat.S_IFMT(status.st_mode)],
        "mode": f"{stat.S_IMODE(status.st_mode):04o}",
        "mtime_ns": status.st_mtime_ns,
    }
    if stat.S_ISLNK(status.st_mode):
        described["target"] = os.readlink(path).decode("latin-1")
    if stat.S_ISREG(status.st_mode):
        content = Path(os.fsdecode(path)).read_bytes()
        described |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    names = os.listxattr(path, follow_symlinks=False)
    if xattrs := {name: os.getxattr(path, name, follow_symlinks=False).hex() for name in names if name[:5] == "user."}:
        described["xattrs"] = xattrs
    return described
