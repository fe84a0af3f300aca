"""What this user's cache holds of each repository; no repository has to be opened for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from backthen.repository import format as fmt
from backthen.repository.errors import CacheError
from backthen.repository.locked import Folders
from backthen.repository.opening import INDEX_FOLDER, OBJECTS_FOLDER
from backthen.repository.storage import cached_bytes, clear_cached

_ID = re.compile(rf"[0-9a-f]{{{2 * fmt.ID_BYTES}}}", re.ASCII)


@dataclass(frozen=True, slots=True)
class RepositoryCache:
    """The cache of one repository.

    Attributes:
        id: the repository's id, hexadecimal.
        bytes_fetched: what is kept of what was fetched, on the disk.
        bytes_index: what the local index takes on the disk.
    """

    id: str
    bytes_fetched: int
    bytes_index: int


def list_caches(folders: Folders) -> list[RepositoryCache]:
    """The cache of each repository that has one, in the order of their ids.

    Raises:
        CacheError: the cache folder cannot be read.
    """
    try:
        return [
            RepositoryCache(folder.name, cached_bytes(folder / OBJECTS_FOLDER), cached_bytes(folder / INDEX_FOLDER))
            for folder in _cache_folders(folders)
        ]
    except OSError as error:
        raise CacheError(f"{folders.cache} cannot be read: {error.strerror}") from error


def clear_caches(folders: Folders) -> int:
    """Remove what was fetched of all repositories, also while they are in use; how many bytes it took on the disk.

    Raises:
        CacheError: it cannot be removed.
    """
    try:
        return sum(clear_cached(folder / OBJECTS_FOLDER) for folder in _cache_folders(folders))
    except OSError as error:
        raise CacheError(
            f"{error.filename or folders.cache} cannot be removed: {error.strerror}", hint="Check who owns it."
        ) from error


def _cache_folders(folders: Folders) -> list[Path]:
    if not folders.cache.is_dir():
        return []
    return sorted(path for path in folders.cache.iterdir() if _ID.fullmatch(path.name) and path.is_dir())
