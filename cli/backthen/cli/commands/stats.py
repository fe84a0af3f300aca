"""`backthen stats`: figures of the repository as a whole."""

from __future__ import annotations

import click

from backthen.cli.documents import print_document
from backthen.cli.failures import ExitCode
from backthen.cli.names import shown_text
from backthen.cli.options import current_settings, global_options
from backthen.cli.quantities import size_text
from backthen.cli.session import open_repository
from backthen.cli.tables import facts_lines


@click.command()
@global_options()
def stats() -> ExitCode:
    """Count what is in the repository, and what it takes."""
    settings = current_settings()
    with open_repository(settings, "repository_statistics") as repository:
        from backthen.repository import repository_statistics

        counted = repository_statistics(repository)
        identity = repository.id.hex()
    if settings.json:
        document: dict[str, object] = {
            "repository": {"id": identity, "location": settings.location},
            "snapshots": counted.snapshots,
            "files": counted.files,
            "bytes_saved": counted.bytes_saved,
            "blobs": counted.blobs,
            "packs": counted.packs,
            "bytes_packs": counted.bytes_packs,
            "objects": counted.objects,
            "bytes_stored": counted.bytes_stored,
        }
        print_document(document)
        return ExitCode.DONE
    print(f"Repository {identity[:8]} at {shown_text(settings.location)}")
    facts = [
        ("snapshots", f"{counted.snapshots:,}"),
        ("files in them", f"{counted.files:,}"),
        ("size of them", size_text(counted.bytes_saved)),
        ("size stored", f"{size_text(counted.bytes_stored)}{_ratio(counted.bytes_saved, counted.bytes_stored)}"),
        ("blobs", f"{counted.blobs:,}"),
        ("packs", f"{counted.packs:,} ({size_text(counted.bytes_packs)})"),
        ("objects", f"{counted.objects:,}"),
    ]
    for line in facts_lines(facts):
        print(line)
    return ExitCode.DONE


def _ratio(saved: int, stored: int) -> str:
    return f" ({saved / stored:,.1f} times less)" if stored and saved > stored else ""
