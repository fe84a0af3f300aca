"""Patterns mean what git says they mean: git itself is asked."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backthen.repository.source.patterns import PatternList, split_lines

_NAMES = (b"a", b"b", b"ab", b"b.o", b"a b", b"[", b"-", b"\\", b"A1", b"a\nb", b"\xff", b"!x", b"#", b"a ")
_FOLDERS = (b"a", b"b", b"ab", b"x.d", b"a\nb")
_PIECES = st.sampled_from(
    ["a", "b", "ab", ".o", "x", "*", "**", "?", "/", "/", "!", "#", "\\", " ", "[", "]", "[a-c]", "[!a]", "[^b]", "[]]"]  # noqa: RUF005
    + ["[[:alpha:]]", "[[:digit:]b]", "[[:nope:]]", "[b-a]", "[a-]", "[\\]]", "-", "**/", "/**", "/**/", "*.o"]
)
# What git makes of `a**/b` depended on the addresses of its strings before 2.41; by its manual it is `a*/b`.
_PATTERN = st.lists(_PIECES, min_size=1, max_size=6).map("".join).filter(lambda text: not re.search(r"[^/]\*\*", text))
_PATTERN_LISTS = st.lists(st.one_of(_PATTERN, _PATTERN.map(lambda text: "!" + text)), min_size=1, max_size=5)


class _Tree:
    """Folders and files that git looks at."""

    def __init__(self, top: Path) -> None:
        self.top = os.fsencode(top)
        subprocess.run(["git", "init", "-q", str(top)], check=True)
        prefixes = [
            b"",
            *(a + b"/" for a in _FOLDERS),
            *(a + b"/" + b + b"/" for a, b in itertools.product(_FOLDERS, repeat=2)),
        ]
        self._files: dict[bytes, set[bytes]] = {}
        for prefix in prefixes:
            folder = os.path.join(self.top, prefix)
            os.makedirs(folder, exist_ok=True)
            taken = _FOLDERS if prefix.count(b"/") < 2 else ()
            self._files[prefix] = {name for name in _NAMES if name not in taken}
            for name in self._files[prefix]:
                Path(os.fsdecode(folder + name)).touch()

    def kept_by_git(self, patterns: list[str]) -> set[bytes]:
        exclude = Path(os.fsdecode(self.top)) / ".git" / "info" / "exclude"
        exclude.write_bytes("\n".join(patterns).encode("utf-8", "surrogateescape") + b"\n")
        command = ["git", "-C", os.fsdecode(self.top), "ls-files", "--others", "--exclude-standard", "-z"]
        return set(subprocess.run(command, check=True, capture_output=True).stdout.split(b"\0")) - {b""}

    def kept_by_us(self, patterns: list[str]) -> set[bytes]:
        return set(self._kept_in(PatternList(patterns), b""))

    def _kept_in(self, patterns: PatternList, prefix: bytes) -> Iterator[bytes]:
        for name in self._files[prefix]:
            if patterns.decide(prefix, name, is_directory=False) is not True:
                yield prefix + name
        for name in _FOLDERS:
            below = prefix + name + b"/"
            if below in self._files and patterns.decide(prefix, name, is_directory=True) is not True:
                yield from self._kept_in(patterns, below)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> _Tree:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    return _Tree(tmp_path_factory.mktemp("patterns"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(patterns=_PATTERN_LISTS)
def test_the_same_files_are_kept_as_by_git(tree: _Tree, patterns: list[str]) -> None:
    assert tree.kept_by_git(patterns) == tree.kept_by_us(patterns)


@pytest.mark.parametrize(
    "patterns",
    [
        ["*", "!*/", "!b.o"],
        ["/*", "!/a", "/a/*", "!/a/b"],
        ["a/**", "!a/b"],
        ["**/a/b/*.o"],
        ["a/**/b.o"],
        ["x.d/"],
        ["!a", "a"],
        ["\\!x", "\\#"],
        ["a\\ "],
        ["a b   "],
        ["[[]", "\\\\"],
        ["\udcff"],
        ["a*b"],
        ["a?b"],
        ["a/b.o", "!b.o"],
        ["b.o\r"],
        ["**"],
        ["/**/"],
        ["a/"],
    ],
)
def test_known_idioms_keep_what_git_keeps(tree: _Tree, patterns: list[str]) -> None:
    assert tree.kept_by_git(patterns) == tree.kept_by_us(
        split_lines("\n".join(patterns).encode("utf-8", "surrogateescape"))
    )


@given(st.lists(st.text(max_size=12), max_size=4), st.binary(min_size=1, max_size=8), st.booleans())
def test_any_text_is_a_pattern(patterns: list[str], name: bytes, is_directory: bool) -> None:
    decision = PatternList(patterns).decide(b"below/", name.replace(b"/", b"_"), is_directory=is_directory)
    assert decision in (True, False, None)
