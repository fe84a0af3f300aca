"""The bookmarks that file managers show at their side: GTK's file, which Nautilus, Nemo, Caja, Thunar and PCManFM read.

A line is a URI, and after a space the name to be shown. Lines of others stay as they are, byte for byte.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

from backthen.cli.replacing import replace_file

_SCHEME = b"file://"


def bookmarks_path() -> Path:
    """Where this user's bookmarks are."""
    import platformdirs

    return platformdirs.user_config_path("gtk-3.0") / "bookmarks"


def add_bookmark(bookmarks: Path, folder: Path) -> bool:
    """Bookmark a folder under its name, unless it is bookmarked; whether it was not.

    Raises:
        OSError: the file cannot be read or written.
    """
    lines = _read(bookmarks)
    if any(_is_of(line, folder) for line in lines):
        return False
    name = os.fsencode(folder.name).decode(errors="replace").replace("\n", " ")
    uri = _SCHEME + quote_from_bytes(os.fsencode(folder)).encode()
    _write(bookmarks, [*lines, uri + b" " + name.encode()])
    return True


def remove_bookmark(bookmarks: Path, folder: Path) -> bool:
    """Take the bookmark of a folder away, whatever it is called; whether there was one.

    Raises:
        OSError: the file cannot be read or written.
    """
    lines = _read(bookmarks)
    kept = [line for line in lines if not _is_of(line, folder)]
    if len(kept) == len(lines):
        return False
    _write(bookmarks, kept)
    return True


def _read(bookmarks: Path) -> list[bytes]:
    try:
        data = bookmarks.read_bytes()
    except FileNotFoundError:
        return []
    return data.removesuffix(b"\n").split(b"\n") if data else []


def _write(bookmarks: Path, lines: list[bytes]) -> None:
    replace_file(bookmarks, b"".join(line + b"\n" for line in lines))


def _is_of(line: bytes, folder: Path) -> bool:
    """Whether a line is of a folder; programs differ in which characters they escape."""
    uri = line.partition(b" ")[0]
    return uri.startswith(_SCHEME) and unquote_to_bytes(uri[len(_SCHEME) :]).rstrip(b"/") == os.fsencode(folder)
