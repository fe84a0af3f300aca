"""Running one program for a benchmark: in a folder of its own, measured, and heard when it fails."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.bench.corpus import count
from tests.bench.programs import Command, Place, Program
from tests.support.peak import measure

_LINES_SHOWN = 5


class Taken(NamedTuple):
    """What a step took: seconds, seconds of processor time, bytes at the peak, bytes stored; None if it has none."""

    wall_s: float | None = None
    cpu_s: float | None = None
    anonymous_bytes: int | None = None
    stored_bytes: int | None = None


class StepFailed(Exception):
    """A program did not do what it was asked for."""


@dataclass(frozen=True, slots=True)
class Bench:
    """One program at work in one folder."""

    program: Program
    place: Place

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the program."""
        return self.place.environment(self.program.variables(self.place))

    @property
    def output(self) -> Path:
        """The file that gets all it prints."""
        return self.place.folder / "output"

    def said(self) -> str:
        """The last lines of what it printed."""
        return "\n".join(self.output.read_text(errors="replace").splitlines()[-_LINES_SHOWN:])


@contextmanager
def bench_of(program: Program) -> Iterator[Bench]:
    """A program in a new folder, which is gone in the end."""
    folder = Path(tempfile.mkdtemp(prefix="backthen-bench."))
    try:
        bench = Bench(program, Place(folder))
        bench.place.make()
        yield bench
    finally:
        shutil.rmtree(folder)


def run(bench: Bench, command: Command) -> Taken:
    """Run a command to its end.

    Raises:
        StepFailed: its exit code is not 0.
    """
    os.sync()  # what the step before has left to be written is not this one's
    with bench.output.open("wb") as output:
        usage = measure(
            command.arguments, environment=bench.environment, folder=command.folder or bench.place.folder, output=output
        )
    if usage.exit_code:
        raise StepFailed(f"{' '.join(command.arguments)}: exit code {usage.exit_code}\n{bench.said()}")
    return Taken(usage.wall_s, usage.cpu_s, usage.anonymous_bytes)


def run_storing(bench: Bench, command: Command) -> Taken:
    """The same, with the bytes by which the repository grew.

    Raises:
        StepFailed: its exit code is not 0.
    """
    before = count(bench.place.repository)[1]
    taken = run(bench, command)
    return taken._replace(stored_bytes=count(bench.place.repository)[1] - before)


def check_equal(source: Path, counted: tuple[int, int]) -> None:
    """Refuse a copy that has not as many names and bytes as its source.

    Raises:
        StepFailed: it has not.
    """
    if counted != count(source):
        raise StepFailed(f"{source} came back with {counted} names and bytes, not {count(source)}")
