"""What was measured, over all runs: medians, tables to read, a document for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from tests.bench.running import Taken
from tests.bench.steps import STEPS

Quantity = Literal["wall_s", "cpu_s", "anonymous_bytes", "stored_bytes"]
QUANTITIES: Mapping[Quantity, str] = {
    "wall_s": "Wall time",
    "cpu_s": "Processor time (of a mount: of its server)",
    "anonymous_bytes": "Peak anonymous memory",
    "stored_bytes": "Bytes stored",
}
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(slots=True)
class Results:
    """What one program took: for each step one `Taken` a run, and what it failed to do."""

    version: str
    steps: dict[str, list[Taken]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def record(self, step: str, taken: Taken) -> None:
        """Keep what a step took."""
        self.steps.setdefault(step, []).append(taken)

    def median(self, step: str, quantity: Quantity) -> float | None:
        """The median over all runs; None where there is nothing."""
        values = [value for taken in self.steps.get(step, ()) if (value := getattr(taken, quantity)) is not None]
        return median(values) if values else None


def tables(results: Mapping[str, Results]) -> Iterable[str]:
    """The lines of a table for each quantity: the first program's figures, and the others' with how many times more."""
    for quantity, title in QUANTITIES.items():
        yield ""
        yield f"| {title} | {' | '.join(one.version for one in results.values())} |"
        yield "|---" * (len(results) + 1) + "|"
        for step in measured_steps(results, quantity):
            yield f"| {STEPS[step]} | {' | '.join(_cells(results, step, quantity))} |"


def measured_steps(results: Mapping[str, Results], quantity: Quantity) -> list[str]:
    """The steps for which some program has that quantity, in order."""
    return [step for step in STEPS if any(one.median(step, quantity) is not None for one in results.values())]


def document(results: Mapping[str, Results], about: Mapping[str, object]) -> dict[str, object]:
    """Everything, for programs."""
    programs = {
        name: {
            "version": one.version,
            "steps": {step: [taken._asdict() for taken in runs] for step, runs in one.steps.items()},
            "failures": one.failures,
        }
        for name, one in results.items()
    }
    return {**about, "programs": programs}


def quantity_text(value: float, quantity: Quantity) -> str:
    """A figure with its unit."""
    if quantity.endswith("_s"):
        return _seconds_text(value)
    unit = 0
    while value >= 1023.5 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    return f"{value:.1f} {_UNITS[unit]}" if unit and value < 99.95 else f"{value:,.0f} {_UNITS[unit]}"


def _seconds_text(seconds: float) -> str:
    if seconds >= 0.0995:
        return f"{seconds:.1f} s" if seconds >= 9.95 else f"{seconds:.2f} s"
    return f"{seconds * 1e3:.2g} ms" if seconds >= 0.995e-3 else f"{seconds * 1e6:.3g} \N{MICRO SIGN}s"


def times_text(value: float, own: float) -> str:
    """How many times more it is than our own."""
    return f"{value / own:.2g} \N{MULTIPLICATION SIGN}"


def _cells(results: Mapping[str, Results], step: str, quantity: Quantity) -> Iterable[str]:
    values = [one.median(step, quantity) for one in results.values()]
    for number, value in enumerate(values):
        if value is None:
            yield "-"
        elif number and values[0]:
            yield f"{quantity_text(value, quantity)} ({times_text(value, values[0])})"
        else:
            yield quantity_text(value, quantity)
