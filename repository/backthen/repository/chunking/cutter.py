"""Content-defined cuts that do not give away their key (FORMAT.md, section 7).

FastCDC (Xia et al., "The Design of Fast Content-Defined Chunking for Data Deduplication Based Storage Systems", IEEE
TPDS 2020) proposes positions at native speed, a keyed PRF chooses among them and moves each cut by a secret distance.
Without the distance every cut would still be one of FastCDC's, from which its seed can be computed (eprint 2025/532,
2025/558).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import pyfastcdc
from blake3 import blake3

from backthen.repository import format as fmt
from backthen.repository.errors import InvalidRequest

_WINDOW_BYTES = 8 * fmt.MIB
_NORMALIZATION: Final = 1
_GOLDEN_SEED = 5
_GOLDEN_CUTS = (33521, 99057, 118722, 160944, 199522, 231636, 254168, 262144)

ReadInto = Callable[[memoryview], int]
"""Fills a buffer from the front and returns how many bytes it filled; 0 means the end."""


class CutRule:
    """Which of the wished cuts of a stretch are made: at least 256 KiB and at most 2 MiB apart.

    Positions are byte offsets.
    """

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last = 0

    def wish(self, cut: int) -> Iterator[int]:
        """The cuts that follow from wishing for one at `cut`; wishes come in the order of their proposals."""
        if cut - self.last < fmt.CHUNK_BYTES_MIN:
            return
        yield from self.reach(cut)
        if cut - self.last >= fmt.CHUNK_BYTES_MIN:
            self.last = cut
            yield cut

    def reach(self, position: int) -> Iterator[int]:
        """The forced cuts before `position`, knowing that no wish before it is to come."""
        while position - self.last > fmt.CHUNK_BYTES_MAX:
            self.last += fmt.CHUNK_BYTES_MAX
            yield self.last


class Cutter:
    """Cuts one stretch of data after another. Not safe to share between threads: FastCDC keeps state."""

    __slots__ = ("_fastcdc", "_prf_key", "_window")

    def __init__(self, seed: int, prf_key: bytes) -> None:
        self._fastcdc = _make_fastcdc(seed)
        self._prf_key = prf_key
        self._window = memoryview(bytearray(_WINDOW_BYTES))

    def cut(self, read_into: ReadInto) -> Iterator[memoryview]:
        """The chunks of a stretch, in order. Each is valid until the next one is asked for."""
        window = self._window
        rule = CutRule()
        due: list[int] = []
        base = filled = scanned = given = 0
        at_end = False
        while not at_end:
            keep = min(scanned, given)
            window[: filled - keep] = window[keep - base : filled - base]
            base = keep
            count, at_end = _fill(window[filled - base :], read_into)
            filled += count
            for proposal in self._proposals(window[scanned - base : filled - base], scanned, at_end=at_end):
                scanned = proposal
                wish = self._wish(window[proposal - base - fmt.CUT_WINDOW_BYTES : proposal - base], proposal)
                due.extend(rule.reach(proposal) if wish is None else rule.wish(wish))
            if at_end:
                due = _finish(due, given, filled)
            while due and due[0] <= filled:
                end = due.pop(0)
                if end > given:
                    yield window[given - base : end - base]
                given = end

    def _proposals(self, data: memoryview, start: int, *, at_end: bool) -> Iterator[int]:
        """Positions FastCDC cuts at.

        The end of the data is none, unless the stretch goes on and the cut is a forced one.
        """
        length = len(data)
        for chunk in self._fastcdc.cut_buf(data):
            end = chunk.offset + chunk.length
            if end < length or (not at_end and chunk.length == fmt.FASTCDC_BYTES_MAX):
                yield start + end

    def _wish(self, before: memoryview, proposal: int) -> int | None:
        digest = blake3(before, key=self._prf_key).digest(16)
        if int.from_bytes(digest[:8], "big") % fmt.CUT_ONE_IN:
            return None
        return proposal + int.from_bytes(digest[8:], "big") % fmt.CUT_SPREAD_BYTES


def check_fastcdc() -> None:
    """Refuse a FastCDC that cuts otherwise than when this was written, or runs in pure Python.

    Other cuts would lose no data, but would store again what is stored.

    Raises:
        InvalidRequest: the installed `pyfastcdc` is not usable.
    """
    if not pyfastcdc.FastCDC.__module__.startswith("pyfastcdc.cy"):
        raise InvalidRequest(
            "pyfastcdc runs without its native part", hint="Install pyfastcdc from a wheel for this system."
        )
    sample = blake3(b"golden").digest(256 * fmt.KIB)
    cuts = tuple(chunk.offset + chunk.length for chunk in _make_fastcdc(_GOLDEN_SEED).cut_buf(sample))
    if cuts != _GOLDEN_CUTS:
        raise InvalidRequest(
            "pyfastcdc cuts otherwise than expected", hint="Install the version that Backthen asks for."
        )


def _make_fastcdc(seed: int) -> pyfastcdc.FastCDC:
    return pyfastcdc.FastCDC(
        fmt.FASTCDC_BYTES_AVERAGE,
        min_size=fmt.FASTCDC_BYTES_MIN,
        max_size=fmt.FASTCDC_BYTES_MAX,
        normalized_chunking=_NORMALIZATION,
        seed=seed,
    )


def _finish(due: list[int], given: int, end: int) -> list[int]:
    """The last cuts of a stretch: those before its end, forced ones after them, and the end itself."""
    cuts = [cut for cut in due if cut < end]
    rule = CutRule()
    rule.last = cuts[-1] if cuts else given
    return [*cuts, *rule.reach(end), end]


def _fill(window: memoryview, read_into: ReadInto) -> tuple[int, bool]:
    """Read until the window is full or the stretch ends: (bytes read, whether it ended)."""
    filled = 0
    while filled < len(window):
        count = read_into(window[filled:])
        if count == 0:
            return filled, True
        filled += count
    return filled, False
