"""SNAPSHOT[:PATH], and the paths of the command line."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from backthen.cli.commands.check import parse_percent
from backthen.cli.commands.mount import log_path
from backthen.cli.commands.snapshot import check_text
from backthen.cli.failures import RequestError, UsageFailure
from backthen.cli.paths import absolute_source, local_folder
from backthen.cli.selection import Reference, parse_reference, parse_selector
from backthen.cli.snapshot_table import short_length
from backthen.repository import AtTime, IdPrefix, Latest, SnapshotInfo

NOW = 1_795_000_000 * 10**9


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("latest", Reference("latest", None)),
        ("latest:/", Reference("latest", b"")),
        ("latest:/home/me/", Reference("latest", b"home/me")),
        ("2026-11-20 10:15:/a:/b", Reference("2026-11-20 10:15", b"a:/b")),
        ("3f2a:b", Reference("3f2a:b", None)),
        ("latest:/caf\udce9", Reference("latest", b"caf\xe9")),
    ],
)
def test_a_reference_is_split_at_its_first_colon_and_slash(text: str, expected: Reference) -> None:
    assert expected == parse_reference(text)


def known(*ids: str) -> list[SnapshotInfo]:
    return [cast(SnapshotInfo, SimpleNamespace(id=bytes.fromhex(id_.ljust(64, "0")))) for id_ in ids]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("latest", Latest(0)),
        ("Latest~2", Latest(2)),
        ("3f2a", IdPrefix("3f2a")),
        ("3F2A", IdPrefix("3f2a")),
        ("now", AtTime(NOW)),
        ("2026-11-18T11:06:40.5Z", AtTime(NOW + 599_999_999)),
        ("beef", IdPrefix("beef")),
    ],
)
def test_a_selector_is_understood(text: str, expected: object) -> None:
    assert expected == parse_selector(text, known("3f2a91"), NOW)


@pytest.mark.parametrize("text", ["", "newest", "latest~", "2026-99-99", "0x3f"])
def test_what_names_no_snapshot_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="is not a snapshot"):
        parse_selector(text, known("3f2a91"), NOW)


def test_a_path_is_absolute_with_its_parent_resolved_and_its_last_link_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "real"
    (real / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    base = os.fsencode(tmp_path.resolve())
    assert base + b"/link" == absolute_source("link")
    assert base + b"/link" == absolute_source("./link//")
    assert base + b"/real/below" == absolute_source("link/below")
    assert base + b"/real" == absolute_source("link/below/..")
    assert base == absolute_source(".")
    assert absolute_source("//") == b"/"
    assert base + b"/caf\xe9" == absolute_source("caf\udce9")


@pytest.mark.parametrize(("text", "expected"), [("5%", 5), ("2.5", 2.5), ("100%", 100)])
def test_a_part_is_understood(text: str, expected: float) -> None:
    assert expected == parse_percent(text)


@pytest.mark.parametrize("text", ["0%", "101%", "-1%", "five", "nan", ""])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(UsageFailure):
        parse_percent(text)


@pytest.mark.parametrize("text", ["", "a\nb", "caf\udce9"])
def test_what_cannot_be_recorded_as_text_is_refused(text: str) -> None:
    with pytest.raises(UsageFailure):
        check_text("--tag", text)


def test_ids_are_shown_with_digits_enough_to_tell_them_apart() -> None:
    assert short_length(["1" * 64, "2" * 64, "2" * 64]) == 8
    assert short_length(["1" * 64, "1" * 10 + "2" * 54]) == 11


@pytest.mark.parametrize(
    ("location", "expected"), [("/a b", Path("/a b")), ("file:///a%20b", Path("/a b")), ("sftp://host/a", None)]
)
def test_a_repository_on_this_machine_has_a_folder(location: str, expected: Path | None) -> None:
    assert expected == local_folder(location)


@pytest.mark.parametrize(
    ("mountpoint", "expected"),
    [("/home/me/My Past", "mount-home-me-My-Past.log"), ("/" + "x" * 300, f"mount-{'x' * 100}.log")],
)
def test_a_log_is_named_after_its_mountpoint(mountpoint: str, expected: str) -> None:
    assert Path("/logs") / expected == log_path(Path("/logs"), Path(mountpoint))


def test_an_empty_path_is_not_the_top() -> None:
    with pytest.raises(UsageFailure):
        absolute_source("")
