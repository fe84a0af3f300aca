"""Choosing among snapshots: by id, by place in the log, by time, by host, tags and path. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from backthen.repository.catalog.roots import SnapshotInfo
from backthen.repository.errors import AmbiguousSnapshot, SnapshotNotFound

_CANDIDATES_SHOWN_MAX = 10
_ID_DIGITS_SHOWN = 12
_SECOND_NS = 1_000_000_000
_LIST_HINT = "See `backthen snapshot list`."


@dataclass(frozen=True, slots=True)
class IdPrefix:
    """The snapshot whose id begins with these hexadecimal digits."""

    text: str


@dataclass(frozen=True, slots=True)
class Latest:
    """The last snapshot in the order of the log, or the one that many places before it."""

    back: int = 0


@dataclass(frozen=True, slots=True)
class AtTime:
    """The newest snapshot that was begun at that time or before it."""

    time_ns: int


Selector = IdPrefix | Latest | AtTime


def filter_snapshots(
    infos: Iterable[SnapshotInfo], *, host: str | None = None, tags: Iterable[str] = (), path: bytes | None = None
) -> list[SnapshotInfo]:
    """Those of the host, with all the tags, and with exactly this saved path among theirs; in the same order."""
    wanted = set(tags)
    return [
        info
        for info in infos
        if (host is None or info.host == host) and wanted <= set(info.tags) and (path is None or path in info.paths)
    ]


def select_snapshot(infos: Sequence[SnapshotInfo], selector: Selector) -> SnapshotInfo:
    """The one snapshot that is meant.

    Args:
        infos: in the order of the log, oldest first.
        selector: which one.

    Raises:
        SnapshotNotFound: there is none.
        AmbiguousSnapshot: there are several; the message lists them.
    """
    if not infos:
        raise SnapshotNotFound("there is no snapshot to choose from", hint=_LIST_HINT)
    if isinstance(selector, IdPrefix):
        return _with_prefix(infos, selector.text.lower())
    if isinstance(selector, Latest):
        if selector.back >= len(infos):
            raise SnapshotNotFound(f"there are only {len(infos)} snapshots to choose from", hint=_LIST_HINT)
        return infos[-1 - selector.back]
    begun = [info for info in infos if info.started_ns <= selector.time_ns]
    if not begun:
        raise SnapshotNotFound(f"no snapshot is as old as {_time(selector.time_ns)}", hint=_LIST_HINT)
    return max(begun, key=lambda info: (info.started_ns, info.order))


def _with_prefix(infos: Sequence[SnapshotInfo], prefix: str) -> SnapshotInfo:
    found = [info for info in infos if info.id.hex().startswith(prefix)]
    if not found:
        raise SnapshotNotFound(f"no snapshot has an id that begins with {prefix!r}", hint=_LIST_HINT)
    if len(found) > 1:
        lines = [_describe(info) for info in found[:_CANDIDATES_SHOWN_MAX]]
        if len(found) > _CANDIDATES_SHOWN_MAX:
            lines.append(f"and {len(found) - _CANDIDATES_SHOWN_MAX} more")
        raise AmbiguousSnapshot(
            f"{len(found)} snapshots have ids that begin with {prefix!r}:\n  " + "\n  ".join(lines),
            hint="Give more digits of the id.",
        )
    return found[0]


def _describe(info: SnapshotInfo) -> str:
    paths = " ".join(_printable(path.decode(errors="backslashreplace")) for path in info.paths)
    return f"{info.id.hex()[:_ID_DIGITS_SHOWN]}  {_time(info.started_ns)}  {_printable(info.host)}  {paths}"


def _printable(text: str) -> str:
    """The text without anything that a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _time(time_ns: int) -> str:
    try:
        return datetime.fromtimestamp(time_ns // _SECOND_NS, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{time_ns} ns"
