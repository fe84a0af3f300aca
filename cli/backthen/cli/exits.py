"""The one table from errors to exit codes (docs/cli.md). Imported only once something has failed."""

from __future__ import annotations

from collections.abc import Mapping

from backthen import fsmount, repository
from backthen.cli.failures import CommandError, ExitCode

EXIT_CODES: Mapping[type[Exception], ExitCode] = {
    repository.RepositoryError: ExitCode.FAILED,
    repository.InvalidRequest: ExitCode.FAILED,
    repository.InvalidAccess: ExitCode.USAGE,
    repository.SnapshotNotFound: ExitCode.FAILED,
    repository.AmbiguousSnapshot: ExitCode.FAILED,
    repository.PathNotFound: ExitCode.FAILED,
    repository.RepositoryNotFound: ExitCode.NO_REPOSITORY,
    repository.RepositoryExists: ExitCode.FAILED,
    repository.WrongPassword: ExitCode.WRONG_PASSWORD,
    repository.TargetError: ExitCode.FAILED,
    repository.StorageError: ExitCode.STORAGE,
    repository.ObjectExists: ExitCode.STORAGE,
    repository.ObjectMissing: ExitCode.STORAGE,
    repository.CacheError: ExitCode.FAILED,
    repository.ProcessLost: ExitCode.FAILED,
    repository.DamageError: ExitCode.DAMAGED,
    repository.TamperedError: ExitCode.DAMAGED,
    repository.MalformedError: ExitCode.DAMAGED,
    repository.MissingError: ExitCode.DAMAGED,
    repository.RollbackError: ExitCode.DAMAGED,
    repository.NewerFormatError: ExitCode.FAILED,
    fsmount.MountError: ExitCode.MOUNT,
}


def exit_code_of(error: Exception) -> ExitCode | None:
    """The exit code of an error that was foreseen, or None for any other exception."""
    if isinstance(error, CommandError):
        return error.exit_code
    for kind in type(error).__mro__:
        if kind in EXIT_CODES:
            return EXIT_CODES[kind]
    return None
