"""`backthen cache`: what is kept near of repositories that are elsewhere."""

from __future__ import annotations

import click

from backthen.cli.documents import print_document
from backthen.cli.failures import ExitCode
from backthen.cli.names import shown_text
from backthen.cli.options import current_settings, global_options
from backthen.cli.quantities import size_text
from backthen.cli.session import folders
from backthen.cli.tables import table_lines


@click.group(invoke_without_command=True)
@global_options()
@click.pass_context
def cache(context: click.Context) -> ExitCode | None:
    """Show what is kept near of each repository, and how much it may be."""
    if context.invoked_subcommand is not None:
        return None
    from backthen.repository import list_caches

    settings = current_settings()
    places = folders(settings)
    found = list_caches(places)
    if settings.json:
        repositories = [
            {"id": one.id, "bytes_fetched": one.bytes_fetched, "bytes_index": one.bytes_index} for one in found
        ]
        print_document(
            {"folder": str(settings.cache), "bytes_fetched_max": places.cache_bytes_max, "repositories": repositories}
        )
        return ExitCode.DONE
    print(f"Cache in {shown_text(str(settings.cache))}")
    print(f"Of each repository that is elsewhere {size_text(places.cache_bytes_max)} are kept at most.")
    if found:
        print()
        rows = [(one.id[:8], size_text(one.bytes_fetched), size_text(one.bytes_index)) for one in found]
        for line in table_lines(("REPOSITORY", "FETCHED", "INDEX"), rows, right=(1, 2)):
            print(line)
    return ExitCode.DONE


@cache.command()
@global_options()
def clear() -> ExitCode:
    """Remove what was fetched of all repositories; it is fetched again when it is needed."""
    from backthen.repository import clear_caches

    settings = current_settings()
    cleared = clear_caches(folders(settings))
    if settings.json:
        print_document({"bytes_cleared": cleared})
    elif not settings.quiet:
        print(f"Cleared {size_text(cleared)}")
    return ExitCode.DONE
