"""`backthen snapshot`: make, list and describe snapshots; to forget them has a module of its own."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial, wraps
from typing import TYPE_CHECKING

import click

from backthen.cli.commands.forget import forget
from backthen.cli.counting import counted
from backthen.cli.documents import print_document, print_event, snapshot_document, statistics_document
from backthen.cli.failures import ExitCode, RequestError, UsageFailure
from backthen.cli.names import is_printable, shown_name, shown_text
from backthen.cli.options import current_settings, global_options
from backthen.cli.passwords import TRIES_MAX, read_password
from backthen.cli.paths import absolute_source
from backthen.cli.progress import Reporter, reporter
from backthen.cli.quantities import count_text, duration_text, local_time, rfc3339, size_text
from backthen.cli.selection import Narrowing, find_snapshot, find_snapshots, narrowing_options
from backthen.cli.session import find_locked, host_name, open_repository, password_prompt, start_logging, unlock
from backthen.cli.settings import Settings
from backthen.cli.snapshot_table import SHORT_ID, snapshot_lines
from backthen.cli.tables import facts_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from backthen.repository import (
        Compression,
        ExclusionRules,
        LockedRepository,
        Repository,
        SnapshotId,
        SnapshotInfo,
        SnapshotReport,
        Statistics,
    )

_NS = 1_000_000_000


@click.group()
@global_options()
def snapshot() -> None:
    """Make, list, describe and forget snapshots."""


snapshot.add_command(forget)


@dataclass(frozen=True, slots=True)
class _Exclusions:
    """What the options say of what is left out."""

    patterns: tuple[str, ...]
    pattern_files: tuple[str, ...]
    exclude_caches: bool
    markers: tuple[str, ...]


def _exclusion_options(function: Callable[..., ExitCode]) -> Callable[..., ExitCode]:
    @click.option(
        "--exclude", "patterns", metavar="PATTERN", multiple=True, help="Leave out matches (as in .gitignore)."
    )
    @click.option(
        "--exclude-from", "pattern_files", metavar="FILE", multiple=True, help="Read such patterns from FILE."
    )
    @click.option("--exclude-caches", is_flag=True, help="Leave out what is in folders with a CACHEDIR.TAG.")
    @click.option("--exclude-if-present", "markers", metavar="NAME", multiple=True, help="Leave out folders with NAME.")
    @wraps(function)
    def decorated(
        *args: object,
        patterns: tuple[str, ...],
        pattern_files: tuple[str, ...],
        exclude_caches: bool,
        markers: tuple[str, ...],
        **kwargs: object,
    ) -> ExitCode:
        exclusions = _Exclusions(patterns, pattern_files, exclude_caches, markers)
        return function(*args, exclusions=exclusions, **kwargs)

    return decorated


@snapshot.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("--tag", "tags", metavar="T", multiple=True, help="Give the snapshot a tag; may be repeated.")
@click.option("--host", metavar="NAME", help="Record NAME as the host instead of this machine's name.")
@_exclusion_options
@click.option("--one-file-system", is_flag=True, help="Do not enter other file systems.")
@click.option("--parent", metavar="SNAPSHOT|none", help="Compare with SNAPSHOT, not the last one of host and paths.")
@click.option(
    "--compression",
    "compression_text",
    metavar="auto|off|fast|max|LEVEL",
    default="auto",
    show_default=True,
    help="How hard new data is compressed; LEVEL is zstd's, 1 to 22.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done; store nothing.")
@global_options()
def create(
    paths: tuple[str, ...],
    tags: tuple[str, ...],
    host: str | None,
    exclusions: _Exclusions,
    one_file_system: bool,
    parent: str | None,
    compression_text: str,
    dry_run: bool,
) -> ExitCode:
    """Save each PATH, and all below it, in a new snapshot.

    Files that cannot be read are named, and the rest is saved: the exit code is 3 then.
    """
    from backthen.repository import walk_apart

    settings = current_settings()
    check_text("--tag", *tags)
    check_text("--host", *([] if host is None else [host]))
    compression = _compression(compression_text)
    patterns = _patterns(exclusions)
    with reporter(settings) as listener:
        sources = existing_sources(paths, listener)
        start_logging(settings)
        locked = find_locked(settings)
        make_rules = partial(_rules, exclusions, patterns)
        with (
            walk_apart(locked, sources, make_rules, one_file_system=one_file_system) or nullcontext() as walked,
            _unlocked(locked, settings) as repository,
        ):
            from backthen.repository import SnapshotRequest, count_source, create_snapshot

            if repository.cached is not None:
                listener.watch_sent(lambda: repository.storage_state.bytes_sent)
            request = SnapshotRequest(
                paths=sources,
                host=host or host_name(),
                tags=tuple(sorted(set(tags))),
                rules=make_rules(),
                parent=_parent(repository, parent),
                find_parent=parent is None,
                one_file_system=one_file_system,
                dry_run=dry_run,
                compression=compression,
            )
            with counted(listener, partial(count_source, repository, request)):
                report = create_snapshot(repository, request, listener, walked)
    _tell_created(settings, report, problems=listener.problems, dry_run=dry_run)
    return ExitCode.INCOMPLETE if listener.problems else ExitCode.DONE


@snapshot.command("list")
@narrowing_options
@global_options()
def list_(narrowing: Narrowing) -> ExitCode:
    """List snapshots, oldest first."""
    settings = current_settings()
    with open_repository(settings) as repository:
        infos = find_snapshots(repository, narrowing)
        code = ExitCode.DAMAGED if repository.damage else ExitCode.DONE
    if settings.json:
        print_document({"snapshots": [snapshot_document(info) for info in infos]})
        return code
    for line in snapshot_lines(infos):
        print(line)
    if not settings.quiet:
        print(count_text(len(infos), "snapshot"))
    return code


@snapshot.command()
@click.argument("snapshot_text", metavar="SNAPSHOT")
@narrowing_options
@global_options()
def show(narrowing: Narrowing, snapshot_text: str) -> ExitCode:
    """Describe one snapshot."""
    settings = current_settings()
    with open_repository(settings) as repository:
        info = find_snapshot(repository, narrowing, snapshot_text)
    if settings.json:
        print_document(snapshot_document(info))
        return ExitCode.DONE
    print(f"Snapshot {info.id.hex()}")
    for line in facts_lines(_facts(info)):
        print(line)
    return ExitCode.DONE


def _unlocked(locked: LockedRepository, settings: Settings) -> Repository:
    """Unlock it to make a snapshot; the password is asked for here, so that the process of the walk never has it."""
    password = read_password(settings.password, password_prompt(settings))
    return unlock(locked, settings, password, "create_snapshot", tries=TRIES_MAX, for_snapshot=True)


def existing_sources(paths: Iterable[str], listener: Reporter) -> tuple[bytes, ...]:
    """The paths to be saved, absolute, each once; one that is not there is reported as a problem.

    Raises:
        RequestError: none of them is there.
    """
    sources = list(dict.fromkeys(absolute_source(path) for path in paths))
    found = []
    for source in sources:
        try:
            os.lstat(source)
        except OSError as error:
            listener.problem(source, error.strerror or "cannot be examined")
        else:
            found.append(source)
    if not found:
        raise RequestError("none of the given paths can be saved", hint="No snapshot was made.")
    return tuple(found)


def read_patterns(file: str) -> list[str]:
    """The patterns in a file, one a line; bytes that are not UTF-8 become surrogates.

    Raises:
        RequestError: the file cannot be read.
    """
    try:
        with open(file, encoding="utf-8-sig", errors="surrogateescape", newline="\n") as lines:
            return [line.removesuffix("\n").removesuffix("\r") for line in lines]
    except OSError as error:
        raise RequestError(f"the file of patterns {shown_text(file)} cannot be read: {error.strerror}") from error


def check_text(option: str, *values: str) -> None:
    """Refuse values that cannot be recorded as text.

    Raises:
        UsageFailure: one is empty where it must not be, is not UTF-8, or has control characters.
    """
    for value in values:
        if not value or not is_printable(value):
            raise UsageFailure(f"{option} {shown_text(value)!r} is empty, or is not text that can be printed")


def _compression(text: str) -> Compression:
    from backthen.repository import InvalidRequest, parse_compression

    try:
        return parse_compression(text)
    except InvalidRequest as error:
        raise UsageFailure(f"--compression: {shown_text(str(error))}", hint=error.hint) from error


def _patterns(exclusions: _Exclusions) -> tuple[str, ...]:
    read = (pattern for file in exclusions.pattern_files for pattern in read_patterns(file))
    return (*exclusions.patterns, *read)


def _rules(exclusions: _Exclusions, patterns: tuple[str, ...]) -> ExclusionRules:
    from backthen.repository import ExclusionRules

    markers = tuple(os.fsencode(marker) for marker in exclusions.markers)
    return ExclusionRules(patterns=patterns, caches=exclusions.exclude_caches, if_present=markers)


def _parent(repository: Repository, text: str | None) -> SnapshotId | None:
    return None if text is None or text == "none" else find_snapshot(repository, Narrowing(), text).id


def _tell_created(settings: Settings, report: SnapshotReport, *, problems: int, dry_run: bool) -> None:
    statistics = report.statistics
    if settings.json:
        fields: dict[str, object] = {
            "id": report.id.hex() if report.id else None,
            "parent": report.parent.hex() if report.parent else None,
            "time": rfc3339(report.started_ns),
            "dry_run": dry_run,
            **statistics_document(statistics),
            "problems": problems,
            "seconds": report.duration_ns / _NS,
        }
        print_event("summary", fields)
        return
    if settings.quiet:
        return
    print(f"Snapshot {report.id.hex()}" if report.id else "Nothing was stored (--dry-run)")
    facts = [
        ("files", _kinds(statistics)),
        ("read", size_text(statistics.bytes_read)),
        ("added", size_text(statistics.bytes_added)),
        ("time", duration_text(report.duration_ns / _NS)),
    ]
    if problems:
        facts.append(("problems", f"{problems:,} (named above)"))
    for line in facts_lines(facts):
        print(line)


def _kinds(statistics: Statistics) -> str:
    new, changed, unchanged = statistics.files_new, statistics.files_changed, statistics.files_unchanged
    return f"{new:,} new, {changed:,} changed, {unchanged:,} unchanged"


def _facts(info: SnapshotInfo) -> list[tuple[str, str]]:
    root = info.root
    statistics = root.statistics
    return [
        ("time", f"{local_time(root.started_ns)}, took {duration_text((root.ended_ns - root.started_ns) / _NS)}"),
        ("host", shown_text(root.host)),
        ("user", shown_text(root.user)),
        *(("path", shown_name(path)) for path in root.paths),
        ("tags", " ".join(shown_text(tag) for tag in info.tags) or "-"),
        *(("parent", parent.hex()[:SHORT_ID]) for parent in root.parents),
        *(("exclude", shown_text(pattern)) for pattern in root.excludes),
        ("files", f"{statistics.files:,} ({_kinds(statistics)})"),
        ("folders", f"{statistics.directories:,}"),
        ("others", f"{statistics.others:,}"),
        ("size", size_text(root.top.size)),
        ("read", size_text(statistics.bytes_read)),
        ("added", size_text(statistics.bytes_added)),
        ("problems", f"{statistics.errors:,}"),
        ("made by", shown_text(root.program)),
    ]
