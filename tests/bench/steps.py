"""What is measured: the same work for every program, step by step, in a folder that is gone afterwards."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.bench.corpus import Corpus, count
from tests.bench.programs import Command, Place, Program
from tests.support.peak import measure

STEPS = {
    "small": "first snapshot, small files",
    "unchanged": "the same, nothing changed",
    "changed": "the same, five files changed",
    "compressible": "first snapshot, large file, compressible",
    "incompressible": "first snapshot, large file, incompressible",
    "restore-small": "restore of the small files",
    "restore-large": "restore of the compressible file",
    "check": "check, all data read",
    "mount-ready": "mount: until it can be used",
    "walk-cold": "mount: walk with stat of all small files",
    "walk-warm": "mount: the same again",
    "read": "mount: large file read from start to end",
    "random-p50": "mount: 4 KiB at a random place, median",
    "random-p99": "mount: 4 KiB at a random place, 99 of 100",
    "copy": "mount: cp -a of small files",
    "mount": "mount: all of it",
}
_CHANGED_FILES = 5


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
    """One program at work for one run."""

    program: Program
    place: Place
    corpus: Corpus

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
        return "\n".join(self.output.read_text(errors="replace").splitlines()[-5:])


Record = Callable[[str, Taken], None]


@contextmanager
def bench_of(program: Program, corpus: Corpus) -> Iterator[Bench]:
    """A program with a new repository; all of it is gone in the end."""
    folder = Path(tempfile.mkdtemp(prefix="backthen-bench."))
    bench = Bench(program, Place(folder), corpus)
    try:
        bench.place.make()
        _run(bench, program.init(bench.place))
        yield bench
    finally:
        shutil.rmtree(folder)


def measure_files(bench: Bench, record: Record) -> None:
    """All steps but those of the mount.

    Raises:
        StepFailed: the program failed, or did not restore what was saved.
    """
    corpus = bench.corpus
    record("small", _saved(bench, "small-1", corpus.small))
    record("unchanged", _saved(bench, "small-2", corpus.small))
    with _changed(corpus.small):
        record("changed", _saved(bench, "small-3", corpus.small))
    record("compressible", _saved(bench, "compressible", corpus.compressible))
    record("incompressible", _saved(bench, "incompressible", corpus.incompressible))
    record("restore-small", _restored(bench, "small-1", corpus.small))
    record("restore-large", _restored(bench, "compressible", corpus.compressible))
    record("check", _run(bench, bench.program.check()))


def _run(bench: Bench, command: Command) -> Taken:
    os.sync()  # what the step before has left to be written is not this one's
    with bench.output.open("wb") as output:
        usage = measure(
            command.arguments, environment=bench.environment, folder=command.folder or bench.place.folder, output=output
        )
    if usage.exit_code:
        raise StepFailed(f"{' '.join(command.arguments)}: exit code {usage.exit_code}\n{bench.said()}")
    return Taken(usage.wall_s, usage.cpu_s, usage.anonymous_bytes)


def _saved(bench: Bench, name: str, source: Path) -> Taken:
    before = count(bench.place.repository)[1]
    taken = _run(bench, bench.program.snapshot(name, source))
    return taken._replace(stored_bytes=count(bench.place.repository)[1] - before)


def _restored(bench: Bench, name: str, source: Path) -> Taken:
    target = bench.place.folder / "restored"
    target.mkdir()
    taken = _run(bench, bench.program.restore(name, source, target))
    check_equal(source, count(bench.program.restored(source, target)))
    shutil.rmtree(target)
    return taken


def check_equal(source: Path, counted: tuple[int, int]) -> None:
    """Refuse a copy that has not as many names and bytes as its source.

    Raises:
        StepFailed: it has not.
    """
    if counted != count(source):
        raise StepFailed(f"{source} came back with {counted} names and bytes, not {count(source)}")


@contextmanager
def _changed(folder: Path) -> Iterator[None]:
    """A few files have another last line inside, and are as they were afterwards."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    step = max(len(files) // _CHANGED_FILES, 1)
    before = [(path, path.stat(), path.read_bytes()) for path in files[::step][:_CHANGED_FILES]]
    try:
        for path, _, content in before:
            path.write_bytes(content + b"changed by the benchmark\n")
        yield
    finally:
        for path, status, content in before:
            path.write_bytes(content)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
