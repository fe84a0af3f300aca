"""A file of this machine whose content goes into a storage: what is wrong with it is no matter of the storage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backthen.repository.errors import StorageError


@contextmanager
def of_local_file(path: Path) -> Iterator[None]:
    """Say of errors that they are those of a file of this machine.

    Raises:
        StorageError: for an `OSError` that is raised inside.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error
