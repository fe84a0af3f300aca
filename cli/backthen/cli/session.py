"""From settings to an open repository."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from backthen.cli.notices import clear_line, warn
from backthen.cli.options import program_version
from backthen.cli.passwords import TRIES_MAX, Terminal, read_password
from backthen.cli.reaching import storage_at
from backthen.cli.settings import Settings

if TYPE_CHECKING:
    from backthen.repository import Client, Folders, LockedRepository, Repository, Unlocking


def open_repository(settings: Settings, *needed: str) -> Repository:
    """Find and unlock the repository; to be used as a context manager.

    Args:
        settings: say where it is and how to open it.
        needed: names of `backthen.repository` that are used next; they are imported while the keys are derived.

    Raises:
        RepositoryNotFound: there is none at the location.
        WrongPassword: the password does not open it; whoever types it may try three times.
        CommandError: there is no password, or its source failed.
        RepositoryError: as the repository raises.
    """
    start_logging(settings)
    locked = find_locked(settings)
    password = read_password(settings.password, password_prompt(settings))
    return unlock(locked, settings, password, *needed, tries=TRIES_MAX)


def find_locked(settings: Settings, *, retry_for_s: float | None = None) -> LockedRepository:
    """Find the repository, with a hint for whoever has none yet.

    Args:
        settings: say where it is.
        retry_for_s: seconds after which what keeps failing is given up; None for as long as by default.

    Raises:
        RepositoryNotFound: there is none at the location.
        RepositoryError: as the repository raises.
    """
    from backthen.repository import RepositoryNotFound, find_repository

    try:
        return find_repository(storage_at(settings, retry_for_s=retry_for_s), folders(settings))
    except RepositoryNotFound as error:
        if settings.is_location_given:
            raise
        hint = "Name one with --repository or BACKTHEN_REPOSITORY, or make one with `backthen init`."
        raise RepositoryNotFound(str(error), hint=hint) from error


def unlock(
    locked: LockedRepository,
    settings: Settings,
    password: bytes,
    *needed: str,
    tries: int,
    for_snapshot: bool = False,
) -> Repository:
    """Unlock with `password`; where it is wrong, one that was typed may be typed again until `tries` are used up.

    What is `needed` is as for `open_repository`, `for_snapshot` as for `LockedRepository.begin_unlock`.

    Raises:
        WrongPassword: the password does not open it.
        RepositoryError: as the repository raises.
    """
    from backthen.repository import WrongPassword

    for _ in range(tries - 1 if isinstance(settings.password, Terminal) else 0):
        try:
            return _unlock_once(locked, settings, password, needed, for_snapshot)
        except WrongPassword:
            warn("wrong password, try again")
            password = read_password(settings.password, password_prompt(settings))
    return _unlock_once(locked, settings, password, needed, for_snapshot)


def _unlock_once(
    locked: LockedRepository, settings: Settings, password: bytes, needed: Iterable[str], for_snapshot: bool
) -> Repository:
    import logging

    from backthen.cli.allocation import reuse_freed_memory
    from backthen.repository import InvalidRequest, WrongPassword

    reuse_freed_memory()
    try:
        unlocking = locked.begin_unlock(password, for_snapshot=for_snapshot)
    except InvalidRequest as error:  # A recovery key that is mistyped.
        raise WrongPassword(str(error), hint=error.hint) from error
    repository = _finish_unlock(unlocking, needed)
    log = logging.getLogger("backthen.cli")
    log.info("opened the repository %s at %s", repository.id.hex()[:8], settings.location)
    log.debug("the cache is in %s, what was seen is remembered in %s", settings.cache, settings.state)
    return repository


def _finish_unlock(unlocking: Unlocking, needed: Iterable[str]) -> Repository:
    """Do what else there is to do before the command can go on, then wait for the keys."""
    from backthen import repository as engine

    for name in ("finish_unlock", *needed):
        getattr(engine, name)
    user = client()
    return engine.finish_unlock(unlocking, user)


def folders(settings: Settings) -> Folders:
    """The user's base folders as the repository takes them."""
    from backthen.repository import Folders

    made = Folders(cache=settings.cache, state=settings.state)
    return made if settings.cache_limit is None else replace(made, cache_bytes_max=settings.cache_limit)


def client() -> Client:
    """Who uses the repository here."""
    from backthen.repository import Client

    return Client(host=host_name(), user=_user_name(), program=f"backthen {program_version()}")


def host_name() -> str:
    """The name of this machine."""
    return os.uname().nodename or "localhost"


def start_logging(settings: Settings, *, to_file: bool = False) -> None:
    """Send what the libraries log to standard error: warnings, with `-v` more, with `-q` errors alone.

    Args:
        settings: say how much.
        to_file: standard error is a log, which wants to know when, and what went well too.
    """
    import logging

    level = logging.ERROR if settings.quiet else logging.WARNING
    if to_file or settings.verbosity:
        level = logging.INFO
    if settings.debug or settings.verbosity > 1:
        level = logging.DEBUG

    class Handler(logging.StreamHandler[TextIO]):
        def emit(self, record: logging.LogRecord) -> None:
            clear_line()
            super().emit(record)

    handler = Handler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s" if to_file else "backthen: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("backthen").setLevel(level)
    # It warns of each write to a connection that broke, which the storage tells once and in a sentence.
    logging.getLogger("asyncio").setLevel(logging.ERROR)


def password_prompt(settings: Settings) -> str:
    """How the password is asked for."""
    from backthen.cli.names import shown_text

    return f"Password of {shown_text(settings.location)}: "


def _user_name() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
