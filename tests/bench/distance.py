"""Measures Backthen and restic with a storage that is far away: over a line of 50 ms and 20 MB/s, by SFTP and to S3.

The servers are OpenSSH's sshd and moto, on this machine, behind `tests/support/slow_line.py`, which counts round trips
and bytes. Run it as `ci/distance`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from tests.bench.programs import Backthen, Place, Restic, find_programs
from tests.bench.running import Bench, StepFailed, run
from tests.bench.serving import serving, wait_for
from tests.support.far import STORAGES, Far
from tests.support.generator import make_tree
from tests.support.slow_line import Counts

ROUND_TRIP_S = 0.05
BYTES_PER_S = 20e6
STEPS = {
    "first": "first snapshot of 100,000 small files",
    "unchanged": "nothing changed",
    "changed": "five files changed",
    "renamed": "a folder of 5,000 files renamed",
    "fill": "first snapshot of 400 files of 1 MB and one of 100 MB",
    "inserted": "8 bytes inserted at the start of 1 GiB",
    "walk-1": "mount: list 50,000 names, first time",
    "walk-2": "mount: list them again",
    "read": "mount: read the file of 100 MB",
    "byte": "mount: first byte of a random file of 1 MB, its folder listed before (mean of 20)",
}
_FILES, _FOLDERS = 100_000, 2000
_PHOTOS, _PHOTO_BYTES, _FILM_BYTES = 400, 1_000_000, 100_000_000
_IMAGE_BYTES = 1 << 30
_LISTED_TOPS = 10
_BYTES_READ = 20
_PIECE_BYTES = 1 << 20


class Row(NamedTuple):
    """What a step took, of time and of the line."""

    wall_s: float
    round_trips: float
    sent: float
    received: float


@dataclass(frozen=True, slots=True)
class Corpus:
    """What is saved."""

    folder: Path

    @property
    def small(self) -> Path:
        """Many small files."""
        return self.folder / "small"

    @property
    def photos(self) -> Path:
        """Files that do not compress."""
        return self.folder / "photos"

    @property
    def film(self) -> Path:
        """One of them, which is large."""
        return self.photos / "film"

    @property
    def image(self) -> Path:
        """The folder of a very large file."""
        return self.folder / "image"

    def make(self) -> None:
        """Make it all."""
        make_tree(self.small, files=_FILES, folders=_FOLDERS)
        self.photos.mkdir()
        for number in range(_PHOTOS):
            _fill(self.photos / f"photo {number:03}", _PHOTO_BYTES, number)
        _fill(self.film, _FILM_BYTES, _PHOTOS)
        self.image.mkdir()
        _fill(self.image / "image", _IMAGE_BYTES, -1)


@dataclass
class Measured:
    """One program with one storage, and what was measured."""

    bench: Bench
    far: Far
    rows: dict[str, Row] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str, *, times: int = 1) -> Iterator[None]:
        """Measure what is done inside, and take the mean of so many times."""
        before, begun = self.far.line.counts, time.perf_counter()
        yield
        wall_s, counts = time.perf_counter() - begun, self.far.line.counts - before
        self.rows[name] = _mean(wall_s, counts, times)
        row = self.rows[name]
        _say(f"  {name}: {row.wall_s:.2f} s, {row.round_trips:.1f} trips, {row.sent:.0f} up, {row.received:.0f} down")

    def save(self, name: str, source: Path, *, snapshot: str) -> None:
        """Measure a snapshot."""
        with self.step(name):
            run(self.bench, self.bench.program.snapshot(snapshot, source))


def _mean(wall_s: float, counts: Counts, times: int) -> Row:
    return Row(wall_s / times, counts.round_trips / times, counts.sent / times, counts.received / times)


def main() -> int:
    """Measure, and print a table."""
    arguments = _parse()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    found = find_programs()
    programs = {name: program for name, program in found.items() if isinstance(program, Backthen | Restic)}
    rows: dict[str, dict[str, Row]] = {}
    with ExitStack() as stack:
        corpus = Corpus(arguments.corpus or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="distance."))))
        if not corpus.image.exists():
            corpus.make()
        for storage in arguments.storage or STORAGES:
            for name in arguments.program or programs:
                _say(f"{name} over {storage}")
                rows[f"{name}, {storage}"] = _measure(programs[name], storage, corpus, arguments.step)
    if arguments.json:
        arguments.json.write_text(json.dumps({key: {k: v._asdict() for k, v in r.items()} for key, r in rows.items()}))
    for line in table(rows):
        print(line)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ci/distance", description=__doc__)
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="save what is in DIR; made, and left, where missing")
    parser.add_argument("--program", action="append", choices=("backthen", "restic"), help="these alone")
    parser.add_argument("--storage", action="append", choices=tuple(STORAGES), help="these alone")
    parser.add_argument("--step", action="append", choices=tuple(_PARTS), help="these parts alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    return parser.parse_args()


def _measure(program: Backthen | Restic, storage: str, corpus: Corpus, parts: list[str] | None) -> dict[str, Row]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="distance-run.")))
        far = stack.enter_context(STORAGES[storage](folder, ROUND_TRIP_S, BYTES_PER_S))
        place = Place(folder / "here")
        place.make()
        measured = Measured(Bench(_reaching(program, far, place), place), far)
        far.settle(place.folder / "home")
        run(measured.bench, measured.bench.program.init(place))
        for name in parts or _PARTS:
            _PARTS[name](measured, corpus)
    return measured.rows


def _reaching(program: Backthen | Restic, far: Far, place: Place) -> Backthen | Restic:
    if isinstance(program, Backthen):
        return replace(program, location=far.location, more=far.variables)
    config = place.folder / "home" / ".ssh" / "config"
    command = f"sftp.command=ssh -F {config} {urlsplit(far.location).hostname} -s sftp"
    options = ("-o", command) if far.ssh_config else ()
    return replace(program, location=far.restic_location, more=far.variables, options=options)


def _measure_small(measured: Measured, corpus: Corpus) -> None:
    measured.save("first", corpus.small, snapshot="small-1")
    measured.save("unchanged", corpus.small, snapshot="small-2")
    changed = sorted(corpus.small.rglob("*.txt"))[:: _FILES // 5]
    before = {path: path.read_bytes() for path in changed}
    for path in changed:
        path.write_bytes(os.urandom(200))
    measured.save("changed", corpus.small, snapshot="small-3")
    for path, content in before.items():
        path.write_bytes(content)
    (corpus.small / "0003").rename(corpus.small / "renamed")
    try:
        run(measured.bench, measured.bench.program.snapshot("small-4", corpus.small))
        (corpus.small / "renamed").rename(corpus.small / "0003 renamed")
        measured.save("renamed", corpus.small, snapshot="small-5")
    finally:
        next(corpus.small.glob("*renamed")).rename(corpus.small / "0003")


def _measure_large(measured: Measured, corpus: Corpus) -> None:
    with measured.far.line.unlimited():
        run(measured.bench, measured.bench.program.snapshot("image-1", corpus.image))
    whole = corpus.image / "image"
    aside = corpus.folder / "aside"
    whole.rename(aside)
    with whole.open("wb") as target, aside.open("rb") as source:
        target.write(b"inserted")
        shutil.copyfileobj(source, target, _PIECE_BYTES)
    try:
        measured.save("inserted", corpus.image, snapshot="image-2")
    finally:
        aside.replace(whole)


def _measure_photos(measured: Measured, corpus: Corpus) -> None:
    measured.save("fill", corpus.photos, snapshot="photos")


def _measure_mount(measured: Measured, corpus: Corpus) -> None:
    """As from another machine: nothing is in its cache."""
    if "first" not in measured.rows:
        run(measured.bench, measured.bench.program.snapshot("small-1", corpus.small))
    if "fill" not in measured.rows:
        run(measured.bench, measured.bench.program.snapshot("photos", corpus.photos))
    place = Place(measured.bench.place.folder.parent / "there")
    place.make()
    measured.far.settle(place.folder / "home")
    bench = Bench(measured.bench.program, place)
    with serving(bench) as server:
        small = wait_for(bench, server, lambda: bench.program.mounted(place, "small-1", corpus.small))
        photos = bench.program.mounted(place, "photos", corpus.photos)
        tops = sorted(path.name for path in corpus.small.iterdir())[:_LISTED_TOPS]
        for name in ("walk-1", "walk-2"):
            with measured.step(name):
                names = sum(len(files) for top in tops for _, _, files in os.walk(small / top))
            if names != _LISTED_TOPS * _FILES * 100 // _FOLDERS:
                raise StepFailed(f"the mount lists {names} files")
        chosen = random.Random(1).sample(sorted(photos.glob("photo *")), _BYTES_READ)
        with measured.step("byte", times=_BYTES_READ):
            for path in chosen:
                with path.open("rb", buffering=0) as file:
                    file.read(1)
        with measured.step("read"), (photos / corpus.film.name).open("rb", buffering=0) as file:
            while file.read(_PIECE_BYTES):
                pass


_PARTS: dict[str, Callable[[Measured, Corpus], None]] = {
    "small": _measure_small,
    "photos": _measure_photos,
    "large": _measure_large,
    "mount": _measure_mount,
}


def table(rows: dict[str, dict[str, Row]]) -> Iterator[str]:
    """What was measured, in Markdown."""
    yield f"| round trips, time, sent, received | {' | '.join(rows)} |"
    yield "|---" * (len(rows) + 1) + "|"
    for step, text in STEPS.items():
        if any(step in each for each in rows.values()):
            yield f"| {text} | {' | '.join(_cell(each.get(step)) for each in rows.values())} |"


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    return f"{row.round_trips:.3g}, {row.wall_s:.2f} s, {_size(row.sent)}, {_size(row.received)}"


def _size(count: float) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} KB"


def _fill(path: Path, length: int, seed: int) -> None:
    source = random.Random(seed)
    with path.open("wb") as file:
        for at in range(0, length, _PIECE_BYTES):
            file.write(source.randbytes(min(_PIECE_BYTES, length - at)))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
