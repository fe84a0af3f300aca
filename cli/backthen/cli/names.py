"""Names of files as they are shown: bytes in, text out that no terminal obeys.

A name that is UTF-8 without control characters is shown as it is. In any other one the control characters and
the bytes that are not UTF-8 are escaped, and so is the backslash, so that two names never look alike.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping

_JOINERS = "\u200c\u200d"  # Zero-width joiners: emoji and several scripts need them.
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})


def is_printable(text: str) -> bool:
    """Whether a terminal shows every character of `text` and obeys none."""
    return text.isprintable() or all(_is_safe(character) for character in text)


def shown_name(name: bytes) -> str:
    """A name or path to be printed for people."""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return _escaped(name)
    return text if is_printable(text) else _escaped(name)


def shown_text(text: str) -> str:
    """Text from elsewhere to be printed; bytes that are not UTF-8 may be in it as surrogates."""
    return text if is_printable(text) else _escaped(os.fsencode(text), keep_backslash=True)


def shown_lines(text: str) -> str:
    """The same for text of several lines."""
    return "\n".join(shown_text(line) for line in text.split("\n"))


def name_fields(key: str, name: bytes) -> Mapping[str, str]:
    """A name in a JSON document: `key`, and where the text does not tell the bytes, `key_bytes` in base64."""
    try:
        return {key: name.decode()}
    except UnicodeDecodeError:
        return {key: _escaped(name), f"{key}_bytes": base64.b64encode(name).decode()}


def _is_safe(character: str) -> bool:
    import unicodedata

    return character in _JOINERS or unicodedata.category(character) not in _UNSAFE_CATEGORIES


def _escaped(name: bytes, *, keep_backslash: bool = False) -> str:
    raw = name if keep_backslash else name.replace(b"\\", b"\\\\")
    text = raw.decode(errors="backslashreplace")
    return "".join(c if _is_safe(c) else c.encode("unicode_escape").decode() for c in text)
