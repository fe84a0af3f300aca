"""What differs between two real directory trees: everything a backup must bring back.

python -m tests.support.comparison LEFT RIGHT [--ignore-owner]
"""

from __future__ import annotations

import argparse
import errno
import os
import stat
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

_BLOCK_BYTES = 1 << 20
_NO_XATTRS = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENODATA})


@dataclass(frozen=True, slots=True)
class Aspects:
    """What is compared beside names, types, contents and link targets."""

    owner: bool = True
    xattrs: bool = True
    device_times: bool = True


def differences(left: bytes, right: bytes, aspects: Aspects = Aspects()) -> Iterator[str]:
    """One line for each difference of two trees, none where they are equal."""
    groups: tuple[defaultdict[tuple[int, int], list[bytes]], ...] = (defaultdict(list), defaultdict(list))
    waiting = [b""]
    while waiting:
        path = waiting.pop()
        paths = (os.path.join(left, path) if path else left, os.path.join(right, path) if path else right)
        status = [os.lstat(each) for each in paths]
        for group, each in zip(groups, status, strict=True):
            if each.st_nlink > 1 and not stat.S_ISDIR(each.st_mode):
                group[each.st_dev, each.st_ino].append(path)
        for what in _entry_differences(paths, status, aspects):
            yield f"{path!r}: {what}"
        if stat.S_ISDIR(status[0].st_mode) and stat.S_ISDIR(status[1].st_mode):
            names = [set(os.listdir(each)) for each in paths]
            for name in sorted(names[0] ^ names[1]):
                yield f"{os.path.join(path, name)!r}: only in the {'left' if name in names[0] else 'right'}"
            waiting.extend(os.path.join(path, name) for name in names[0] & names[1])
    found = [sorted(sorted(group) for group in each.values() if len(group) > 1) for each in groups]
    if found[0] != found[1]:
        yield f"link groups differ: {found[0]!r} and {found[1]!r}"


def _entry_differences(paths: tuple[bytes, bytes], status: list[os.stat_result], aspects: Aspects) -> Iterator[str]:
    left, right = status
    if stat.S_IFMT(left.st_mode) != stat.S_IFMT(right.st_mode):
        yield "the types differ"
        return
    if left.st_mode != right.st_mode:
        yield f"modes {left.st_mode:o} and {right.st_mode:o}"
    if aspects.owner and (left.st_uid, left.st_gid) != (right.st_uid, right.st_gid):
        yield f"owners {left.st_uid}:{left.st_gid} and {right.st_uid}:{right.st_gid}"
    is_device = stat.S_ISCHR(left.st_mode) or stat.S_ISBLK(left.st_mode)
    if left.st_mtime_ns != right.st_mtime_ns and (aspects.device_times or not is_device):
        yield f"times {left.st_mtime_ns} and {right.st_mtime_ns}"
    if is_device and left.st_rdev != right.st_rdev:
        yield f"devices {left.st_rdev} and {right.st_rdev}"
    if stat.S_ISLNK(left.st_mode) and os.readlink(paths[0]) != os.readlink(paths[1]):
        yield f"targets {os.readlink(paths[0])!r} and {os.readlink(paths[1])!r}"
    if stat.S_ISREG(left.st_mode) and not _same_content(paths, left, right):
        yield "contents differ"
    if aspects.xattrs:
        found = [_xattrs(path) for path in paths]
        if found[0] != found[1]:
            yield f"extended attributes {found[0]!r} and {found[1]!r}"


def _same_content(paths: tuple[bytes, bytes], left: os.stat_result, right: os.stat_result) -> bool:
    if left.st_size != right.st_size:
        return False
    with open(paths[0], "rb", buffering=0) as first, open(paths[1], "rb", buffering=0) as second:
        while block := _read(first.fileno()):
            if block != _read(second.fileno()):
                return False
    return True


def _read(descriptor: int) -> bytes:
    """Up to a block; short reads of one side must not count as a difference."""
    parts = []
    missing = _BLOCK_BYTES
    while missing and (part := os.read(descriptor, missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _xattrs(path: bytes) -> dict[str, bytes]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
        return {name: os.getxattr(path, name, follow_symlinks=False) for name in names if not _is_volatile(name)}
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return {}
        raise


def _is_volatile(name: str) -> bool:
    """Labels that the kernel of the machine gives by itself."""
    return name == "security.selinux"


def main() -> int:
    """Print the differences of two trees; 1 when there are any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("left", type=os.fsencode)
    parser.add_argument("right", type=os.fsencode)
    parser.add_argument("--ignore-owner", action="store_true")
    parser.add_argument("--ignore-device-times", action="store_true")
    arguments = parser.parse_args()
    aspects = Aspects(owner=not arguments.ignore_owner, device_times=not arguments.ignore_device_times)
    count = 0
    for line in differences(arguments.left, arguments.right, aspects):
        print(line)
        count += 1
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
