"""Patterns as in a .gitignore file, matched against raw names byte by byte, as git does.

A pattern says something about one name at one place. That what is below an excluded directory is excluded too follows
from not entering it; so directories are judged before what they hold, and a pattern never looks at the names above.

Sources: gitignore(5); git's `dir.c` (how a line is read) and `wildmatch.c` (how it is matched).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby
from typing import NamedTuple

from backthen.repository.errors import InvalidRequest

_PATTERNS_MAX = 100_000
_POSIX_CLASSES = {
    b"alnum": rb"0-9A-Za-z",
    b"alpha": rb"A-Za-z",
    b"blank": rb" \t",
    b"cntrl": rb"\x00-\x1f\x7f",
    b"digit": rb"0-9",
    b"graph": rb"!-~",
    b"lower": rb"a-z",
    b"print": rb" -~",
    b"punct": rb"!-/:-@\[-`{-~",
    b"space": rb" \t\n\r\x0b\x0c",
    b"upper": rb"A-Z",
    b"xdigit": rb"0-9A-Fa-f",
}


class _Line(NamedTuple):
    """One pattern. `has_place` when it is matched against the whole path and not the name alone."""

    is_negated: bool
    has_place: bool
    expression: bytes


class _Run(NamedTuple):
    """Neighbouring patterns of one sign, each kind in one expression."""

    is_negated: bool
    names: re.Pattern[bytes] | None
    paths: re.Pattern[bytes] | None


class PatternList:
    """Patterns in order, of which the last that matches decides."""

    __slots__ = ("_runs", "needs_paths")

    def __init__(self, patterns: Iterable[str]) -> None:
        """Compile patterns; empty ones and comments say nothing.

        Raises:
            InvalidRequest: there are too many, or they are too large to compile.
        """
        lines = [line for line in map(_parse, patterns) if line is not None]
        if len(lines) > _PATTERNS_MAX:
            raise InvalidRequest(f"there are more than {_PATTERNS_MAX} patterns")
        grouped = groupby(reversed(lines), key=lambda line: line.is_negated)
        self._runs = [_compile(list(run), is_negated=is_negated) for is_negated, run in grouped]
        self.needs_paths = any(run.paths is not None for run in self._runs)

    def __bool__(self) -> bool:
        return bool(self._runs)

    def decide(self, directory: bytes, name: bytes, *, is_directory: bool) -> bool | None:
        """What the last pattern that matches says: True, or False when it is negated; None when none matches.

        Args:
            directory: path of the directory relative to where patterns are anchored, empty or with a slash at its end;
                it is not looked at unless `needs_paths`.
            name: a name in it.
            is_directory: whether the name is a directory.
        """
        shown = name + b"/" if is_directory else name
        for run in self._runs:
            if run.names is not None and run.names.fullmatch(shown):
                return not run.is_negated
            if run.paths is not None and run.paths.fullmatch(directory + shown):
                return not run.is_negated
        return None


def split_lines(text: bytes) -> list[str]:
    """The patterns in the content of a file of patterns."""
    lines = text.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return [line.removesuffix(b"\r").decode("utf-8", "surrogateescape") for line in lines]


def _compile(lines: list[_Line], *, is_negated: bool) -> _Run:
    return _Run(
        is_negated,
        _alternatives(line.expression for line in lines if not line.has_place),
        _alternatives(line.expression for line in lines if line.has_place),
    )


def _alternatives(expressions: Iterable[bytes]) -> re.Pattern[bytes] | None:
    together = b"|".join(expressions)
    if not together:
        return None
    try:
        return re.compile(together, re.DOTALL)
    except (re.error, OverflowError, RecursionError) as error:
        raise InvalidRequest(f"the patterns cannot be compiled ({error})") from error


def _parse(text: str) -> _Line | None:
    pattern = _without_trailing_spaces(text.encode("utf-8", "surrogateescape"))
    if pattern.startswith(b"#"):
        return None
    is_negated = pattern.startswith(b"!")
    pattern = pattern[is_negated:]
    is_for_directories = pattern.endswith(b"/")
    pattern = pattern[:-1] if is_for_directories else pattern
    has_place = b"/" in pattern
    expression = _translate(pattern.removeprefix(b"/"), has_place=has_place)
    if not pattern or expression is None:
        return None
    # The name itself ends before the slash that marks a directory, and is not empty.
    return _Line(is_negated, has_place, expression + (b"(?<=[^/])/" if is_for_directories else b"(?<=[^/])/?"))


def _without_trailing_spaces(pattern: bytes) -> bytes:
    kept = pattern.rstrip(b" ")
    backslashes = len(kept) - len(kept.rstrip(b"\\"))
    is_escaped = backslashes % 2 == 1 and len(kept) < len(pattern)
    return kept + b" " if is_escaped else kept


def _translate(pattern: bytes, *, has_place: bool) -> bytes | None:
    """The expression of a pattern, or None for one that git never matches."""
    parts: list[bytes] = []
    index = 0
    while index < len(pattern):
        character = pattern[index : index + 1]
        if character == b"*":
            part, index = _translate_stars(pattern, index, has_place=has_place)
        elif character == b"?":
            part, index = b"[^/]", index + 1
        elif character == b"[":
            found = _translate_class(pattern, index)
            if found is None:
                return None
            part, index = found
        elif character == b"\\":
            if index + 1 == len(pattern):
                return None
            part, index = re.escape(pattern[index + 1 : index + 2]), index + 2
        else:
            part, index = re.escape(character), index + 1
        parts.append(part)
    return b"".join(parts)


def _translate_stars(pattern: bytes, start: int, *, has_place: bool) -> tuple[bytes, int]:
    """Stars that begin at `start`: (expression, index after them). Two alone between slashes cross directories."""
    end = start
    while pattern[end : end + 1] == b"*":
        end += 1
    is_alone = pattern[start - 1 : start] in (b"", b"/") and pattern[end : end + 1] in (b"", b"/")
    if end - start < 2 or not has_place or not is_alone:
        return b"[^/]*", end
    if end == len(pattern):
        return b".*", end
    return b"(?:.*/)?", end + 1


def _translate_class(pattern: bytes, start: int) -> tuple[bytes, int] | None:
    """A bracket that opens at `start`: (expression, index after it), or None where it does not close."""
    index = start + 1
    is_negated = pattern[index : index + 1] in (b"!", b"^")
    index += is_negated
    members: list[bytes] = []
    is_first = True
    while True:
        character = pattern[index : index + 1]
        if not character:
            return None
        if character == b"]" and not is_first:
            break
        is_first = False
        found = _translate_member(pattern, index)
        if found is None:
            return None
        member, index = found
        members.append(member)
    inside = b"".join(members)
    if is_negated:
        return b"[^/" + inside + b"]", index + 1
    return (b"(?!/)[" + inside + b"]" if inside else b"(?!)"), index + 1


def _translate_member(pattern: bytes, index: int) -> tuple[bytes, int] | None:
    """One member of a bracket: a POSIX class, a range or a byte. None if it is broken."""
    if pattern.startswith(b"[:", index):
        end = pattern.find(b"]", index + 2)
        if end < 0:
            return None
        if pattern[end - 1 : end] == b":" and end - 1 >= index + 2:
            members = _POSIX_CLASSES.get(pattern[index + 2 : end - 1])
            return None if members is None else (members, end + 1)
    first = _read_byte(pattern, index)
    if first is None:
        return None
    low, index = first
    if pattern[index : index + 1] != b"-" or pattern[index + 1 : index + 2] in (b"", b"]"):
        return re.escape(low), index
    second = _read_byte(pattern, index + 1)
    if second is None:
        return None
    high, index = second
    # A range that runs backwards holds its first byte alone, in git.
    return (re.escape(low) + b"-" + re.escape(high) if low <= high else re.escape(low)), index


def _read_byte(pattern: bytes, index: int) -> tuple[bytes, int] | None:
    """One byte inside a bracket, perhaps escaped: (byte, index after it)."""
    index += pattern[index : index + 1] == b"\\"
    return None if index >= len(pattern) else (pattern[index : index + 1], index + 1)
