"""JSON documents (docs/json.md). They are ASCII, so that no locale can spoil them."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from backthen.cli.names import name_fields
from backthen.cli.quantities import rfc3339

if TYPE_CHECKING:
    from backthen.repository import Entry, SnapshotInfo, Statistics

Document = Mapping[str, object]

_STATISTICS = (
    "files",
    "directories",
    "others",
    "size",
    "files_new",
    "files_changed",
    "files_unchanged",
    "bytes_read",
    "bytes_added",
    "errors",
)
TYPE_NAMES = (
    "file",
    "directory",
    "symlink",
    "fifo",
    "socket",
    "character-device",
    "block-device",
    "link",
    "unknown",
)


def print_document(document: Document) -> None:
    """Print the one document of a command."""
    print(json.dumps(document, indent=2))


def print_event(event: str, fields: Document) -> None:
    """Print one line of a long command at once."""
    print(json.dumps({"event": event, **fields}), flush=True)


def print_long_document(head: Document, key: str, items: Iterable[Document]) -> None:
    """Print a document that ends in a list, item by item: the list may be longer than memory."""
    write = sys.stdout.write
    write(json.dumps(head)[:-1] + (", " if head else "") + f'"{key}": [')
    separator = "\n"
    for item in items:
        write(separator + json.dumps(item))
        separator = ",\n"
    write("\n]}\n")


def snapshot_document(info: SnapshotInfo) -> Document:
    """One snapshot as `snapshot list` gives it."""
    root = info.root
    return {
        "id": info.id.hex(),
        "time": rfc3339(root.started_ns),
        "ended": rfc3339(root.ended_ns),
        "host": root.host,
        "user": root.user,
        **_paths(root.paths),
        "tags": list(info.tags),
        "parents": [parent.hex() for parent in root.parents],
        "excludes": list(root.excludes),
        "program": root.program,
        "size": root.top.size,
        "entries": root.top.below,
        "statistics": statistics_document(root.statistics),
    }


def statistics_document(statistics: Statistics) -> dict[str, int]:
    """What a snapshot holds and what making it took."""
    return {name: getattr(statistics, name) for name in _STATISTICS}


def entry_document(path: bytes, entry: Entry) -> Document:
    """One entry as `ls` gives it."""
    document: dict[str, object] = {
        **name_fields("path", path),
        "type": TYPE_NAMES[entry.type] if entry.type < len(TYPE_NAMES) else "unknown",
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "user": entry.user,
        "group": entry.group,
        "size": entry.size,
        "mtime": rfc3339(entry.mtime_ns),
        "names": max(entry.names, 1),
    }
    if entry.target:
        document.update(name_fields("target", entry.target))
    if entry.error:
        document["error"] = entry.error
    return document


def _paths(paths: Iterable[bytes]) -> Document:
    raw = list(paths)
    named = [name_fields("path", path) for path in raw]
    fields: dict[str, object] = {"paths": [name["path"] for name in named]}
    if any("path_bytes" in name for name in named):
        fields["paths_bytes"] = [base64.b64encode(path).decode() for path in raw]
    return fields
