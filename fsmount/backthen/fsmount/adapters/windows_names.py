r"""Names of snapshots as names that Windows can hold, and back. Pure; docs/platforms.md has the rules for users.

What Windows has no room for is written with characters of Unicode's private use area, U+F000 plus the byte, as Cygwin
and WSL do: the characters `"*:<>?\|` and those below space, a space or dot at the end, and the first letter of a name
that stands for a device (`nul`, `com1.txt`). So are the bytes of what is not UTF-8, and of those private characters
themselves; hence `decode_name` gives the bytes of any encoded name back, and two names never become one.
"""

from __future__ import annotations

import re

_PRIVATE = 0xF000
_FORBIDDEN = frozenset('"*:<>?\\|') | frozenset(map(chr, range(1, 0x20)))
_ESCAPED_RANGE = frozenset(chr(_PRIVATE + byte) for byte in range(1, 0x100))
# "Naming Files, Paths, and Namespaces" in the Win32 documentation; an extension does not make a difference.
_DEVICE = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])(?= *(?:\.|$))", re.IGNORECASE)


def encode_name(name: bytes) -> str:
    """A name of a snapshot as Windows can hold it; at most as many UTF-16 units as it has bytes."""
    text = name.decode(errors="surrogateescape")
    characters = [_encode_character(character) for character in text]
    if characters[-1] in (" ", "."):
        characters[-1] = _private(ord(characters[-1]))
    if _DEVICE.match(text):
        characters[0] = _private(ord(characters[0]))
    return "".join(characters)


def decode_name(text: str) -> bytes:
    """The name that was encoded; what Windows' programs make up, encoded or not, as well."""
    return b"".join(
        bytes((ord(character) - _PRIVATE,)) if character in _ESCAPED_RANGE else character.encode(errors="surrogatepass")
        for character in text
    )


def encode_target(target: bytes) -> str:
    """Where a symlink points, as a path of Windows: its names are encoded, `.`, `..` and an empty one are kept."""
    names = target.split(b"/")
    return "\\".join(name.decode() if name in (b"", b".", b"..") else encode_name(name) for name in names)


def decode_target(text: str) -> bytes:
    """The target that was encoded."""
    return b"/".join(decode_name(name) for name in text.split("\\"))


def folded(text: str) -> str:
    """A name with no difference in case, each character by itself, as file systems of Windows compare."""
    return "".join(upper if len(upper := character.upper()) == 1 else character for character in text)


def _encode_character(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as `surrogateescape` gives it
        return _private(code - 0xDC00)
    if character in _FORBIDDEN:
        return _private(code)
    if character in _ESCAPED_RANGE:
        return "".join(map(_private, character.encode()))
    return character


def _private(byte: int) -> str:
    return chr(_PRIVATE + byte)
