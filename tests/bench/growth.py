"""Measures how time and memory grow: a tree, one folder, a history and an index at 1/8, 1/4, 1/2 and all of their size.

What is flat takes the same time for each file, snapshot or blob at every size, and the same memory. Run it as
`ci/growth`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench.corpus import count
from tests.bench.programs import Backthen, Command, own_program
from tests.bench.results import quantity_text
from tests.bench.running import Bench, StepFailed, Taken, bench_of, check_equal, run, run_storing
from tests.bench.serving import serving, wait_for
from tests.support.generator import make_folder, make_tree

_ROOT = Path(__file__).resolve().parents[2]
_SHARES = (8, 4, 2, 1)
_FILES_PER_FOLDER = 50
_FILES_BESIDE = 1000

Steps = Iterator[tuple[str, Taken]]


class World:
    """The program at work in one folder: what is asked of it, measured."""

    def __init__(self, bench: Bench, program: Backthen) -> None:
        """Work in the folder of a bench."""
        self.bench = bench
        self.repository = bench.place.repository
        self.source = bench.place.folder / "source"
        self._program = program

    def run(self, *arguments: str | Path) -> Taken:
        """Run the program."""
        return run(self.bench, self._command(*arguments))

    def snapshot(self, *arguments: str) -> Taken:
        """Save the source."""
        return run_storing(self.bench, self._command("snapshot", "create", *arguments, self.source))

    def generate(self, *arguments: str) -> Taken:
        """Have a repository made."""
        kind, *rest = arguments
        command = (sys.executable, "-m", "tests.support.generator", kind, str(self.repository), *rest)
        return run(self.bench, Command(command, _ROOT))

    def walk(self) -> Steps:
        """Examine all that was saved under the tag `first`, twice, in the mount."""
        bench = self.bench
        with serving(bench) as server:
            saved = wait_for(bench, server, lambda: bench.program.mounted(bench.place, "first", self.source))
            for step in ("mount: walk with stat of everything", "mount: the same again"):
                counted, taken = server.timed(lambda: count(saved))
                check_equal(self.source, counted)
                yield step, taken
            yield "mount: all of it", server.total

    def _command(self, *arguments: str | Path) -> Command:
        return Command((self._program.path, "--quiet", *map(str, arguments)))


def measure_tree(world: World, files: int) -> Steps:
    """Many files in many folders."""
    make_tree(world.source, files=files, folders=max(files // _FILES_PER_FOLDER, 1))
    world.run("init", world.repository)
    yield "first snapshot", world.snapshot("--tag", "first")
    yield "nothing changed", world.snapshot()
    yield "check, all data read", world.run("check", "--read-data")
    target = world.bench.place.folder / "restored"
    yield "restore", world.run("restore", f"latest:{world.source}", "--target", target)
    check_equal(world.source, count(target))
    shutil.rmtree(target)
    yield from world.walk()


def measure_folder(world: World, files: int) -> Steps:
    """Many files in one folder."""
    make_folder(world.source, files=files)
    world.run("init", world.repository)
    yield "first snapshot", world.snapshot("--tag", "first")
    yield "nothing changed", world.snapshot()
    changed = world.source / f"document {files // 2:08d}.txt"
    before = changed.read_bytes()
    changed.write_bytes(before + b"changed")
    yield "one file changed", world.snapshot()
    changed.write_bytes(before)
    yield from world.walk()


def measure_snapshots(world: World, snapshots: int) -> Steps:
    """A long history of a small folder, which then comes to another machine."""
    yield "making all of them", world.generate("snapshots", "--snapshots", str(snapshots))
    make_folder(world.source, files=_FILES_BESIDE)
    yield "list, on a new machine", world.run("snapshot", "list")
    yield "list", world.run("snapshot", "list")
    yield "one more, without a cache", world.snapshot()
    yield "one more", world.snapshot()
    yield "check", world.run("check")
    listing = world.bench.place.mountpoint / "snapshots"
    with serving(world.bench) as server:
        _, taken = server.timed(lambda: wait_for(world.bench, server, lambda: next(listing.iterdir())))
        yield "mount: until it can be used", taken
        names, taken = server.timed(lambda: len(os.listdir(listing)))
        if names != snapshots + 2:
            raise StepFailed(f"the mount shows {names} snapshots")
        yield "mount: list of all snapshots", taken
        oldest = listing / min(os.listdir(listing))
        diary = listing.parent / "versions" / next(oldest.rglob("diary.txt")).relative_to(oldest)
        _, taken = server.timed(lambda: list(os.scandir(diary.parent)))
        yield "mount: the folder in `versions`", taken
        contents, taken = server.timed(lambda: len(os.listdir(diary)))
        if contents != snapshots:
            raise StepFailed(f"the mount shows {contents} contents of a file")
        yield "mount: all contents of a file", taken
        yield "mount: all of it", server.total


def measure_home(world: World, snapshots: int) -> Steps:
    """All that a home ever held, after so many days, each folder opened for the first time."""
    world.generate("home", "--snapshots", str(snapshots))
    past = world.bench.place.mountpoint
    with serving(world.bench) as server:
        _, taken = server.timed(lambda: wait_for(world.bench, server, lambda: next((past / "snapshots").iterdir())))
        yield "mount: until it can be used", taken
        latest = (past / "latest").resolve()
        profile = next(latest.glob("**/.config/*"))
        home = past / "versions" / profile.parents[1].relative_to(latest)
        folders = {
            "`versions`": past / "versions",
            "the home, and those above": home,
            "a folder of 40 folders": home / "Documents",
            "a folder of 50 documents and more": home / "Documents/Project 07",
            "all contents of a document": home / "Documents/Project 07/document 00000007.txt",
            "a folder of 300 files that change each day": home / ".config" / profile.name,
        }
        for name, folder in folders.items():
            _, taken = server.timed(lambda folder=folder: [entry.stat() for entry in os.scandir(folder)])  # type: ignore[misc]
            yield f"mount: {name}", taken
        yield "mount: all of it", server.total


def measure_index(world: World, blobs: int) -> Steps:
    """An index of many blobs, loaded into an empty cache and used."""
    yield "writing it", world.generate("index", "--blobs", str(blobs))
    make_folder(world.source, files=_FILES_BESIDE)
    yield "snapshot, without a cache", world.snapshot()
    (world.source / "more").write_text("more")
    yield "snapshot", world.snapshot()


KINDS: dict[str, tuple[Callable[[World, int], Steps], int]] = {
    "tree": (measure_tree, 1_000_000),
    "folder": (measure_folder, 300_000),
    "snapshots": (measure_snapshots, 2000),
    "home": (measure_home, 2000),
    "index": (measure_index, 5_000_000),
}


class Curve(NamedTuple):
    """What one step took at each size."""

    kind: str
    step: str
    sizes: list[int]
    taken: list[Taken]


def measure_growth(kind: str, sizes: Sequence[int]) -> list[Curve]:
    """The curves of one kind.

    Raises:
        StepFailed: the program failed, or gave back something else than was saved.
    """
    curves: dict[str, Curve] = {}
    program = own_program()
    for size in sizes:
        with bench_of(program) as bench:
            for step, taken in KINDS[kind][0](World(bench, program), size):
                curve = curves.setdefault(step, Curve(kind, step, [], []))
                curve.sizes.append(size)
                curve.taken.append(taken)
                print(f"{kind} {size:,}: {step}: {taken_text(taken, size)}", file=sys.stderr, flush=True)
    return list(curves.values())


def table(curves: Sequence[Curve]) -> Iterator[str]:
    """The lines of a table: a column for each size, a row for each step."""
    yield f"| {curves[0].kind} | {' | '.join(f'{size:,}' for size in curves[0].sizes)} |"
    yield "|---" * (len(curves[0].sizes) + 1) + "|"
    for curve in curves:
        cells = (taken_text(taken, size) for taken, size in zip(curve.taken, curve.sizes, strict=True))
        yield f"| {curve.step} | {' | '.join(cells)} |"


def taken_text(taken: Taken, size: int) -> str:
    """What a step took, and how much of it for each file, snapshot or blob."""
    parts = []
    if taken.wall_s is not None:
        parts.append(f"{quantity_text(taken.wall_s, 'wall_s')} ({quantity_text(taken.wall_s / size, 'wall_s')} each)")
    if taken.anonymous_bytes is not None:
        parts.append(quantity_text(taken.anonymous_bytes, "anonymous_bytes"))
    if taken.stored_bytes is not None:
        parts.append(f"{quantity_text(taken.stored_bytes, 'stored_bytes')} stored")
    return ", ".join(parts)


def main() -> int:
    """Measure, and print the curves; 1 when the program failed."""
    parser = argparse.ArgumentParser(prog="ci/growth", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(KINDS)} (default: all of them)")
    parser.add_argument("--divide", type=int, default=1, metavar="N", help="make everything N times smaller")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    arguments = parser.parse_args()
    unknown = [kind for kind in arguments.kinds if kind not in KINDS]
    if unknown or arguments.divide < 1:
        parser.error(f"{unknown[0]} is not one of {', '.join(KINDS)}" if unknown else "--divide must be at least 1")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing is left behind
    measured: list[Curve] = []
    try:
        for kind in arguments.kinds or KINDS:
            full = KINDS[kind][1]
            curves = measure_growth(kind, [max(full // share // arguments.divide, 1) for share in _SHARES])
            measured.extend(curves)
            print(*table(curves), "", sep="\n", flush=True)
    except StepFailed as failure:
        print(f"failed: {failure}", file=sys.stderr)
        return 1
    finally:
        if arguments.json:
            rows = [{**curve._asdict(), "taken": [taken._asdict() for taken in curve.taken]} for curve in measured]
            arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
