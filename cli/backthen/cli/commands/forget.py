"""`backthen snapshot forget`: let snapshots go, by name or by rules of what is kept."""

from __future__ import annotations

import re
from functools import wraps
from typing import TYPE_CHECKING

import click

from backthen.cli.documents import print_document, snapshot_document
from backthen.cli.failures import ExitCode, UsageFailure
from backthen.cli.names import shown_text
from backthen.cli.options import current_settings, global_options
from backthen.cli.progress import Reporter, reporter
from backthen.cli.quantities import count_text
from backthen.cli.selection import Narrowing, find_snapshot, find_snapshots, narrowing_options
from backthen.cli.session import open_repository
from backthen.cli.snapshot_table import SHORT_ID, snapshot_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from backthen.cli.settings import Settings
    from backthen.repository import Repository, RetentionRules, SnapshotId, SnapshotInfo, Verdict

_DAMAGED_ID = re.compile(r"[0-9a-f]{8,64}")
_WITHIN = re.compile(r"(\d{1,6}) ?(h|d|w|m|y|hour|day|week|month|year)s?")
_UNITS = {"h": "hour", "d": "day", "w": "week", "m": "month", "y": "year"}
_COUNTS = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
_COUNT_HELP = {
    "last": "Keep the last N.",
    "hourly": "Keep the last of each of N hours that have one.",
    "daily": "The same for days.",
    "weekly": "The same for weeks.",
    "monthly": "The same for months.",
    "yearly": "The same for years.",
}


def _retention_options(function: Callable[..., ExitCode]) -> Callable[..., ExitCode]:
    """Give a command `--keep-last` and so on, and the function `rules`: None where no option was given."""

    @click.option("--keep-within", metavar="TIME", help="Keep all within TIME before the last one: `30 days`, `6m`.")
    @click.option("--keep-tag", "keep_tags", metavar="T", multiple=True, help="Keep all with this tag; repeatable.")
    @wraps(function)
    def decorated(*args: object, keep_within: str | None, keep_tags: tuple[str, ...], **kwargs: object) -> ExitCode:
        counts = {name: kwargs.pop(f"keep_{name}") for name in _COUNTS}
        given = {name: count for name, count in counts.items() if isinstance(count, int)}
        rules = None
        if given or keep_within is not None or keep_tags:
            from backthen.repository import RetentionRules

            within = None if keep_within is None else parse_within(keep_within)
            rules = RetentionRules(within=within, tags=frozenset(keep_tags), **given)
        return function(*args, rules=rules, **kwargs)

    for name in reversed(_COUNTS):
        count = click.IntRange(min=0)
        decorated = click.option(f"--keep-{name}", type=count, metavar="N", help=_COUNT_HELP[name])(decorated)
    return decorated


@click.command()
@click.argument("texts", metavar="[SNAPSHOT]...", nargs=-1)
@_retention_options
@click.option("--dry-run", is_flag=True, help="Say what would be forgotten; forget nothing.")
@narrowing_options
@global_options()
def forget(narrowing: Narrowing, texts: tuple[str, ...], rules: RetentionRules | None, *, dry_run: bool) -> ExitCode:
    """Forget each SNAPSHOT, or all that no --keep option keeps.

    Rules look at the snapshots of each host and set of paths by themselves. What was forgotten is not shown any more;
    what only it needed is deleted by `backthen prune`.
    """
    if bool(texts) == (rules is not None):
        raise UsageFailure(
            "give either snapshots or options that say what is kept",
            hint="For example `backthen snapshot forget 3f2a91c0`, or `backthen snapshot forget --keep-daily 7`.",
        )
    settings = current_settings()
    with reporter(settings) as listener, open_repository(settings) as repository:
        if rules is not None:
            return _forget_by_rules(settings, listener, repository, narrowing, rules, dry_run=dry_run)
        return _forget_named(settings, listener, repository, narrowing, texts, dry_run=dry_run)


def parse_within(text: str) -> str:
    """The length of time in `30 days`, `30d` or `1 year`, as the engine has it.

    Raises:
        UsageFailure: it is none.
    """
    match = _WITHIN.fullmatch(text.strip().lower())
    if match is None:
        raise UsageFailure(
            f"--keep-within {shown_text(text)!r} is not a length of time",
            hint="Write it as in `30 days` or `6 months`.",
        )
    return f"{match[1]} {_UNITS.get(match[2], match[2])}s"


def _forget_by_rules(
    settings: Settings,
    listener: Reporter,
    repository: Repository,
    narrowing: Narrowing,
    rules: RetentionRules,
    *,
    dry_run: bool,
) -> ExitCode:
    from backthen.repository import forget_snapshots, judge_snapshots

    verdicts = judge_snapshots(find_snapshots(repository, narrowing), rules)
    going = [verdict.info for verdict in verdicts if not verdict.reasons]
    if not dry_run:
        forget_snapshots(repository, [info.id for info in going], listener)
    kept = [verdict for verdict in verdicts if verdict.reasons]
    _tell(settings, going, (), kept, dry_run=dry_run)
    return ExitCode.DAMAGED if repository.damage else ExitCode.DONE


def _forget_named(
    settings: Settings,
    listener: Reporter,
    repository: Repository,
    narrowing: Narrowing,
    texts: Sequence[str],
    *,
    dry_run: bool,
) -> ExitCode:
    from backthen.repository import damaged_snapshots, forget_snapshots

    going: dict[SnapshotId, SnapshotInfo] = {}
    damaged: dict[SnapshotId, None] = {}
    repository.snapshots()
    unreadable = damaged_snapshots(repository) if repository.damage else []
    for text in texts:
        lost = _named(unreadable, text)
        if lost is not None:
            damaged[lost] = None
        else:
            info = find_snapshot(repository, narrowing, text)
            going[info.id] = info
    if not dry_run:
        forget_snapshots(repository, [*going, *damaged], listener)
    _tell(settings, list(going.values()), tuple(damaged), None, dry_run=dry_run)
    return ExitCode.DONE


def _named(ids: Sequence[SnapshotId], text: str) -> SnapshotId | None:
    """The one of the ids that begins with these digits."""
    words = text.strip().lower()
    found = [id_ for id_ in ids if id_.hex().startswith(words)] if _DAMAGED_ID.fullmatch(words) else []
    return found[0] if len(found) == 1 else None


def _tell(
    settings: Settings,
    going: Sequence[SnapshotInfo],
    damaged: Sequence[SnapshotId],
    kept: Sequence[Verdict] | None,
    *,
    dry_run: bool,
) -> None:
    if settings.json:
        document: dict[str, object] = {
            "dry_run": dry_run,
            "forgotten": [*map(snapshot_document, going), *({"id": id_.hex()} for id_ in damaged)],
        }
        if kept is not None:
            document["kept"] = [{**snapshot_document(info), "reasons": list(reasons)} for info, reasons in kept]
        print_document(document)
        return
    if settings.quiet:
        return
    for line in snapshot_lines(going):
        print(line)
    for id_ in damaged:
        print(f"{id_.hex()[:SHORT_ID]}  (damaged)")
    count = count_text(len(going) + len(damaged), "snapshot")
    print(f"{count} would be forgotten (--dry-run)" if dry_run else f"{count} forgotten", end="")
    print("" if kept is None else f", {count_text(len(kept), 'snapshot')} kept")
