"""`backthen versions`: all that a path ever held."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from backthen.cli.documents import entry_document, print_long_document
from backthen.cli.failures import ExitCode
from backthen.cli.listing import printed_name
from backthen.cli.names import name_fields
from backthen.cli.options import current_settings, global_options
from backthen.cli.paths import absolute_source
from backthen.cli.quantities import local_time, rfc3339, size_text
from backthen.cli.selection import Narrowing, find_snapshots, narrowing_options
from backthen.cli.session import open_repository
from backthen.cli.tables import table_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backthen.cli.documents import Document
    from backthen.repository import Entry, Past, Sighting, SnapshotTree, UnionChild

_ID_DIGITS = 8
_HEADING = ("MODIFIED", "SIZE", "FIRST SEEN", "LAST SEEN", "SNAPSHOT")


@click.command()
@click.argument("named", metavar="PATH")
@narrowing_options
@global_options()
def versions(narrowing: Narrowing, named: str) -> ExitCode:
    """List the distinct contents that PATH ever had; of a folder, the names that were ever in it."""
    settings = current_settings()
    wanted = absolute_source(named)
    with open_repository(settings, "past_at") as repository:
        from backthen.repository import past_at, timeline, union_children

        source = repository.blobs.source
        trees = timeline([repository.tree(info) for info in find_snapshots(repository, narrowing)])
        past = past_at(source, trees, wanted)
        children = union_children(source, trees, past) if past.folders else []
        if settings.json:
            found = [_version_document(trees, wanted, sighting) for sighting in past.contents]
            head = {**name_fields("path", wanted), "versions": found}
            print_long_document(head, "entries", (_child_document(wanted, child) for child in children))
        else:
            _print_contents(trees, past)
            _print_children(children)
    return ExitCode.DONE


def _print_contents(trees: Sequence[SnapshotTree], past: Past) -> None:
    if not past.contents:
        return
    rows = [
        (
            local_time(sighting.node.entry.mtime_ns),
            _size(sighting.node.entry),
            local_time(trees[sighting.first].root.started_ns),
            local_time(trees[sighting.last].root.started_ns),
            trees[sighting.first].id.hex()[:_ID_DIGITS],
        )
        for sighting in past.contents
    ]
    print("\n".join(table_lines(_HEADING, rows, right=(1,))), flush=True)


def _print_children(children: Sequence[UnionChild]) -> None:
    output = sys.stdout.buffer
    is_terminal = sys.stdout.isatty()
    for child in children:
        end = b"/\n" if child.is_folder else b"\n"
        output.write(printed_name(child.name, is_terminal=is_terminal) + end)
    output.flush()


def _size(entry: Entry) -> str:
    return "not saved" if entry.is_content_lost else size_text(entry.size)


def _version_document(trees: Sequence[SnapshotTree], path: bytes, sighting: Sighting) -> Document:
    first, last = trees[sighting.first], trees[sighting.last]
    return {
        "snapshot": first.id.hex(),
        "first_seen": rfc3339(first.root.started_ns),
        "last_seen": rfc3339(last.root.started_ns),
        **entry_document(path, sighting.node.entry),
    }


def _child_document(folder: bytes, child: UnionChild) -> Document:
    return {
        **name_fields("path", os.path.join(folder, child.name)),
        "folder": child.is_folder,
        "mtime": rfc3339(child.mtime_ns),
    }
