"""A mount that is served by another process, while this one works in it."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tests.bench.programs import Place
from tests.bench.running import Bench, StepFailed, Taken
from tests.support.peak import anonymous_bytes

_READY_TIMEOUT_S = 60.0
_END_TIMEOUT_S = 30.0
_POLL_S = 0.01
_PEAK_INTERVAL_S = 0.02
_TICKS = os.sysconf("SC_CLK_TCK")
_Result = TypeVar("_Result")


class Server:
    """The process that serves a mount, watched by a thread for the peak of its anonymous memory."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        """Begin to watch."""
        self._process = process
        self._peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak")
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether the process is still there."""
        return self._process.poll() is None

    @property
    def total(self) -> Taken:
        """What it has taken so far."""
        return Taken(None, _processor_s(self._process.pid), self._peak)

    def timed(self, work: Callable[[], _Result]) -> tuple[_Result, Taken]:
        """What some work in the mount gives, and takes: its own time, and the processor time of the server."""
        processor_s, begun = _processor_s(self._process.pid), time.perf_counter()
        result = work()
        wall_s = time.perf_counter() - begun
        return result, Taken(wall_s, _processor_s(self._process.pid) - processor_s)

    def stop(self) -> None:
        """Watch no more."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(_PEAK_INTERVAL_S):
            self._peak = max(self._peak, anonymous_bytes(self._process.pid))


@contextmanager
def serving(bench: Bench) -> Iterator[Server]:
    """The mount, which may not be usable yet; it is taken away in the end."""
    command = bench.program.mount(bench.place)
    with bench.output.open("wb") as output:
        process = subprocess.Popen(
            command.arguments, env=bench.environment, cwd=bench.place.folder, stdout=output, stderr=output
        )
    server = Server(process)
    try:
        yield server
    finally:
        server.stop()
        _unmount(bench.place, process)


def wait_for(bench: Bench, server: Server, find: Callable[[], Path]) -> Path:
    """A path in the mount, as soon as it is there; `find` raises OSError before.

    Raises:
        StepFailed: it does not appear, or the mount has ended.
    """
    end = time.perf_counter() + _READY_TIMEOUT_S
    while time.perf_counter() < end and server.is_running:
        try:
            path = find()
            path.lstat()
        except OSError:
            time.sleep(_POLL_S)
        else:
            return path
    raise StepFailed(f"the mount does not show what it should\n{bench.said()}")


def _unmount(place: Place, process: subprocess.Popen[bytes]) -> None:
    subprocess.run(["fusermount3", "-u", "-q", str(place.mountpoint)], check=False)
    try:
        process.wait(_END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        subprocess.run(["fusermount3", "-u", "-z", "-q", str(place.mountpoint)], check=False)
        process.kill()
        process.wait()


def _processor_s(pid: int) -> float:
    """Processor time of a process so far, in seconds; proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
