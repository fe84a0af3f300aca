"""From what a user calls a location to the storage behind it."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from backthen.repository.errors import InvalidRequest
from backthen.repository.storage.access import PLAIN_ACCESS, StorageAccess
from backthen.repository.storage.backends.local import LocalStorage
from backthen.repository.storage.contract import Storage
from backthen.repository.storage.wrappers.retrying import RetryingStorage

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def open_storage(location: str, access: StorageAccess = PLAIN_ACCESS) -> Storage:
    """The storage at a location: a path, or a `file://` or `sftp://` URL. Nothing is read, made or connected to yet.

    Raises:
        InvalidRequest: it is not a location that this version knows.
    """
    match = _SCHEME.match(location)
    scheme = match[1].lower() if match else "file"
    if scheme == "file":
        return LocalStorage(_local_path(location))
    if scheme == "sftp":
        # Loaded here: it takes as long as a short command takes to run.
        from backthen.repository.storage.backends.sftp import SftpStorage

        return RetryingStorage(SftpStorage(location, access), retry_for_s=access.retry_for_s)
    raise InvalidRequest(
        f"{scheme}:// is not a kind of location that this version knows",
        hint="Give a folder on this machine, as a path or as file:///path, or one on a server: sftp://user@host/path.",
    )


def _local_path(location: str) -> Path:
    text = location
    if _SCHEME.match(location):
        parts = urlsplit(location)
        if parts.netloc not in ("", "localhost"):
            raise InvalidRequest(
                f"{location} names another host", hint="A local folder is written with three slashes: file:///path."
            )
        text = unquote(parts.path, errors="surrogateescape")
    if not text or "\0" in text:
        raise InvalidRequest("the location is not a path", hint="Give a folder on this machine.")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise InvalidRequest(f"{location}: {error}", hint="Give the path of the folder in full.") from error
