"""Paths of the local file system as the repository records them."""

from __future__ import annotations

import os

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
