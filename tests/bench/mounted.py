"""The steps of the mount: what a file manager, a player and a database would do in it."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from pathlib import Path
from statistics import quantiles

from tests.bench.corpus import Corpus, count
from tests.bench.running import Bench, StepFailed, Taken, check_equal
from tests.bench.serving import serving, wait_for
from tests.bench.steps import Record

_READ_BYTES = 1 << 20
_RANDOM_BYTES = 4096
_RANDOM_READS_MAX = 1000
_RANDOM_EVERY_BYTES = 512 << 10


def measure_mount(bench: Bench, corpus: Corpus, record: Record) -> None:
    """All steps of the mount, over the snapshots of `measure_files`.

    Raises:
        StepFailed: it cannot be used, or what is in it is not what was saved.
    """
    program, place = bench.program, bench.place

    def find_image() -> Path:
        return program.mounted(place, "compressible", corpus.compressible) / corpus.image.name

    with serving(bench) as server:
        image, taken = server.timed(lambda: wait_for(bench, server, find_image))
        record("mount-ready", taken)
        small = program.mounted(place, "small-1", corpus.small)
        for step in ("walk-cold", "walk-warm"):
            counted, taken = server.timed(lambda: count(small))
            check_equal(corpus.small, counted)
            record(step, taken)
        length, taken = server.timed(lambda: _read(image))
        if length != corpus.image.stat().st_size:
            raise StepFailed(f"{image} has {length} bytes, not {corpus.image.stat().st_size}")
        record("read", taken)
        median, high = _random_reads(
            program.mounted(place, "incompressible", corpus.incompressible) / corpus.media.name
        )
        record("random-p50", Taken(median))
        record("random-p99", Taken(high))
        copy = place.folder / "copy"
        _, taken = server.timed(lambda: _copy(small / corpus.part.relative_to(corpus.small), copy))
        check_equal(corpus.part, count(copy))
        shutil.rmtree(copy)
        record("copy", taken)
        record("mount", server.total)


def _read(path: Path) -> int:
    done = 0
    with path.open("rb", buffering=0) as file:
        while data := file.read(_READ_BYTES):
            done += len(data)
    return done


def _random_reads(path: Path) -> tuple[float, float]:
    """Median and 99th percentile, in seconds."""
    places = random.Random(1)
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        taken = []
        # Not so many that what the kernel reads ahead of one holds the next.
        for _ in range(min(_RANDOM_READS_MAX, max(size // _RANDOM_EVERY_BYTES, 2))):
            offset = places.randrange(max(size - _RANDOM_BYTES, 1))
            begun = time.perf_counter()
            os.pread(file.fileno(), _RANDOM_BYTES, offset)
            taken.append(time.perf_counter() - begun)
    percentiles = quantiles(taken, n=100)
    return percentiles[49], percentiles[98]


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", "--", str(source), str(target)], check=True)
