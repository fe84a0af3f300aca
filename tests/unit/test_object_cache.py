"""The folder that keeps what was fetched: bounded, least recently used first, shared."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backthen.repository.storage import ObjectCache, cached_bytes, clear_cached

ENTRY = bytes(60_000)
ENTRY_BYTES = 61_440
BOUND = 32 * ENTRY_BYTES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "objects"


def _filled(folder: Path, count: int) -> ObjectCache:
    cache = ObjectCache(folder, BOUND)
    for number in range(count):
        cache.put(f"index/{number}", ENTRY)
        if (folder / "index" / str(number)).exists():
            os.utime(folder / "index" / str(number), ns=(number, number))
    return cache


def test_what_is_kept_is_private(folder: Path) -> None:
    ObjectCache(folder, BOUND).put("packs/ab/x-0", b"data")
    modes = {path.stat().st_mode & 0o777 for path in folder.rglob("*")} | {folder.stat().st_mode & 0o777}
    assert {0o700, 0o600} == modes


def test_the_bound_holds(folder: Path) -> None:
    _filled(folder, 100)
    assert BOUND / 2 < cached_bytes(folder) <= BOUND


def test_many_processes_that_keep_a_little_keep_the_bound(folder: Path) -> None:
    for number in range(100):
        ObjectCache(folder, BOUND).put(f"index/{number}", ENTRY)
    assert cached_bytes(folder) <= BOUND


def test_the_least_recently_used_goes_first(folder: Path) -> None:
    cache = _filled(folder, 25)
    assert ENTRY == cache.get("index/0")
    for number in range(25, 40):
        cache.put(f"index/{number}", ENTRY)
    assert (True, False) == ("index/0" in cache, "index/1" in cache)


def test_what_is_too_large_is_not_kept(folder: Path) -> None:
    cache = ObjectCache(folder, BOUND)
    cache.put("index/1", bytes(BOUND))
    assert None is cache.get("index/1")


def test_a_bound_of_nothing_keeps_nothing(folder: Path) -> None:
    cache = ObjectCache(folder, 0)
    cache.put("index/1", b"data")
    assert None is cache.get("index/1")
    assert not folder.exists()


@pytest.mark.parametrize("text", [b"", b"nonsense", b"-5", "²".encode(), b"9" * 32])
def test_a_count_that_was_damaged_is_counted_anew(folder: Path, text: bytes) -> None:
    _filled(folder, 5)
    (folder / "reserved").write_bytes(text)
    cache = ObjectCache(folder, BOUND)
    cache.put("index/x", ENTRY)
    assert ENTRY == cache.get("index/x")
    assert ENTRY == cache.get("index/4")


def test_clearing_says_how_much_there_was(folder: Path) -> None:
    assert (0, 0) == (clear_cached(folder), cached_bytes(folder))
    cache = _filled(folder, 3)
    assert 3 * ENTRY_BYTES == clear_cached(folder)
    assert (0, None) == (cached_bytes(folder), cache.get("index/1"))
    cache.put("index/1", ENTRY)
    assert ENTRY == cache.get("index/1")


@pytest.mark.parametrize("damage", [b"", b"short", bytes(200)])
def test_a_file_that_is_something_else_is_as_good_as_none(folder: Path, damage: bytes) -> None:
    cache = _filled(folder, 1)
    (folder / "index" / "0").write_bytes(damage)
    assert None is cache.get("index/0")
    assert "index/0" not in cache


def test_a_folder_in_a_files_place_is_as_good_as_none(folder: Path) -> None:
    cache = ObjectCache(folder, BOUND)
    (folder / "index" / "0").mkdir(parents=True)
    cache.put("index/0", b"data")
    assert None is cache.get("index/0")


def test_a_file_in_a_folders_place_matters_to_nobody(folder: Path) -> None:
    folder.write_bytes(b"")
    cache = ObjectCache(folder, BOUND)
    cache.put("index/0", b"data")
    cache.remove("index/0")
    cache.remove_beginning("index/")
    assert None is cache.get("index/0")


def test_what_begins_alike_is_removed(folder: Path) -> None:
    cache = ObjectCache(folder, BOUND)
    for key in ("packs/ab/x-0", "packs/ab/x-1", "packs/ab/y-0"):
        cache.put(key, b"data")
    cache.remove_beginning("packs/ab/x-")
    assert [None, None, b"data"] == [cache.get(key) for key in ("packs/ab/x-0", "packs/ab/x-1", "packs/ab/y-0")]
