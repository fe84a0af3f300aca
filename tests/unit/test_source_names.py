"""Sorted names of directories that memory need not hold."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from backthen.repository.crypto import SpillCipher
from backthen.repository.errors import CacheError
from backthen.repository.source import Spill, sorted_names

_NAMES = sorted([b"%d" % number for number in range(2500)] + [b"\xff\xfe", b"new\nline", b"x" * 255, b" "])


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in _NAMES:
        (folder / os.fsdecode(name)).touch()
    descriptor = os.open(folder, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def _no_blocks(block: bytes) -> bytes:
    raise AssertionError("nothing should be spilled")


def test_few_names_are_sorted_in_memory(directory: int, tmp_path: Path) -> None:
    spill = Spill(tmp_path / "spill", _no_blocks, _no_blocks)
    assert list(sorted_names(directory, spill)) == _NAMES
    assert not spill.folder.exists()


@pytest.mark.parametrize("bound", [1, 7, 1000, len(_NAMES) - 1, len(_NAMES), len(_NAMES) + 1])
def test_many_names_are_merged_from_sealed_runs(directory: int, tmp_path: Path, bound: int) -> None:
    cipher = SpillCipher()
    blocks: list[bytes] = []

    def seal(block: bytes) -> bytes:
        blocks.append(cipher.seal(block))
        return blocks[-1]

    names = sorted_names(directory, Spill(tmp_path / "spill", seal, cipher.open), names_in_memory_max=bound)
    assert list(names) == _NAMES
    assert bool(blocks) == (bound <= len(_NAMES))
    assert not any(b"new\nline" in block or b"x" * 255 in block for block in blocks)


def test_what_is_spilled_has_no_name_and_goes_with_the_walk(directory: int, tmp_path: Path) -> None:
    open_before = len(os.listdir("/proc/self/fd"))
    cipher = SpillCipher()
    names = sorted_names(directory, Spill(tmp_path / "spill", cipher.seal, cipher.open), names_in_memory_max=100)
    assert next(names) == _NAMES[0]
    assert os.listdir(tmp_path / "spill") == []
    assert list(names) == _NAMES[1:]
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_a_folder_that_cannot_be_used_is_a_cache_error(directory: int, tmp_path: Path) -> None:
    (tmp_path / "spill").touch()
    cipher = SpillCipher()
    with pytest.raises(CacheError):
        sorted_names(directory, Spill(tmp_path / "spill", cipher.seal, cipher.open), names_in_memory_max=100)


def test_the_directory_can_be_read_again(directory: int, tmp_path: Path) -> None:
    spill = Spill(tmp_path / "spill", _no_blocks, _no_blocks)
    assert list(sorted_names(directory, spill)) == list(sorted_names(directory, spill))
