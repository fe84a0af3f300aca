"""`backthen mount` and `backthen umount`: the past as a folder."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backthen.cli.documents import print_document
from backthen.cli.failures import ExitCode
from backthen.cli.names import shown_text
from backthen.cli.notices import warn
from backthen.cli.options import current_settings, global_options
from backthen.cli.passwords import TRIES_MAX, Terminal, read_password
from backthen.cli.paths import absolute_folder, local_folder
from backthen.cli.selection import Narrowing, find_snapshot, narrowing_options, parse_reference
from backthen.cli.session import find_locked, password_prompt, start_logging, unlock
from backthen.cli.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from backthen.cli.daemon import Started
    from backthen.cli.reporting import Failure

_LOG_NAME_CHARACTERS_MAX = 100


@dataclass(frozen=True, slots=True)
class _Job:
    """All that is needed to serve a mount, in whichever process."""

    settings: Settings
    mountpoint: Path
    narrowing: Narrowing
    reference: str | None
    allow_other: bool
    driver: str | None


@click.command()
@click.argument("mountpoint")
@click.option("--snapshot", "reference", metavar="SNAPSHOT[:PATH]", help="Show this folder alone.")
@click.option("--foreground", is_flag=True, help="Serve until Ctrl-C or `umount`, logging to standard error.")
@click.option("--allow-other", is_flag=True, help="Let other users in, as far as the saved permissions allow.")
@click.option(
    "--driver",
    type=click.Choice(["libfuse3", "pyfuse3", "refuse"]),
    help="What to mount with, in place of this platform's own.",
)
@narrowing_options
@global_options()
def mount(
    narrowing: Narrowing,
    mountpoint: str,
    reference: str | None,
    foreground: bool,
    allow_other: bool,
    driver: str | None,
) -> ExitCode:
    """Show all snapshots as a read-only folder at MOUNTPOINT.

    Comes back once the folder can be used, and serves on in the background.
    """
    from backthen.fsmount import prepare_mountpoint

    settings = current_settings()
    start_logging(settings)
    folder = absolute_folder(mountpoint)
    prepare_mountpoint(folder, repository_folder=local_folder(settings.location))
    find_locked(settings)
    job = _Job(settings, folder, narrowing, reference, allow_other, driver)
    password = read_password(settings.password, password_prompt(settings))
    if foreground:
        return _serve_here(job, password)
    return _serve_in_background(job, password)


@click.command()
@click.argument("mountpoint")
@global_options()
def umount(mountpoint: str) -> ExitCode:
    """Take a mount away, also one whose process has died."""
    from backthen.fsmount import unmount

    settings = current_settings()
    start_logging(settings)
    folder = absolute_folder(mountpoint)
    unmount(folder)
    if settings.json:
        print_document({"mountpoint": str(folder)})
    elif not settings.quiet:
        print(f"Unmounted {shown_text(str(folder))}")
    return ExitCode.DONE


def log_path(logs: Path, mountpoint: Path) -> Path:
    """The log of a mount: one for each mountpoint, named after it."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", str(mountpoint)).strip("-") or "root"
    return logs / f"mount-{name[-_LOG_NAME_CHARACTERS_MAX:]}.log"


def _serve(job: _Job, password: bytes, ready: Callable[[], None]) -> None:
    from backthen.fsmount import Driver, MountOptions, serve

    # Found here once more: what was opened before the fork is not used after it.
    with unlock(find_locked(job.settings), job.settings, password, tries=1) as repository:
        chosen = None
        if job.reference is not None:
            wanted = parse_reference(job.reference)
            chosen = (find_snapshot(repository, job.narrowing, wanted.snapshot), wanted.path or b"")
        options = MountOptions(
            allow_other=job.allow_other,
            snapshot=chosen,
            repository_folder=local_folder(job.settings.location),
            driver=None if job.driver is None else Driver(job.driver),
        )
        serve(repository, job.mountpoint, options, ready)


def _serve_here(job: _Job, password: bytes) -> ExitCode:
    def tell_ready() -> None:
        if job.settings.json:
            print_document({"mountpoint": str(job.mountpoint), "pid": os.getpid(), "log": None})
        elif not job.settings.quiet:
            print(f"Mounted at {shown_text(str(job.mountpoint))}; Ctrl-C unmounts it", flush=True)

    _serve(job, password, tell_ready)
    return ExitCode.DONE


def _serve_in_background(job: _Job, password: bytes) -> ExitCode:
    from backthen.cli.daemon import Started
    from backthen.cli.reporting import tell

    log = log_path(job.settings.logs, job.mountpoint)
    result = _start(job, password, log)
    for _ in range(TRIES_MAX - 1):
        if isinstance(result, Started) or not _may_try_again(job.settings, result):
            break
        warn("wrong password, try again")
        password = read_password(job.settings.password, password_prompt(job.settings))
        result = _start(job, password, log)
    if not isinstance(result, Started):
        tell(result, as_json=job.settings.json)
        return result.code
    _tell_mounted(job, result.pid, log)
    return ExitCode.DONE


def _start(job: _Job, password: bytes, log_file: Path) -> Started | Failure:
    from backthen.cli.daemon import start_in_background

    def work(ready: Callable[[], None]) -> None:
        import logging

        log = logging.getLogger("backthen.cli")
        start_logging(job.settings, to_file=True)
        log.info("serving %s at %s in process %d", job.settings.location, job.mountpoint, os.getpid())
        _serve(job, password, ready)
        log.info("unmounted")

    return start_in_background(work, log_file)


def _may_try_again(settings: Settings, failure: Failure) -> bool:
    return failure.code == ExitCode.WRONG_PASSWORD and isinstance(settings.password, Terminal)


def _tell_mounted(job: _Job, pid: int, log: Path) -> None:
    place = shown_text(str(job.mountpoint))
    if job.settings.json:
        print_document({"mountpoint": str(job.mountpoint), "pid": pid, "log": str(log)})
    elif not job.settings.quiet:
        print(f"Mounted at {place} (process {pid}, log {shown_text(str(log))})")
        print(f"Unmount it with: backthen umount {place}")
