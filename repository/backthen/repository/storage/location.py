"""From what a user calls a location to the storage behind it."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from backthen.repository.errors import InvalidRequest
from backthen.repository.storage.contract import Storage
from backthen.repository.storage.local import LocalStorage

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def open_storage(location: str) -> Storage:
    """The storage at a location: a path, or a `file://` URL. Nothing is read or made yet.

    Raises:
        InvalidRequest: it is not a location that this version knows.
    """
    return LocalStorage(_local_path(location))


def _local_path(location: str) -> Path:
    text = location
    if match := _SCHEME.match(location):
        if match[1].lower() != "file":
            raise InvalidRequest(
                f"{match[1]}:// is not a kind of location that this version knows",
                hint="Give a folder on this machine, as a path or as file:///path.",
            )
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
