"""`backthen ls` and `backthen cat`: look into a snapshot without mounting it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import click

from backthen.cli.documents import TYPE_NAMES, entry_document, print_long_document
from backthen.cli.failures import ExitCode, RequestError, UsageFailure
from backthen.cli.listing import long_prefix, printed_name
from backthen.cli.names import name_fields, shown_name
from backthen.cli.options import current_settings, global_options
from backthen.cli.selection import Narrowing, find_snapshot, narrowing_options, parse_reference
from backthen.cli.session import open_repository

if TYPE_CHECKING:
    from backthen.repository import BlobSource, Entry, Node, Repository, SnapshotTree

_READ_BYTES = 4 << 20


class _Found(NamedTuple):
    """An entry with its absolute path."""

    path: bytes
    entry: Entry


@click.command()
@click.argument("reference", metavar="SNAPSHOT[:PATH]")
@click.option("-l", "--long", "is_long", is_flag=True, help="Show type, mode, owner, size and time.")
@click.option("-R", "--recursive", is_flag=True, help="Show all that is below, with absolute paths.")
@narrowing_options
@global_options()
def ls(narrowing: Narrowing, reference: str, is_long: bool, recursive: bool) -> ExitCode:
    """List a folder of a snapshot."""
    settings = current_settings()
    wanted = parse_reference(reference)
    with open_repository(settings) as repository:
        info = find_snapshot(repository, narrowing, wanted.snapshot)
        tree = repository.tree(info)
        path = wanted.path or b""
        found = _find(repository, tree, path, recursive=recursive)
        if settings.json:
            head = {"snapshot": info.id.hex(), **name_fields("path", b"/" + path)}
            print_long_document(head, "entries", (entry_document(*item) for item in found))
        else:
            _print_names(found, is_long=is_long, full_paths=recursive)
    return ExitCode.DONE


@click.command()
@click.argument("reference", metavar="SNAPSHOT:PATH")
@narrowing_options
@global_options()
def cat(narrowing: Narrowing, reference: str) -> ExitCode:
    """Print a file of a snapshot."""
    settings = current_settings()
    wanted = parse_reference(reference)
    if not wanted.path:
        raise UsageFailure(
            "`cat` needs the path of a file", hint="For example `backthen cat latest:/home/me/letter.txt`."
        )
    with open_repository(settings) as repository:
        tree = repository.tree(find_snapshot(repository, narrowing, wanted.snapshot))
        entry = tree.resolve(repository.blobs.source, wanted.path).entry
        check_readable(b"/" + wanted.path, entry)
        _write_file(repository.blobs.source, entry)
    return ExitCode.DONE


def check_readable(path: bytes, entry: Entry) -> None:
    """Refuse what has no content.

    Raises:
        RequestError: it is no regular file, or could not be read when the snapshot was made.
    """
    from backthen.repository import EntryType

    if entry.type != EntryType.FILE:
        what = TYPE_NAMES[entry.type] if entry.type < len(TYPE_NAMES) else "unknown"
        where = f" to {shown_name(entry.target)}" if entry.type == EntryType.SYMLINK else ""
        raise RequestError(f"{shown_name(path)} is not a regular file but: {what}{where}")
    if entry.is_content_lost:
        raise RequestError(f"{shown_name(path)} could not be read when the snapshot was made: {entry.error}")


def _write_file(source: BlobSource, entry: Entry) -> None:
    from backthen.repository import read_file

    output = sys.stdout.buffer
    for offset in range(0, entry.size, _READ_BYTES):
        output.write(read_file(source, entry, offset, _READ_BYTES))
    output.flush()


def _find(repository: Repository, tree: SnapshotTree, path: bytes, *, recursive: bool) -> Iterator[_Found]:
    """What `ls` shows of a path: what is in the folder, or what is at the path if that is no folder."""
    source = repository.blobs.source
    node = tree.resolve(source, path)
    if not node.entry.is_directory:
        return iter((_Found(b"/" + path, node.entry),))
    return _walk(source, tree, node, b"/" + path if path else b"", recursive=recursive)


def _walk(source: BlobSource, tree: SnapshotTree, directory: Node, path: bytes, *, recursive: bool) -> Iterator[_Found]:
    # A stack of iterators instead of recursion: a path may be deeper than Python's stack.
    stack = [(path, tree.children(source, directory))]
    while stack:
        folder, children = stack[-1]
        node = next(children, None)
        if node is None:
            stack.pop()
            continue
        found = _Found(folder + b"/" + node.name, node.entry)
        yield found
        if recursive and node.entry.is_directory:
            stack.append((found.path, tree.children(source, node)))


def _print_names(found: Iterator[_Found], *, is_long: bool, full_paths: bool) -> None:
    output = sys.stdout.buffer
    is_terminal = sys.stdout.isatty()
    for path, entry in found:
        name = path if full_paths else path.rpartition(b"/")[2]
        target = b" -> " + printed_name(entry.target, is_terminal=is_terminal) if is_long and entry.target else b""
        prefix = long_prefix(entry).encode(errors="backslashreplace") if is_long else b""
        output.write(prefix + printed_name(name, is_terminal=is_terminal) + target + b"\n")
    output.flush()
