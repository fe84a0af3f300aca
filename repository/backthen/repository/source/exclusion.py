"""What a snapshot leaves out: by pattern, and by files that tell what their folder holds."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from backthen.repository.errors import InvalidRequest
from backthen.repository.source.patterns import PatternList

CACHE_TAG_NAME = b"CACHEDIR.TAG"
CACHE_TAG_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"
_TAG_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class ExclusionRules:
    """What is left out below each saved path; the path itself is always saved.

    An excluded directory is not entered, so that nothing in it can be brought back by a later pattern, as in git.

    Attributes:
        patterns: as in a .gitignore file that stands in the saved path; the last that matches decides.
        caches: of a folder with a cache directory tag keep the folder and the tag alone (Cache Directory Tagging
            Specification: `CACHEDIR.TAG`, a regular file that begins with a certain signature).
        if_present: of a folder that holds one of these names, whatever it is, keep the folder and that name alone, as
            restic does for its option of the same name.
    """

    patterns: tuple[str, ...] = ()
    caches: bool = False
    if_present: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        for name in self.if_present:
            if not name or b"/" in name or b"\0" in name:
                raise InvalidRequest(f"{os.fsdecode(name)!r} is no name that a folder can hold")

    def compile(self) -> Exclusion | None:
        """The rules in the form that is quick to ask; None when they leave nothing out.

        Raises:
            InvalidRequest: the patterns cannot be compiled.
        """
        patterns = PatternList(self.patterns)
        if not patterns and not self.caches and not self.if_present:
            return None
        return Exclusion(patterns, caches=self.caches, if_present=self.if_present)


class Exclusion:
    """Compiled rules. `patterns` is None when there are none."""

    __slots__ = ("_caches", "_if_present", "patterns")

    def __init__(self, patterns: PatternList, *, caches: bool, if_present: tuple[bytes, ...]) -> None:
        self.patterns = patterns or None
        self._caches = caches
        self._if_present = if_present

    def find_tag(self, directory: int) -> bytes | None:
        """The name in an open directory that tells to leave out all other names."""
        for name in self._if_present:
            if _exists(directory, name):
                return name
        if self._caches and _is_cache_tag(directory):
            return CACHE_TAG_NAME
        return None


def _exists(directory: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False
    return True


def _is_cache_tag(directory: int) -> bool:
    try:
        descriptor = os.open(CACHE_TAG_NAME, _TAG_FLAGS, dir_fd=directory)
    except OSError:
        return False
    try:
        is_regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return is_regular and os.read(descriptor, len(CACHE_TAG_SIGNATURE)) == CACHE_TAG_SIGNATURE
    except OSError:
        return False
    finally:
        os.close(descriptor)
