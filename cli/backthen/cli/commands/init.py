"""`backthen init`: make a repository."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from backthen.cli.configuration import record_repository
from backthen.cli.documents import print_document
from backthen.cli.failures import ConfigurationError, ExitCode
from backthen.cli.names import shown_text
from backthen.cli.notices import warn
from backthen.cli.options import check_not_empty, current_settings, global_options, new_password_options
from backthen.cli.passwords import PasswordSource, Terminal, has_terminal, read_new_password
from backthen.cli.settings import Settings, absolute_location

if TYPE_CHECKING:
    from backthen.repository import Repository, Storage

_WARNING = (
    "Without the password everything in the repository is lost for ever. It cannot be recovered: not by you, not by\n"
    "whoever keeps the storage, and not by the makers of Backthen."
)


@click.command()
@click.argument("location", required=False)
@new_password_options
@global_options()
def init(location: str | None, new_password: PasswordSource | None) -> ExitCode:
    """Make a repository at LOCATION.

    LOCATION is a folder, or sftp://user@host/path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix. The
    first one that is made at a LOCATION becomes the default of this user. Without LOCATION it is made where
    --repository or the configuration says, or else in the user's data folder.
    """
    from backthen.cli.reaching import storage_at
    from backthen.cli.session import client, folders, start_logging
    from backthen.repository import create_repository

    settings = current_settings()
    if location is not None:
        check_not_empty("LOCATION", location)
        settings = replace(settings, location=absolute_location(location), is_location_given=True)
    start_logging(settings)
    storage = storage_at(settings)
    _check_free(settings, storage)
    source = new_password or settings.password
    password = read_new_password(source, f"New password of {shown_text(settings.location)}")
    with create_repository(storage, password, folders(settings), client()) as repository:
        is_recorded = location is not None and _record(settings)
        if settings.json:
            print_document(_document(settings, repository, is_recorded=is_recorded))
            return ExitCode.DONE
        _tell_made(settings, repository, is_recorded=is_recorded)
        _offer_recovery_key(repository, may_ask=isinstance(source, Terminal))
    return ExitCode.DONE


def _check_free(settings: Settings, storage: Storage) -> None:
    """Look for a repository before a password is asked for.

    Raises:
        RepositoryExists: there is a repository, be it damaged or of a newer format.
        StorageError: the storage cannot be used.
    """
    from backthen.cli.session import folders
    from backthen.repository import (
        DamageError,
        NewerFormatError,
        RepositoryExists,
        RepositoryNotFound,
        find_repository,
    )

    try:
        find_repository(storage, folders(settings))
    except RepositoryNotFound:
        return
    except (DamageError, NewerFormatError):  # There is one, which is all that is asked here.
        pass
    raise RepositoryExists(
        f"there is a repository at {shown_text(settings.location)} already", hint="It was left as it is."
    )


def _record(settings: Settings) -> bool:
    try:
        return record_repository(settings.configuration, settings.location)
    except ConfigurationError as error:  # The repository is made; this alone must not look like a failure.
        warn(shown_text(str(error)))
        return False


def _document(settings: Settings, repository: Repository, *, is_recorded: bool) -> dict[str, object]:
    return {
        "repository": {"id": repository.id.hex(), "location": settings.location},
        "recorded_in": str(settings.configuration.path) if is_recorded else None,
    }


def _tell_made(settings: Settings, repository: Repository, *, is_recorded: bool) -> None:
    if not settings.quiet:
        print(f"Made the repository {repository.id.hex()[:8]} at {shown_text(settings.location)}")
        if is_recorded:
            print(f"It is your default from now on: {shown_text(str(settings.configuration.path))} says so.")
        print()
    print(_WARNING)


def _offer_recovery_key(repository: Repository, *, may_ask: bool) -> None:
    from backthen.cli.recovery import print_recovery_key
    from backthen.repository import add_recovery_key

    if not (may_ask and has_terminal()):
        print("A recovery key, to be kept on paper, opens it too: `backthen key recovery-key` makes one.")
        return
    print("A recovery key opens it too. It is shown once, and belongs on paper, in a safe place.")
    if click.confirm("Make a recovery key now?", default=True):
        text, _ = add_recovery_key(repository)
        print_recovery_key(text)
    else:
        print("`backthen key recovery-key` makes one at any time.")
