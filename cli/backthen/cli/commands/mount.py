"""`backthen mount`: the past as a folder, now or at each login."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backthen.cli.bookmarks import add_bookmark, bookmarks_path
from backthen.cli.documents import print_document
from backthen.cli.failures import ExitCode, UsageFailure
from backthen.cli.names import shown_lines, shown_text
from backthen.cli.notices import warn
from backthen.cli.options import current_settings, global_options
from backthen.cli.owners import parse_owner
from backthen.cli.passwords import TRIES_MAX, Terminal, read_password
from backthen.cli.paths import absolute_folder, local_folder
from backthen.cli.quantities import parse_size, size_text
from backthen.cli.selection import Narrowing, find_snapshot, narrowing_options, parse_reference
from backthen.cli.session import find_locked, password_prompt, start_logging, unlock
from backthen.cli.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from backthen.cli.daemon import Started
    from backthen.cli.reporting import Failure
    from backthen.fsmount import MountOptions, Owner
    from backthen.repository import Repository

CACHE_BYTES_MIN = 8 << 20
TIMEOUT_S_MIN = 2
"""More than what is at hand without the storage may take."""
_RETRY_SHARE = 3
"""The part of what somebody waits for the storage in which a call that fails is tried again."""
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
    owner: Owner | None
    cache_bytes: int | None
    timeout_s: float | None
    is_bookmarked: bool

    @property
    def arguments(self) -> list[str]:
        """The options of `mount` that make it so once more, wherever it is called."""
        narrowing, owner = self.narrowing, self.owner
        values = {
            "--snapshot": self.reference,
            "--host": narrowing.host,
            "--path": None if narrowing.path is None else os.fsdecode(narrowing.path),
            "--driver": self.driver,
            "--owner": None if owner is None else f"{owner.uid}:{owner.gid}",
            "--cache-size": None if self.cache_bytes is None else str(self.cache_bytes),
            "--timeout": None if self.timeout_s is None else f"{self.timeout_s:g}",
        }
        words = [word for option, value in values.items() if value is not None for word in (option, value)]
        words += [word for tag in narrowing.tags for word in ("--tag", tag)]
        return [*words, "--allow-other"] if self.allow_other else words


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
@click.option("--owner", metavar="OWNER", help="Let all files belong to `me`, to USER[:GROUP] or to UID:GID.")
@click.option("--cache-size", metavar="SIZE", help="Hold so much in memory: `200M`, for example.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=TIMEOUT_S_MIN),
    metavar="SECONDS",
    help="Let nobody wait longer for the storage. [30]",
)
@click.option("--bookmark", is_flag=True, help="Put it beside the other places in file managers.")
@click.option("--install", is_flag=True, help="Mount it now, and by systemd at each login from now on.")
@click.option("--uninstall", is_flag=True, help="Unmount it, and do not mount it at login any more.")
@narrowing_options
@global_options()
def mount(
    narrowing: Narrowing,
    mountpoint: str,
    reference: str | None,
    foreground: bool,
    allow_other: bool,
    driver: str | None,
    owner: str | None,
    cache_size: str | None,
    timeout_s: float | None,
    bookmark: bool,
    install: bool,
    uninstall: bool,
) -> ExitCode:
    """Show all snapshots as a read-only folder at MOUNTPOINT.

    Comes back once the folder can be used, and serves on in the background.
    """
    if foreground + install + uninstall > 1:
        raise UsageFailure("--foreground, --install and --uninstall exclude each other", hint="Give one of them.")
    settings = current_settings()
    start_logging(settings)
    folder = absolute_folder(mountpoint)
    if uninstall:
        return _uninstall(settings, folder)
    job = _Job(
        settings=settings,
        mountpoint=folder,
        narrowing=narrowing,
        reference=reference,
        allow_other=allow_other,
        driver=driver,
        owner=None if owner is None else parse_owner(owner),
        cache_bytes=None if cache_size is None else _parse_cache_size(cache_size),
        timeout_s=timeout_s,
        is_bookmarked=bookmark,
    )
    return _install(job) if install else _mount(job, is_foreground=foreground)


def log_path(logs: Path, mountpoint: Path) -> Path:
    """The log of a mount: one for each mountpoint, named after it."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", str(mountpoint)).strip("-") or "root"
    return logs / f"mount-{name[-_LOG_NAME_CHARACTERS_MAX:]}.log"


def _parse_cache_size(text: str) -> int:
    size_bytes = parse_size(text)
    if size_bytes is None or size_bytes < CACHE_BYTES_MIN:
        raise UsageFailure(
            f"--cache-size: '{shown_text(text)}' is not a size of {size_text(CACHE_BYTES_MIN)} or more",
            hint="Give a number of bytes, or one with a unit: `200M`.",
        )
    return size_bytes


def _mount(job: _Job, *, is_foreground: bool) -> ExitCode:
    from backthen.cli.reporting import tell
    from backthen.fsmount import prepare_mountpoint

    prepare_mountpoint(job.mountpoint, repository_folder=local_folder(job.settings.location))
    failure = _look_for_repository(job.settings)
    if failure is not None:
        tell(failure, as_json=job.settings.json)
        return failure.code
    password = read_password(job.settings.password, password_prompt(job.settings))
    return _serve_here(job, password) if is_foreground else _serve_in_background(job, password)


def _look_for_repository(settings: Settings) -> Failure | None:
    """Say before a password is asked for that there is no repository.

    That is seen to in a process of its own, because not everything that reaches a storage survives a fork.
    """
    from backthen.cli.daemon import run_apart

    return run_apart(lambda: find_locked(settings).close())


def _install(job: _Job) -> ExitCode:
    from backthen.cli.login import check_unattended, install_login_mount
    from backthen.fsmount import MountState, mount_state, prepare_mountpoint

    settings = job.settings
    check_unattended(settings)
    # What is mounted by hand stays as it is until the next login.
    is_free = mount_state(job.mountpoint) is not MountState.LIVE
    if is_free:
        prepare_mountpoint(job.mountpoint, repository_folder=local_folder(settings.location))
    password = read_password(settings.password, "")
    with unlock(find_locked(settings), settings, password, tries=1) as repository:
        _options(job, repository)
    installed = install_login_mount(settings, job.mountpoint, job.arguments, may_start=is_free)
    if settings.json:
        started = {"unit": str(installed.unit), "started": installed.is_started}
        print_document({"mountpoint": str(job.mountpoint), **started})
    elif not settings.quiet:
        print(f"Installed {shown_text(str(installed.unit))}")
        place = shown_text(str(job.mountpoint))
        print(f"Mounted at {place}, now and at each login" if installed.is_started else f"{place} is mounted at login")
    _bookmark_if_wanted(job)
    return ExitCode.DONE


def _uninstall(settings: Settings, mountpoint: Path) -> ExitCode:
    from backthen.cli.login import uninstall_login_mount

    unit = uninstall_login_mount(mountpoint)
    if settings.json:
        print_document({"mountpoint": str(mountpoint), "unit": str(unit)})
    elif not settings.quiet:
        print(f"Removed {shown_text(str(unit))}")
    return ExitCode.DONE


def _options(job: _Job, repository: Repository) -> MountOptions:
    from backthen.fsmount import REQUEST_DEADLINE_S, Driver, MountOptions

    chosen = None
    if job.reference is not None:
        wanted = parse_reference(job.reference)
        chosen = (find_snapshot(repository, job.narrowing, wanted.snapshot), wanted.path or b"")
    return MountOptions(
        allow_other=job.allow_other,
        snapshot=chosen,
        repository_folder=local_folder(job.settings.location),
        driver=None if job.driver is None else Driver(job.driver),
        owner=job.owner,
        request_deadline_s=job.timeout_s or REQUEST_DEADLINE_S,
    )


def _serve(job: _Job, password: bytes, ready: Callable[[], None]) -> None:
    from backthen.fsmount import REQUEST_DEADLINE_S, serve

    # Found here once more: what was opened before the fork is not used after it.
    retry_for_s = (job.timeout_s or REQUEST_DEADLINE_S) / _RETRY_SHARE
    locked = find_locked(job.settings, retry_for_s=retry_for_s)
    with unlock(locked, job.settings, password, tries=1) as repository:
        if job.cache_bytes is not None:
            repository.bound_caches(job.cache_bytes)
        serve(repository, job.mountpoint, _options(job, repository), ready)


def _bookmark_if_wanted(job: _Job) -> None:
    if not job.is_bookmarked:
        return
    path = bookmarks_path()
    try:
        add_bookmark(path, job.mountpoint)
    except OSError as error:
        warn(f"the bookmark could not be written to {shown_text(str(path))}: {error.strerror}")


def _serve_here(job: _Job, password: bytes) -> ExitCode:
    from backthen.cli.readiness import tell_service_manager

    def tell_ready() -> None:
        tell_service_manager(os.environ)
        _bookmark_if_wanted(job)
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
    _tell_mounted(job, result)
    _bookmark_if_wanted(job)
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


def _tell_mounted(job: _Job, started: Started) -> None:
    place, log = shown_text(str(job.mountpoint)), None if started.log is None else str(started.log)
    for message in () if job.settings.quiet else started.warnings:
        warn(shown_lines(message))
    if job.settings.json:
        print_document({"mountpoint": str(job.mountpoint), "pid": started.pid, "log": log})
    elif not job.settings.quiet:
        print(f"Mounted at {place} (process {started.pid}, {'no log' if log is None else f'log {shown_text(log)}'})")
        print(f"Unmount it with: backthen umount {place}")
