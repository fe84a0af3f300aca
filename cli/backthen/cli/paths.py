"""Paths of the local file system, as they are given and as the repository records them."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from backthen.cli.failures import UsageFailure


def absolute_source(path: str) -> bytes:
    """A path made absolute with its parent resolved; a last link is not followed, a slash at the end means nothing.

    Raises:
        UsageFailure: the path is empty.
    """
    if not path:
        raise UsageFailure("an empty path names nothing")
    raw = os.fsencode(path).rstrip(b"/") or b"/"
    parent, name = os.path.split(raw)
    if name in (b"", b".", b".."):
        return os.path.realpath(raw)
    return os.path.join(os.path.realpath(parent or b"."), name)


def absolute_folder(path: str) -> Path:
    """A folder that was named on the command line, made absolute as `absolute_source` does it.

    Raises:
        UsageFailure: the name is empty, which would mean the working directory and never does.
    """
    if not path:
        raise UsageFailure("an empty path names nothing", hint="For the working directory say `.`.")
    return Path(os.fsdecode(absolute_source(path)))


def local_folder(location: str) -> Path | None:
    """The folder of a repository on this machine, or None."""
    if "://" not in location:
        return Path(location)
    url = urlsplit(location)
    return Path(unquote(url.path)) if url.scheme == "file" else None
