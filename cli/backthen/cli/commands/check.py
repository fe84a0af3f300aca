"""`backthen check`: is everything there, and is it what was written?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from backthen.cli.documents import print_event
from backthen.cli.failures import ExitCode, UsageFailure
from backthen.cli.names import shown_text
from backthen.cli.options import current_settings, global_options
from backthen.cli.progress import reporter
from backthen.cli.quantities import count_text, size_text
from backthen.cli.session import open_repository

if TYPE_CHECKING:
    from backthen.cli.settings import Settings
    from backthen.repository import CheckReport

_ALL = 100.0


@click.command()
@click.option("--read-data", is_flag=True, help="Also read and verify all data.")
@click.option(
    "--read-data-subset", "subset", metavar="N%", help="Also read and verify N per cent of the data, chosen at random."
)
@global_options()
def check(read_data: bool, subset: str | None) -> ExitCode:
    """Check that everything the snapshots need is there, and unchanged.

    Whatever is damaged is named; the exit code is 13 then.
    """
    if read_data and subset is not None:
        raise UsageFailure("--read-data and --read-data-subset exclude each other")
    percent = parse_percent(subset) if subset is not None else _ALL if read_data else 0.0
    settings = current_settings()
    with reporter(settings) as listener, open_repository(settings, "check_repository") as repository:
        from backthen.repository import CheckRequest, check_repository

        report = check_repository(repository, CheckRequest(read_data_percent=percent), listener)
    if settings.json:
        _print_events(report)
    else:
        _print_report(settings, report)
    return ExitCode.DAMAGED if report.findings else ExitCode.DONE


def parse_percent(text: str) -> float:
    """The number in `5%`; the sign may be left out.

    Raises:
        UsageFailure: it is not a number above 0 and up to 100.
    """
    try:
        percent = float(text.strip().removesuffix("%"))
    except ValueError:
        percent = -1
    if not 0 < percent <= _ALL:
        raise UsageFailure(f"{shown_text(text)!r} is not a part such as `5%`")
    return percent


def _print_events(report: CheckReport) -> None:
    for finding in report.findings:
        print_event("finding", {"name": finding.name, "message": finding.message})
    summary: dict[str, object] = {
        "findings": len(report.findings),
        "snapshots": report.snapshots,
        "packs": report.packs,
        "packs_unindexed": report.packs_unindexed,
        "packs_read": report.packs_read,
        "blobs": report.blobs,
        "bytes_read": report.bytes_read,
        "bytes_stored": report.bytes_stored,
    }
    print_event("summary", summary)


def _print_report(settings: Settings, report: CheckReport) -> None:
    for finding in report.findings:
        print(f"{shown_text(finding.name)}: {shown_text(finding.message)}")
    if settings.quiet:
        return
    print(
        f"Checked {count_text(report.snapshots, 'snapshot')}, {count_text(report.packs, 'pack')}, "
        f"{count_text(report.blobs, 'blob')}, {size_text(report.bytes_stored)}"
    )
    if report.packs_read:
        print(f"Read {count_text(report.packs_read, 'pack')} whole ({size_text(report.bytes_read)})")
    if report.packs_unindexed:
        verb = "is" if report.packs_unindexed == 1 else "are"
        print(f"{count_text(report.packs_unindexed, 'pack')} {verb} in no index: the next snapshot takes them in")
    print(f"Found {count_text(len(report.findings), 'fault')}" if report.findings else "No fault was found")
