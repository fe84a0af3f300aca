"""How hard data is compressed: what a user asks for in a word or a number, and what follows from it for a segment."""

from __future__ import annotations

from dataclasses import dataclass

from backthen.repository.compression.zstd import looks_compressed
from backthen.repository.errors import InvalidRequest

_LEVEL_MIN = 1
_LEVEL_MAX = 22


@dataclass(frozen=True, slots=True)
class Compression:
    """How segments are compressed; the levels are zstd's, and docs/performance.md has what they cost and save.

    What looks compressed already is stored as it is at every level: trying it costs most where it brings least.

    Attributes:
        level: of segments of many small blobs; 0 stores everything as it is.
        level_large: of segments of a few large blobs.
    """

    level: int = 3
    level_large: int = 2

    def is_worthwhile(self, data: memoryview) -> bool:
        """Whether these bytes are to be compressed at all."""
        return self.level > 0 and not looks_compressed(data)


_NAMED = {
    "auto": Compression(),
    "off": Compression(0, 0),
    "fast": Compression(1, 1),
    "max": Compression(19, 19),
}


def parse_compression(text: str) -> Compression:
    """What `auto`, `off`, `fast`, `max` or the number of a zstd level asks for.

    Raises:
        InvalidRequest: it is none of them.
    """
    named = _NAMED.get(text)
    if named is not None:
        return named
    if text.isascii() and text.isdecimal() and len(text) <= 2 and _LEVEL_MIN <= int(text) <= _LEVEL_MAX:
        return Compression(int(text), int(text))
    raise InvalidRequest(
        f"there is no compression {text!r}",
        hint=f"Choose {', '.join(_NAMED)}, or a zstd level from {_LEVEL_MIN} to {_LEVEL_MAX}.",
    )
