"""The steps of the mount: what a file manager, a player and a database would do in it."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from typing import TypeVar

from tests.bench.corpus import count
from tests.bench.programs import Place
from tests.bench.steps import Bench, Record, StepFailed, Taken, check_equal
from tests.support.peak import anonymous_bytes

_READY_TIMEOUT_S = 60.0
_END_TIMEOUT_S = 30.0
_POLL_S = 0.01
_READ_BYTES = 1 << 20
_RANDOM_BYTES = 4096
_RANDOM_READS_MAX = 1000
_RANDOM_EVERY_BYTES = 512 << 10
_TICKS = os.sysconf("SC_CLK_TCK")
_Result = TypeVar("_Result")


def measure_mount(bench: Bench, record: Record) -> None:
    """All steps of the mount, over the snapshots of `measure_files`.

    Raises:
        StepFailed: it cannot be used, or what is in it is not what was saved.
    """
    corpus, program = bench.corpus, bench.program
    with _serving(bench) as server:
        begun = time.perf_counter()
        image = _wait(bench, server, "compressible", corpus.image)
        record("mount-ready", Taken(time.perf_counter() - begun, _processor_s(server.pid)))
        small = program.mounted(bench.place, "small-1", corpus.small)
        for step in ("walk-cold", "walk-warm"):
            taken, counted = _timed(server.pid, lambda: count(small))
            check_equal(corpus.small, counted)
            record(step, taken)
        taken, length = _timed(server.pid, lambda: _read(image))
        if length != corpus.image.stat().st_size:
            raise StepFailed(f"{image} has {length} bytes, not {corpus.image.stat().st_size}")
        record("read", taken)
        media = program.mounted(bench.place, "incompressible", corpus.incompressible) / corpus.media.name
        median, high = _random_reads(media)
        record("random-p50", Taken(median))
        record("random-p99", Taken(high))
        copy = bench.place.folder / "copy"
        taken, _ = _timed(server.pid, lambda: _copy(small / corpus.part.relative_to(corpus.small), copy))
        check_equal(corpus.part, count(copy))
        shutil.rmtree(copy)
        record("copy", taken)
        record("mount", Taken(None, _processor_s(server.pid), server.peak))


class _Server:
    """The process that serves the mount, watched by a thread for the peak of its anonymous memory."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.pid = process.pid
        self.peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak")
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            self.peak = max(self.peak, anonymous_bytes(self.pid))


@contextmanager
def _serving(bench: Bench) -> Iterator[_Server]:
    command = bench.program.mount(bench.place)
    with bench.output.open("wb") as output:
        process = subprocess.Popen(
            command.arguments, env=bench.environment, cwd=bench.place.folder, stdout=output, stderr=output
        )
    server = _Server(process)
    try:
        yield server
    finally:
        server.stop()
        _unmount(bench.place, process)


def _unmount(place: Place, process: subprocess.Popen[bytes]) -> None:
    subprocess.run(["fusermount3", "-u", "-q", str(place.mountpoint)], check=False)
    try:
        process.wait(_END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        subprocess.run(["fusermount3", "-u", "-z", "-q", str(place.mountpoint)], check=False)
        process.kill()
        process.wait()


def _wait(bench: Bench, server: _Server, name: str, file: Path) -> Path:
    """The file in the mount, as soon as it is there."""
    end = time.perf_counter() + _READY_TIMEOUT_S
    while time.perf_counter() < end and server.process.poll() is None:
        try:
            path = bench.program.mounted(bench.place, name, file.parent) / file.name
            path.stat()
        except OSError:
            time.sleep(_POLL_S)
        else:
            return path
    raise StepFailed(f"the mount does not show {file}\n{bench.said()}")


def _timed(pid: int, work: Callable[[], _Result]) -> tuple[Taken, _Result]:
    """What some work in the mount takes, with the processor time of the process that serves it."""
    processor_s, begun = _processor_s(pid), time.perf_counter()
    result = work()
    return Taken(time.perf_counter() - begun, _processor_s(pid) - processor_s), result


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


def _processor_s(pid: int) -> float:
    """Processor time of a process so far, in seconds; proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
