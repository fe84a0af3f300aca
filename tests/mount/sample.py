"""The history that the behaviour suite looks at: three snapshots of two hosts, with one of everything."""

from __future__ import annotations

import struct

from backthen.repository import Entry, EntryType, SnapshotInfo
from backthen.repository.model.entry import unpack_extents
from tests.support.history import NS, Folder, MemoryHistory, Name

MONDAY_NS = 1_795_472_405 * NS + 123  # 2026-11-23T22:20:05Z
SECONDS_NS = 1_700_000_000 * NS + 123_456_789
BIG = b"".join(bytes([number]) * (300_000 + number) for number in range(12))
SPARSE = b"a" * 5000 + bytes(10_000_000) + b"b" * 100
ODD_NAMES = (b"\xff\xfe", b"new\nline", b"\x01\x7f", b"n" * 255, "ü".encode(), b" ", b"...", b"-")
MANY = 3000
LARGE_XATTR = bytes(range(256)) * 200


def _acl(named_user: int, *rights: int) -> bytes:
    """An ACL as <linux/posix_acl_xattr.h> has it, version 2; rights of owner, named user, group, mask, others."""
    nobody = 2**32 - 1
    ids = (nobody, named_user, nobody, nobody, nobody)
    return struct.pack("<I", 2) + b"".join(map(struct.Struct("<HHI").pack, (1, 2, 4, 16, 32), rights, ids))


ACL = _acl(1234, 6, 4, 0, 4, 0)
# All may read, save the user nobody.
DENYING_ACL = _acl(65534, 6, 0, 4, 4, 4)

_GROUP = b"linked"


def _kinds(history: MemoryHistory) -> Folder:
    write = history.writer
    linked = Name(_GROUP, write.file(b"linked content", mode=0o600))
    return Folder(
        {
            b"file": write.file(
                b"hello\n", mode=0o4751, uid=1001, gid=1002, mtime_ns=SECONDS_NS, ctime_ns=SECONDS_NS + 1
            ),
            b"old": write.file(b"", mtime_ns=-5 * NS + 7),
            b"empty": write.file(b""),
            b"big": write.file([bytes([number]) * (300_000 + number) for number in range(12)]),
            b"sparse": write.file([b"a" * 5000, 10_000_000, b"b" * 100]),
            b"huge": write.file([5 << 30, b"end"]),
            b"first": linked,
            b"second": linked,
            b"deeper": Folder({b"third": linked}),
            b"symlink": Entry(
                b"", EntryType.SYMLINK, 0o777, 1, 2, size=8, target=b"nowhere\xff", mtime_ns=3, ctime_ns=4
            ),
            b"fifo": _special(EntryType.FIFO, 0o620),
            b"socket": _special(EntryType.SOCKET, 0o777),
            b"character": _special(EntryType.CHARACTER_DEVICE, 0o666, 1, 300),
            b"block": _special(EntryType.BLOCK_DEVICE, 0o660, 259, 7),
            b"attributed": write.with_xattrs(write.file(b"x"), {b"user.small": b"1", b"user.zero": b""}),
            b"attributed-much": write.with_xattrs(write.file(b"x"), {b"user.large": LARGE_XATTR}),
            b"listed": write.with_xattrs(write.file(b"acl", mode=0o640), {b"system.posix_acl_access": ACL}),
            b"denied": write.with_xattrs(write.file(b"x", mode=0o644), {b"system.posix_acl_access": DENYING_ACL}),
            b"unread": write.file(b"", error="Permission denied"),
            b"unknown": Entry(b"", EntryType.UNKNOWN, error="Stale file handle"),
            b"damaged": write.file([b"d" * 1000, b"D" * 1000]),
            b"unlisted": Folder({}, Entry(b"", EntryType.DIRECTORY, 0o700, 1, 1, error="Permission denied")),
            b"nothing": Folder({}, Entry(b"", EntryType.DIRECTORY, 0o1777, 1, 1)),
        }
    )


def _special(kind: EntryType, mode: int, device_major: int = 0, device_minor: int = 0) -> Entry:
    return Entry(
        b"",
        kind,
        mode,
        12,
        34,
        mtime_ns=SECONDS_NS,
        ctime_ns=9 * NS,
        device_major=device_major,
        device_minor=device_minor,
    )


def sample_history() -> tuple[MemoryHistory, list[SnapshotInfo]]:
    """The history and its snapshots."""
    history = MemoryHistory()
    write = history.writer
    kinds = _kinds(history)
    damaged = kinds.children[b"damaged"]
    assert isinstance(damaged, Entry)
    history.blobs.damaged.add(list(unpack_extents(damaged.extents))[1].id)
    odd = Folder({name: write.file(name) for name in ODD_NAMES})
    many = Folder({f"{number:05d}".encode(): write.file(str(number).encode()) for number in range(MANY)})
    first = history.add(Folder({b"home": Folder({b"a": write.file(b"1")})}), host="one", started_ns=MONDAY_NS)
    second = history.add(
        Folder({b"home": Folder({b"a": write.file(b"2")})}), host="one", tags=("we_ek/ly",), started_ns=MONDAY_NS + 5
    )
    third = history.add(
        Folder({b"kinds": kinds, b"odd": odd, b"many": many}),
        host="t_w/o",
        tags=("we_ek/ly", "x"),
        started_ns=MONDAY_NS - 86400 * NS,
    )
    return history, [first, second, third]
