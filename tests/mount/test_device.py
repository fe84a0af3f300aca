"""The first request of a mount and its answer, and mounts that are refused. What mounts do is in the other files."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from backthen.fsmount.adapters.device import open_mounted_device, with_kept_symlinks
from backthen.fsmount.errors import MountRefused

CACHE_SYMLINKS = 1 << 23  # <linux/fuse.h>
OTHERS = 0x0500_4321


def _request(flags: int) -> bytes:
    """FUSE_INIT as the kernel puts it: a header, versions, read-ahead, flags, and what later versions add."""
    return (
        struct.pack("=IIQQIIIHH", 104, 26, 2, 0, 0, 0, 0, 0, 0) + struct.pack("=IIII", 7, 45, 131072, flags) + bytes(48)
    )


def _answer(flags: int) -> bytes:
    return struct.pack("=IiQ", 80, 0, 2) + struct.pack("=IIII", 7, 31, 131072, flags) + bytes(range(48))


@pytest.mark.parametrize(
    ("offered", "expected"), [(OTHERS | CACHE_SYMLINKS, OTHERS | CACHE_SYMLINKS), (OTHERS, OTHERS), (0, OTHERS)]
)
def test_symlinks_are_kept_where_the_kernel_can_and_nothing_else_changes(offered: int, expected: int) -> None:
    assert _answer(expected) == with_kept_symlinks(_request(offered), _answer(OTHERS))


def test_refusal_says_what_the_system_says(tmp_path: Path) -> None:
    with pytest.raises(MountRefused, match="No such file or directory") as caught:
        open_mounted_device(tmp_path / "none", ["ro"])
    assert "fuse3" in caught.value.hint
