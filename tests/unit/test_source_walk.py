"""The walk: order, what it enters, what it survives."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backthen.repository.errors import InvalidRequest, PathNotFound
from backthen.repository.source import (
    EnterDirectory,
    ExclusionRules,
    Item,
    Items,
    LeaveDirectory,
    Problem,
    SavedPaths,
    Spill,
    saved_paths,
    walk,
)
from backthen.repository.source.walk import DESCRIPTORS_MAX

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts and other users need root")
_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"


@pytest.fixture
def spill(tmp_path: Path) -> Spill:
    return Spill(tmp_path / "spill", lambda block: block[::-1], lambda block: block[::-1])


@pytest.fixture
def top(tmp_path: Path) -> Path:
    folder = tmp_path / "top"
    folder.mkdir()
    return folder


def _walk(
    paths: SavedPaths,
    spill: Spill,
    *,
    rules: ExclusionRules | None = None,
    one_file_system: bool = False,
    descriptors_max: int = DESCRIPTORS_MAX,
) -> Generator[EnterDirectory | Item | Problem | LeaveDirectory]:
    """The walk, item by item."""
    walked = walk(paths, spill, rules=rules, one_file_system=one_file_system, descriptors_max=descriptors_max)
    with closing(walked) as events:
        for event in events:
            if isinstance(event, Items):
                yield from event.one_by_one()
            else:
                yield event


def _below(top: Path, events: Iterator[EnterDirectory | Item | Problem | LeaveDirectory]) -> list[bytes]:
    """Names below `top` in the order of the walk, directories with a slash."""
    start = os.fsencode(top) + b"/"
    shown = []
    for event in events:
        if isinstance(event, LeaveDirectory):
            assert event.error == ""
        elif event.path.startswith(start):
            shown.append(event.path[len(start) :] + (b"/" if isinstance(event, EnterDirectory) else b""))
    return shown


def _make(top: Path, *names: str) -> None:
    for name in names:
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.write_bytes(os.fsencode(name))


def test_names_come_depth_first_in_raw_byte_order(top: Path, spill: Spill) -> None:
    _make(top, "b", "a/z", "a/\udcff", "a-b", "a.b/c", "B")
    expected = [b"B", b"a/", b"a/z", b"a/\xff", b"a-b", b"a.b/", b"a.b/c", b"b"]
    assert sorted(os.listdir(os.fsencode(top))) == [b"B", b"a", b"a-b", b"a.b", b"b"]
    assert expected == _below(top, _walk(saved_paths([os.fsencode(top)]), spill))


def test_directories_above_are_entered_for_the_needed_names_alone(top: Path, spill: Spill) -> None:
    _make(top, "kept/a", "other/b")
    events = list(_walk(saved_paths([os.fsencode(top / "kept")]), spill))
    entered = [event.path for event in events if isinstance(event, EnterDirectory)]
    parts = os.fsencode(top / "kept").split(b"/")
    assert [b"/".join(parts[:depth]) or b"/" for depth in range(1, len(parts) + 1)] == entered
    assert os.lstat("/").st_ino == next(event.status.st_ino for event in events if isinstance(event, EnterDirectory))
    assert [b"a"] == [event.name for event in events if isinstance(event, Item)]


def test_every_directory_is_left_and_every_descriptor_closed(top: Path, spill: Spill) -> None:
    _make(top, "a/b/c/d", "a/e")
    before = os.listdir("/proc/self/fd")
    events = list(_walk(saved_paths([os.fsencode(top)]), spill))
    entered = sum(isinstance(event, EnterDirectory) for event in events)
    left = sum(isinstance(event, LeaveDirectory) for event in events)
    assert entered == left
    half = _walk(saved_paths([os.fsencode(top)]), spill)
    for _ in range(6):
        next(half)
    half.close()
    assert before == os.listdir("/proc/self/fd")


def test_nested_and_repeated_paths_are_walked_once(top: Path, spill: Spill) -> None:
    _make(top, "a/b/c", "a/d")
    paths = saved_paths(
        [os.fsencode(top / "a" / "b"), os.fsencode(top), os.fsencode(top) + b"//a/../a", os.fsencode(top)]
    )
    assert tuple(os.fsencode(path) for path in (top, top / "a", top / "a" / "b")) == paths.paths
    assert [b"a/", b"a/b/", b"a/b/c", b"a/d"] == _below(top, _walk(paths, spill))


def test_a_link_at_the_end_of_a_path_is_saved_and_one_before_it_resolved(top: Path, spill: Spill) -> None:
    _make(top, "real/file")
    (top / "link").symlink_to("real")
    assert (os.fsencode(top / "link"),) == saved_paths([os.fsencode(top / "link")]).paths
    assert (os.fsencode(top / "link"),) == saved_paths([os.fsencode(top / "link") + b"/"]).paths
    assert (os.fsencode(top / "real" / "file"),) == saved_paths([os.fsencode(top / "link" / "file")]).paths
    assert (os.fsencode(top / "real"),) == saved_paths([os.fsencode(top / "link") + b"/."]).paths
    items = [event for event in _walk(saved_paths([os.fsencode(top / "link")]), spill) if isinstance(event, Item)]
    assert [b"link"] == [item.name for item in items]


def test_relative_paths_begin_in_the_working_directory(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _make(top, "a/b")
    monkeypatch.chdir(top / "a")
    expected = tuple(os.fsencode(path) for path in (top, top / "a", top / "a" / "b"))
    assert expected == saved_paths([b"b", b".", b".."]).paths


@pytest.mark.parametrize("path", [b"/nothing/there", b"/etc/hostname/below"])
def test_a_path_that_is_not_there_is_refused(path: bytes) -> None:
    with pytest.raises(PathNotFound):
        saved_paths([path])


def test_no_path_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        saved_paths([])


def test_a_directory_swapped_for_a_link_is_not_followed(top: Path, spill: Spill) -> None:
    _make(top, "a/first", "b/inside", "secret/file")
    events = _walk(saved_paths([os.fsencode(top)]), spill)
    for event in events:
        if isinstance(event, Item) and event.name == b"first":
            (top / "b").rename(top / "was b")
            (top / "b").symlink_to("secret")
            break
    found = [event for event in events if isinstance(event, Item | EnterDirectory) and event.name == b"b"]
    assert [True] == [stat.S_ISLNK(event.status.st_mode) for event in found]


def test_a_directory_swapped_after_it_was_looked_at_is_a_problem(
    top: Path, spill: Spill, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make(top, "a/inside", "secret/file")
    opened = os.open

    def swap_then_open(path: bytes, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == b"a":
            (top / "a").rename(top / "was a")
            (top / "a").symlink_to("secret")
        return opened(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", swap_then_open)
    problems = [event for event in _walk(saved_paths([os.fsencode(top)]), spill) if isinstance(event, Problem)]
    assert [(b"a", "it was replaced while the folder was read")] == [(event.name, event.message) for event in problems]


def test_ten_thousand_levels_are_walked_with_few_descriptors(top: Path, spill: Spill) -> None:
    depth = 10_000
    current = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=current)
        below = os.open("d", os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = below
    os.close(os.open("deepest", os.O_CREAT | os.O_WRONLY, dir_fd=current))
    os.close(current)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 80, hard))
    try:
        events = list(_walk(saved_paths([os.fsencode(top)]), spill))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        subprocess.run(["rm", "-rf", str(top)], check=True)
    entered = sum(isinstance(event, EnterDirectory) and event.name == b"d" for event in events)
    (item,) = [event for event in events if isinstance(event, Item)]
    assert depth == entered
    assert os.fsencode(top) + b"/d" * depth + b"/deepest" == item.path
    assert {""} == {event.error for event in events if isinstance(event, LeaveDirectory)}


def test_names_after_a_deep_directory_are_found_though_it_was_moved(top: Path, spill: Spill) -> None:
    _make(top, "a/a/a/a/z", "a/a/a/z", "a/a/z", "a/z", "z")
    events = _walk(saved_paths([os.fsencode(top)]), spill, descriptors_max=2)
    seen: list[bytes] = []
    for event in events:
        if isinstance(event, Item):
            if not seen:
                (top / "a" / "a" / "a" / "a").rename(top / "moved")
            seen.append(event.path)
    start = os.fsencode(top)
    assert [b"/a/a/a/a/z", b"/a/a/a/z", b"/a/a/z", b"/a/z", b"/z"] == [path[len(start) :] for path in seen]


def test_a_closed_directory_that_was_moved_away_is_left_with_an_error(top: Path, spill: Spill) -> None:
    _make(top, "a/a/a/a/z", "a/a/a/z", "a/a/z", "a/z", "z")
    elsewhere = top.parent / "elsewhere"
    elsewhere.mkdir()
    errors: list[bytes] = []
    seen: list[bytes] = []
    for event in _walk(saved_paths([os.fsencode(top)]), spill, descriptors_max=1):
        if isinstance(event, Item):
            if not seen:
                (top / "a" / "a" / "a" / "a").rename(elsewhere / "one")
                (top / "a" / "a" / "a").rename(elsewhere / "two")
            seen.append(event.path[len(os.fsencode(top)) :])
        elif isinstance(event, LeaveDirectory) and event.error:
            errors.append(event.directory.path[len(os.fsencode(top)) :])
    assert [b"/a/a/a"] == errors
    assert [b"/a/a/a/a/z", b"/a/a/z", b"/a/z", b"/z"] == seen


@needs_root
def test_an_unreadable_directory_is_a_problem_and_the_rest_is_walked(top: Path, spill: Spill) -> None:
    _make(top, "closed/inside", "open/inside")
    (top / "closed").chmod(0)
    for folder in (top, *top.parents):
        if folder.stat().st_uid == 0 and str(folder).startswith("/tmp/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    os.seteuid(65534)
    try:
        events = list(_walk(saved_paths([os.fsencode(top)]), spill))
    finally:
        os.seteuid(0)
    (problem,) = [event for event in events if isinstance(event, Problem)]
    assert (b"closed", "Permission denied") == (problem.name, problem.message)
    assert problem.status is not None and stat.S_ISDIR(problem.status.st_mode)
    assert [b"inside"] == [event.name for event in events if isinstance(event, Item)]


@needs_root
def test_another_file_system_is_saved_as_an_empty_directory(top: Path, spill: Spill) -> None:
    _make(top, "a", "mounted/", "z")
    subprocess.run(["mount", "-t", "tmpfs", "none", str(top / "mounted")], check=True)
    try:
        (top / "mounted" / "inside").touch()
        paths = saved_paths([os.fsencode(top)])
        assert [b"a", b"mounted", b"z"] == _below(top, _walk(paths, spill, one_file_system=True))
        assert [b"a", b"mounted/", b"mounted/inside", b"z"] == _below(top, _walk(paths, spill))
        named = saved_paths([os.fsencode(top), os.fsencode(top / "mounted")])
        assert [b"a", b"mounted/", b"mounted/inside", b"z"] == _below(top, _walk(named, spill, one_file_system=True))
    finally:
        subprocess.run(["umount", str(top / "mounted")], check=True)


def _kept(top: Path, spill: Spill, rules: ExclusionRules, *paths: Path) -> list[bytes]:
    saved = saved_paths([os.fsencode(path) for path in paths or (top,)])
    return _below(top, _walk(saved, spill, rules=rules))


def test_patterns_are_anchored_at_each_path(top: Path, spill: Spill) -> None:
    _make(top, "one/x", "one/in/x", "two/x", "two/y.o", "two/keep.o")
    rules = ExclusionRules(patterns=("/x", "*.o", "!keep.o"))
    assert [b"one/", b"one/in/", b"one/in/x", b"two/", b"two/keep.o"] == _kept(
        top, spill, rules, top / "one", top / "two"
    )
    rules = ExclusionRules(patterns=("one/in/x",))
    assert b"one/in/x" not in _kept(top, spill, rules)
    assert b"one/in/x" in _kept(top, spill, rules, top / "one")


def test_nothing_in_an_excluded_directory_comes_back(top: Path, spill: Spill) -> None:
    _make(top, "out/file", "in")
    assert [b"in"] == _kept(top, spill, ExclusionRules(patterns=("out/", "!out/file")))


def test_a_path_that_was_named_is_saved_though_a_pattern_excludes_its_folder(top: Path, spill: Spill) -> None:
    _make(top, "out/file", "out/deep/named", "in")
    rules = ExclusionRules(patterns=("out",))
    assert [b"in", b"out/", b"out/deep/", b"out/deep/named"] == _kept(top, spill, rules, top, top / "out" / "deep")


def test_of_a_cache_directory_the_tag_alone_is_kept(top: Path, spill: Spill) -> None:
    _make(top, "cache/data", "cache/more/data", "fake/data", "linked/data")
    (top / "cache" / "CACHEDIR.TAG").write_bytes(_SIGNATURE + b"\n# made by a test\n")
    (top / "fake" / "CACHEDIR.TAG").write_bytes(_SIGNATURE[:-1])
    (top / "linked" / "CACHEDIR.TAG").symlink_to("../cache/CACHEDIR.TAG")
    assert [
        b"cache/",
        b"cache/CACHEDIR.TAG",
        b"fake/",
        b"fake/CACHEDIR.TAG",
        b"fake/data",
        b"linked/",
        b"linked/CACHEDIR.TAG",
        b"linked/data",
    ] == _kept(top, spill, ExclusionRules(caches=True))


def test_of_a_directory_with_a_marker_the_marker_alone_is_kept(top: Path, spill: Spill) -> None:
    _make(top, "a/.nobackup", "a/data", "b/data", "c/.skip/inside", "c/data")
    rules = ExclusionRules(if_present=(b".nobackup", b".skip"))
    assert [b"a/", b"a/.nobackup", b"b/", b"b/data", b"c/", b"c/.skip/", b"c/.skip/inside"] == _kept(top, spill, rules)


@pytest.mark.parametrize("name", [b"", b"a/b", b"a\0"])
def test_a_marker_must_be_a_name(name: bytes) -> None:
    with pytest.raises(InvalidRequest):
        ExclusionRules(if_present=(name,))


def test_a_file_that_disappears_is_passed_over_silently(
    top: Path, spill: Spill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[walk.__module__], "_ITEMS_MAX", 1)
    _make(top, "a", "b", "c")
    seen = []
    for event in _walk(saved_paths([os.fsencode(top)]), spill):
        if isinstance(event, Item):
            seen.append(event.name)
            (top / "b").unlink(missing_ok=True)
        assert not isinstance(event, Problem)
    assert [b"a", b"c"] == seen
