"""Which snapshot is meant: SNAPSHOT[:PATH] on the command line, and the options that narrow the choice."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import click

from backthen.cli.clocks import now_ns
from backthen.cli.failures import RequestError
from backthen.cli.names import shown_text
from backthen.cli.paths import absolute_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backthen.repository import Repository, Selector, SnapshotInfo

_LATEST = re.compile(r"latest(?:~(\d{1,9}))?")
_ID = re.compile(r"[0-9a-f]{1,64}")

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Narrowing:
    """The snapshots among which one is chosen: of this host, with all these tags, of exactly this saved path."""

    host: str | None = None
    tags: tuple[str, ...] = ()
    path: bytes | None = None


def narrowing_options(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """Give a command `--host`, `--tag` and `--path`, and the function a `narrowing`."""

    @click.option("--host", metavar="NAME", help="Only snapshots of this host.")
    @click.option("--tag", "tags", metavar="T", multiple=True, help="Only snapshots with this tag; repeated: with all.")
    @click.option("--path", metavar="PATH", help="Only snapshots of exactly this saved path.")
    @functools.wraps(function)
    def narrowed(*args: object, host: str | None, tags: tuple[str, ...], path: str | None, **kwargs: object) -> _Result:
        narrowing = Narrowing(host, tags, None if path is None else absolute_source(path))
        return function(*args, narrowing=narrowing, **kwargs)

    return narrowed


@dataclass(frozen=True, slots=True)
class Reference:
    """SNAPSHOT[:PATH]; the path is that below the top, without slashes at its ends, or None where none was given."""

    snapshot: str
    path: bytes | None


def parse_reference(text: str) -> Reference:
    """Split SNAPSHOT[:PATH] at the first `:/`."""
    snapshot, separator, path = text.partition(":/")
    names = [name for name in os.fsencode(path).split(b"/") if name]
    return Reference(snapshot, b"/".join(names) if separator else None)


def find_snapshots(repository: Repository, narrowing: Narrowing) -> list[SnapshotInfo]:
    """The snapshots that the options leave, oldest first."""
    from backthen.repository import filter_snapshots

    infos = repository.snapshots()
    return list(filter_snapshots(infos, host=narrowing.host, tags=narrowing.tags, path=narrowing.path))


def find_snapshot(repository: Repository, narrowing: Narrowing, text: str) -> SnapshotInfo:
    """The one snapshot that `text` names among those that the options leave.

    Raises:
        RequestError: the text is not the name of a snapshot in any form.
        SnapshotNotFound: there is none.
        DamageError: there is none among those that are not damaged.
        AmbiguousSnapshot: there are several.
    """
    from backthen.repository import DamageError, SnapshotNotFound, select_snapshot

    infos = find_snapshots(repository, narrowing)
    try:
        return select_snapshot(infos, parse_selector(text, infos, now_ns()))
    except SnapshotNotFound as error:
        if not repository.damage:
            raise
        raise DamageError(f"{error}; it may be the one that is damaged") from error


def parse_selector(text: str, infos: Sequence[SnapshotInfo], now_ns: int) -> Selector:
    """What SNAPSHOT says; digits are an id where one begins like that, and otherwise a time where they can be one.

    Raises:
        RequestError: it is neither `latest`, nor an id, nor a time.
    """
    from backthen.repository import AtTime, IdPrefix, Latest, parse_time

    words = text.strip().lower()
    if match := _LATEST.fullmatch(words):
        return Latest(int(match[1] or 0))
    is_id = _ID.fullmatch(words) is not None
    if is_id and any(info.id.hex().startswith(words) for info in infos):
        return IdPrefix(words)
    time_ns = parse_time(words, now_ns, None)
    if time_ns is not None:
        return AtTime(time_ns)
    if is_id:
        return IdPrefix(words)
    name, _, path = text.partition(":")
    if path and not path[0].isdigit():
        raise RequestError(
            f"'{shown_text(text)}' is not a snapshot with an absolute path",
            hint=f"PATH begins with a slash: `{shown_text(name)}:/{shown_text(path)}`.",
        )
    raise RequestError(
        f"'{shown_text(text)}' is not a snapshot",
        hint="Give the beginning of an id, `latest`, `latest~2`, or a time such as `2026-11-20` or `yesterday 14:00`.",
    )
