"""Every error that leaves the repository: one base, a hint for the user, and kinds that a caller can tell apart.

Invariant: no exception of a third-party library and no bare OSError from storage crosses the border of this package.
Nothing may be in here but exception classes.
"""

from __future__ import annotations


class RepositoryError(Exception):
    """Base of all errors of `backthen.repository`.

    Attributes:
        hint: what the user can do about it, one sentence, or empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class InvalidRequest(RepositoryError):
    """What was asked for makes no sense: an unknown snapshot, a bad pattern, a path that is not there."""


class InvalidAccess(InvalidRequest):
    """What this machine reaches the storage with is missing or makes no sense: credentials, an SSH configuration."""


class SnapshotNotFound(InvalidRequest):
    """No snapshot answers to the given text."""


class AmbiguousSnapshot(InvalidRequest):
    """Several snapshots answer to the given text; the message lists them."""


class PathNotFound(InvalidRequest):
    """The snapshot has no such path, or the path to be saved does not exist."""


class RepositoryNotFound(RepositoryError):
    """There is no repository at the location."""


class RepositoryExists(RepositoryError):
    """There is a repository at the location already."""


class WrongPassword(RepositoryError):
    """No key slot opens with the given password."""


class TargetError(RepositoryError):
    """The folder restored into cannot be used or written."""


class StorageError(RepositoryError):
    """The storage failed: disk full, no permission, no connection.

    Attributes:
        transient: the same call may succeed later.
    """

    def __init__(self, message: str, *, hint: str = "", transient: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.transient = transient


class ObjectExists(StorageError):
    """Put-if-absent found the name taken."""


class ObjectMissing(StorageError):
    """The storage has no object of that name."""


class CacheError(RepositoryError):
    """The cache or state folder cannot be used."""


class ProcessLost(RepositoryError):
    """A process that did part of the work was ended from outside."""


class DamageError(RepositoryError):
    """Base of what is wrong with the repository's data; names the object and, where known, the place in it."""

    def __init__(self, message: str, *, name: str = "", hint: str = "") -> None:
        super().__init__(f"{name}: {message}" if name else message, hint=hint or "Run `backthen check --read-data`.")
        self.name = name


class TamperedError(DamageError):
    """Authentication failed: the bytes are not those that were written."""


class MalformedError(DamageError):
    """The bytes are authentic, or not sealed at all, but do not follow the format."""


class MissingError(DamageError):
    """Something that is relied on is not in the repository."""


class RollbackError(DamageError):
    """The storage shows an older or another past than this client has seen."""


class NewerFormatError(RepositoryError):
    """The repository was made by a newer version of the program."""
