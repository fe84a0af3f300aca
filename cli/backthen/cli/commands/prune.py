"""`backthen prune`: delete what no snapshot needs any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from backthen.cli.documents import print_event
from backthen.cli.failures import ExitCode
from backthen.cli.names import shown_name, shown_text
from backthen.cli.options import current_settings, global_options
from backthen.cli.progress import reporter
from backthen.cli.quantities import count_text, local_time, rfc3339, size_text
from backthen.cli.session import open_repository
from backthen.cli.snapshot_table import SHORT_ID
from backthen.cli.tables import facts_lines, table_lines

if TYPE_CHECKING:
    from backthen.cli.settings import Settings
    from backthen.repository import PruneReport


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would be deleted; delete nothing.")
@global_options()
def prune(*, dry_run: bool) -> ExitCode:
    """Delete forgotten snapshots for ever, and all data that no snapshot needs.

    Snapshots may be made, and mounts read, at the same time. A prune that was stopped is finished by the next one.
    """
    from backthen.repository import prune_repository

    settings = current_settings()
    with reporter(settings) as listener, open_repository(settings) as repository:
        report = prune_repository(repository, listener, dry_run=dry_run)
    if settings.json:
        _print_events(report, dry_run=dry_run)
    elif not settings.quiet:
        _print_report(settings, report, dry_run=dry_run)
    return ExitCode.DONE


def _print_events(report: PruneReport, *, dry_run: bool) -> None:
    summary: dict[str, object] = {
        "dry_run": dry_run,
        "snapshots": [
            {"id": id_.hex(), "time": rfc3339(root.started_ns), "host": root.host}
            for id_, root in report.forgotten.items()
        ],
        "unfinished": report.abandoned,
        "packs": report.packs,
        "bytes_packs": report.bytes_packs,
        "bytes_moved": report.bytes_moved,
        "bytes_left": report.bytes_left,
    }
    print_event("summary", summary)


def _print_report(settings: Settings, report: PruneReport, *, dry_run: bool) -> None:
    if report.forgotten and (dry_run or settings.verbosity):
        rows = [
            (
                id_.hex()[:SHORT_ID],
                local_time(root.started_ns),
                shown_text(root.host),
                ", ".join(shown_name(path) for path in root.paths),
            )
            for id_, root in report.forgotten.items()
        ]
        for line in table_lines(("ID", "Time", "Host", "Paths"), rows):
            print(line)
    print("Would be deleted (--dry-run)" if dry_run else "Deleted")
    facts = [
        ("snapshots", f"{len(report.forgotten):,} forgotten, {report.abandoned:,} unfinished"),
        ("packs", f"{count_text(report.packs, 'pack')} ({size_text(report.bytes_packs)})"),
        ("stored anew", size_text(report.bytes_moved)),
        ("freed", size_text(max(report.bytes_packs - report.bytes_moved, 0))),
        ("left", size_text(report.bytes_left)),
    ]
    for line in facts_lines(facts):
        print(line)
