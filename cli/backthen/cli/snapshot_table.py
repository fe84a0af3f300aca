"""Snapshots as they are listed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from backthen.cli.names import shown_name, shown_text
from backthen.cli.quantities import local_time, size_text
from backthen.cli.tables import table_lines

if TYPE_CHECKING:
    from backthen.repository import SnapshotInfo

SHORT_ID = 8


def snapshot_lines(infos: Sequence[SnapshotInfo]) -> list[str]:
    """The lines of a table of snapshots; none where there are none."""
    if not infos:
        return []
    digits = short_length([info.id.hex() for info in infos])
    rows = [
        (
            info.id.hex()[:digits],
            local_time(info.root.started_ns),
            shown_text(info.root.host),
            size_text(info.root.top.size),
            " ".join(shown_text(tag) for tag in info.tags),
            ", ".join(shown_name(path) for path in info.root.paths),
        )
        for info in infos
    ]
    return table_lines(("ID", "Time", "Host", "Size", "Tags", "Paths"), rows, right=(3,))


def short_length(ids: Sequence[str]) -> int:
    """How many digits tell all these ids apart, at least eight."""
    digits = SHORT_ID
    while digits < len(ids[0]) and len({id_[:digits] for id_ in ids}) < len(set(ids)):
        digits += 1
    return digits
