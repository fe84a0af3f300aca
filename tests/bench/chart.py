"""The chart of a benchmark: bars in SVG, on a card of its own so that it can be read on light and dark pages alike."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from tests.bench.results import Quantity, Results, measured_steps, quantity_text, times_text
from tests.bench.steps import STEPS

_WIDTH = 880
_MARGIN = 28
_LABELS = 300
_VALUES = 130
_BAR = 12
_GAP = 2
_BETWEEN = 10
_HEADING = 46
_PANELS: tuple[tuple[str, Quantity, Collection[str]], ...] = (
    ("Wall time", "wall_s", STEPS),
    ("Peak anonymous memory", "anonymous_bytes", ("small", "compressible", "restore-small", "check", "mount")),
    ("Bytes stored", "stored_bytes", ("small", "changed", "compressible")),
)
# The first program is this project. Colours are told apart by brightness too, for those who see few of them.
_LIGHT = ("#0969da", "#8c959f", "#c4cbd2", "#e3b341")
_DARK = ("#58a6ff", "#8b949e", "#57606a", "#d4a72c")


class Bar(NamedTuple):
    """One program's figure in a group."""

    program: int
    value: float
    text: str


class Group(NamedTuple):
    """What one step took."""

    label: str
    bars: Sequence[Bar]


def draw_chart(results: Mapping[str, Results], title: str) -> str:
    """The chart as one SVG document; in each group the longest bar is the most that a program took."""
    body: list[str] = []
    y = _MARGIN + 22
    body.append(_text(_MARGIN, y, title, "title"))
    y += 30
    body.extend(_legend([one.version for one in results.values()], y))
    for heading, quantity, steps in _PANELS:
        groups = _groups(results, quantity, steps)
        if groups:
            y += _HEADING
            body.append(_text(_MARGIN, y, f"{heading}, less is better", "heading"))
            y += 14
            for group in groups:
                body.extend(_draw_group(group, y))
                y += len(group.bars) * (_BAR + _GAP) + _BETWEEN
    height = y + _MARGIN - _BETWEEN
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
            f'viewBox="0 0 {_WIDTH} {height}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{_style()}</style>",
            f'<rect class="card" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="8"/>',
            *body,
            "</svg>",
            "",
        )
    )


def _groups(results: Mapping[str, Results], quantity: Quantity, steps: Collection[str]) -> list[Group]:
    groups = []
    for step in measured_steps(results, quantity):
        if step not in steps:
            continue
        values = ((number, one.median(step, quantity)) for number, one in enumerate(results.values()))
        bars = [Bar(number, value, quantity_text(value, quantity)) for number, value in values if value is not None]
        groups.append(Group(STEPS[step], bars))
    return groups


def _draw_group(group: Group, y: int) -> Iterable[str]:
    most = max(bar.value for bar in group.bars) or 1
    middle = y + (len(group.bars) * (_BAR + _GAP) - _GAP) / 2
    left = _MARGIN + _LABELS
    room = _WIDTH - left - _VALUES - _MARGIN
    yield _text(left - 12, middle + 4, group.label, "label")
    for number, bar in enumerate(group.bars):
        top = y + number * (_BAR + _GAP)
        length = max(bar.value / most * room, 2)
        yield f'<rect class="bar{bar.program}" x="{left}" y="{top}" width="{length:.1f}" height="{_BAR}" rx="2"/>'
        own = group.bars[0].value
        times = f"  ({times_text(bar.value, own)})" if number and not group.bars[0].program and own else ""
        yield _text(left + length + 6, top + _BAR - 3, bar.text + times, "value" if bar.program else "value own")


def _legend(names: Sequence[str], y: int) -> Iterable[str]:
    x = _MARGIN
    for number, name in enumerate(names):
        yield f'<rect class="bar{number}" x="{x}" y="{y - 11}" width="13" height="13" rx="2"/>'
        yield _text(x + 20, y, name, "legend")
        x += 52 + 8 * len(name)


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _style() -> str:
    common = (
        "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;font-size:13px}"
        ".title{font-size:19px;font-weight:600}.heading{font-size:15px;font-weight:600}.own{font-weight:600}"
        ".label{text-anchor:end}.value{font-size:12px}"
    )
    light = _colours("#ffffff", "#d0d7de", "#1f2328", _LIGHT)
    dark = _colours("#0d1117", "#30363d", "#e6edf3", _DARK)
    return f"{common}{light}@media(prefers-color-scheme:dark){{{dark}}}"


def _colours(card: str, border: str, ink: str, bars: Sequence[str]) -> str:
    return f".card{{fill:{card};stroke:{border}}}text{{fill:{ink}}}" + "".join(
        f".bar{number}{{fill:{colour}}}" for number, colour in enumerate(bars)
    )
