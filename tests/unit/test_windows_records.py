"""Times, file attributes, reparse data and security descriptors of Windows."""

from __future__ import annotations

import stat
import struct

import pytest

from backthen.fsmount.adapters.windows_records import (
    FILE_ATTRIBUTE_DIRECTORY,
    FILE_ATTRIBUTE_NORMAL,
    FILE_ATTRIBUTE_READONLY,
    FILE_ATTRIBUTE_REPARSE_POINT,
    file_attributes,
    filetime,
    reparse_data,
    security_descriptor,
)
from backthen.fsmount.view import Attributes

READER = "S-1-5-21-9"


@pytest.mark.parametrize(
    ("time_ns", "expected"),
    [
        (0, 116_444_736_000_000_000),
        (1_700_000_000_123_456_789, 133_444_736_001_234_567),
        (-1, 116_444_735_999_999_999),
        (-(10**19) * 2, 0),
        (10**30, 2**63 - 1),
    ],
)
def test_times_count_from_1601_and_stay_within_what_windows_shows(time_ns: int, expected: int) -> None:
    assert filetime(time_ns) == expected


@pytest.mark.parametrize(
    ("mode", "is_directory", "expected"),
    [
        (stat.S_IFREG | 0o644, False, FILE_ATTRIBUTE_NORMAL),
        (stat.S_IFREG | 0o444, False, FILE_ATTRIBUTE_READONLY),
        (stat.S_IFDIR | 0o555, True, FILE_ATTRIBUTE_DIRECTORY),
        (stat.S_IFLNK | 0o777, True, FILE_ATTRIBUTE_DIRECTORY | FILE_ATTRIBUTE_REPARSE_POINT),
        (stat.S_IFLNK | 0o777, False, FILE_ATTRIBUTE_REPARSE_POINT),
        (stat.S_IFIFO | 0o444, False, FILE_ATTRIBUTE_REPARSE_POINT),
    ],
)
def test_only_what_was_read_only_is_marked_so(mode: int, is_directory: bool, expected: int) -> None:
    assert file_attributes(mode, is_directory=is_directory) == expected


def test_symlink_is_relative_with_backslashes() -> None:
    found = Attributes(5, stat.S_IFLNK | 0o777, 1, 0, 0, 0, 0, 0, 0)
    path = "..\\a\uf03ab".encode("utf-16-le")

    assert (
        reparse_data(found, b"../a:b")
        == struct.pack("<IHHHHHHI", 0xA000000C, 12 + len(path), 0, 0, len(path), 0, len(path), 1) + path
    )


def test_device_has_its_numbers() -> None:
    found = Attributes(5, stat.S_IFBLK | 0o600, 1, 0, 0, 0, 0, 0, 0, 259, 7)

    assert reparse_data(found, b"") == struct.pack("<IHH8sII", 0x80000014, 16, 0, b"BLK", 259, 7)


@pytest.mark.parametrize(
    ("has_acl", "allow_other", "others"),
    [
        (False, False, "(A;;0x120089;;;S-1-22-2-6)"),
        (False, True, "(A;;0x120089;;;S-1-22-2-6)(A;;0x1200a0;;;WD)"),
        (True, True, ""),
    ],
)
def test_only_who_mounts_may_read_unless_others_are_let_in(has_acl: bool, allow_other: bool, others: str) -> None:
    found = security_descriptor(5, 6, 0o751 & ~0o010, reader=READER, has_acl=has_acl, allow_other=allow_other)

    assert found == f"O:S-1-22-1-5G:S-1-22-2-6D:P(A;;0x1200a9;;;{READER})(A;;0x1200a9;;;S-1-22-1-5){others}"
