"""Reading the mount table."""

from __future__ import annotations

from pathlib import Path

from backthen.fsmount.mounting import MountLine, parse_mount_table

TABLE = b"".join(
    [
        b"22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n",
        b"42 22 0:39 / /mnt/with\\040space\\011tab\\012line\\134back\rreturn ro,nosuid,nodev,relatime shared:2",
        b" master:1 - fuse.backthen backthen ro,user_id=0\n",
        b"43 22 0:40 / /mnt/plain rw - fuse.sshfs host:/a\\040b rw,allow_other\n",
        b"44 22 0:41 / /mnt/\xff rw - tmpfs  rw\n",
    ]
)


def test_lines_are_read_with_optional_fields_and_octal_escapes() -> None:
    root, ours, plain, odd = parse_mount_table(TABLE)

    assert root.mountpoint == Path("/")
    assert ours == MountLine(
        id=42,
        device="0:39",
        mountpoint=Path("/mnt/with space\ttab\nline\\back\rreturn"),
        options=frozenset({"ro", "nosuid", "nodev", "relatime"}),
        file_system="fuse.backthen",
        file_system_options=frozenset({"ro", "user_id=0"}),
    )
    assert plain.file_system == "fuse.sshfs"
    assert odd.mountpoint == Path("/mnt/\udcff")
