"""Tables of plain text: aligned columns, a heading, no borders."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence


def table_lines(heading: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> list[str]:
    """The lines of a table; the columns numbered in `right` are aligned to the right. The last column is not padded."""
    lines = [tuple(heading), *(tuple(row) for row in rows)]
    widths = [max(_width(line[column]) for line in lines) for column in range(len(heading))]
    to_the_right = frozenset(right)
    return [_line(line, widths, to_the_right) for line in lines]


def facts_lines(facts: Iterable[tuple[str, str]]) -> list[str]:
    """Lines of a label and a value, the values below one another."""
    pairs = list(facts)
    width = max((len(label) for label, _ in pairs), default=0)
    return [f"  {label:<{width}}  {value}".rstrip() for label, value in pairs]


def _line(cells: Sequence[str], widths: Sequence[int], right: frozenset[int]) -> str:
    return "  ".join(
        _fill(widths[column] - _width(cell)) + cell if column in right else cell + _fill(widths[column] - _width(cell))
        for column, cell in enumerate(cells)
    ).rstrip()


def _fill(count: int) -> str:
    return " " * count


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
