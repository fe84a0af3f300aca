"""`backthen restore`: bring a snapshot, or a part of it, back as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from backthen.cli.clocks import monotonic_s
from backthen.cli.documents import print_event
from backthen.cli.failures import ExitCode, RequestError
from backthen.cli.names import shown_text
from backthen.cli.options import current_settings, global_options
from backthen.cli.paths import absolute_folder, local_folder
from backthen.cli.progress import reporter
from backthen.cli.quantities import count_text, duration_text, size_text
from backthen.cli.selection import Narrowing, find_snapshot, narrowing_options, parse_reference
from backthen.cli.session import open_repository
from backthen.cli.tables import facts_lines

if TYPE_CHECKING:
    from backthen.repository import RestoreReport, RestoreRequest

_OVERWRITE = ("always", "if-changed", "if-newer", "never")


@click.command()
@click.argument("reference", metavar="SNAPSHOT[:PATH]")
@click.option("--target", metavar="DIR", required=True, help="Restore into DIR, which is made where it is missing.")
@click.option("--include", metavar="PATTERN", multiple=True, help="Restore only what matches (as in .gitignore).")
@click.option("--exclude", metavar="PATTERN", multiple=True, help="Leave out what matches.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; write nothing.")
@click.option("--verify", is_flag=True, help="Read back what was written and compare it.")
@click.option(
    "--overwrite",
    type=click.Choice(_OVERWRITE),
    default="if-changed",
    show_default=True,
    help="What to do with files there.",
)
@narrowing_options
@global_options()
def restore(
    narrowing: Narrowing,
    reference: str,
    target: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    dry_run: bool,
    verify: bool,
    overwrite: str,
) -> ExitCode:
    """Write a snapshot, or what PATH holds in it, into DIR.

    Without PATH the whole saved path is made below DIR; with PATH its contents are put into DIR.
    """
    settings = current_settings()
    wanted = parse_reference(reference)
    folder = _outside(absolute_folder(target), local_folder(settings.location))
    begin = monotonic_s()
    with reporter(settings) as listener, open_repository(settings, "restore_tree") as repository:
        from backthen.repository import Overwrite, RestoreRequest, restore_tree

        request = RestoreRequest(
            target=folder,
            include=include,
            exclude=exclude,
            overwrite=Overwrite(overwrite),
            dry_run=dry_run,
            verify=verify,
        )
        info = find_snapshot(repository, narrowing, wanted.snapshot)
        report = restore_tree(
            repository.blobs.source,
            repository.tree(info),
            wanted.path or b"",
            request,
            listener,
            forks=repository,
        )
    if settings.json:
        fields = {"id": info.id.hex(), "dry_run": dry_run, **_report_document(report)}
        print_event("summary", {**fields, "problems": listener.problems, "seconds": monotonic_s() - begin})
    elif not settings.quiet:
        _print_report(report, request, problems=listener.problems, seconds=monotonic_s() - begin)
    if report.damaged:
        return ExitCode.DAMAGED
    return ExitCode.INCOMPLETE if listener.problems else ExitCode.DONE


def _outside(target: Path, repository_folder: Path | None) -> Path:
    """The target, which must not be in the repository: what is restored there would pass for a part of it."""
    if repository_folder is not None and target.resolve().is_relative_to(repository_folder.resolve()):
        raise RequestError(f"{shown_text(str(target))} is inside the repository", hint="Choose another --target.")
    return target


def _report_document(report: RestoreReport) -> dict[str, object]:
    return {
        "files": report.files,
        "directories": report.directories,
        "others": report.others,
        "kept": report.kept,
        "verified": report.verified,
        "damaged": report.damaged,
        "bytes_written": report.bytes_written,
        "notes": list(report.notes),
    }


def _print_report(report: RestoreReport, request: RestoreRequest, *, problems: int, seconds: float) -> None:
    target = shown_text(str(request.target))
    print(f"Would restore into {target} (--dry-run)" if request.dry_run else f"Restored into {target}")
    facts = [
        ("restored", _counts(report)),
        ("kept", f"{report.kept:,} as they were"),
        ("written", size_text(report.bytes_written)),
        ("time", duration_text(seconds)),
    ]
    if problems:
        facts.append(("problems", f"{problems:,} (named above)"))
    if request.verify and not request.dry_run:
        facts.append(("verified", count_text(report.verified, "file")))
    for line in facts_lines(facts):
        print(line)
    for note in report.notes:
        print(f"Note: {shown_text(note)}")


def _counts(report: RestoreReport) -> str:
    others = f", {count_text(report.others, 'other')}" if report.others else ""
    return f"{count_text(report.files, 'file')}, {count_text(report.directories, 'folder')}{others}"
