"""Work shared out among forked processes, where one interpreter is not enough for two cores.

A process that is forked has all that this one knows, keys among it, and nothing has to be handed over but the jobs.
Only a process with a single thread may fork: a lock that another thread holds would stay locked in the copy for ever.
Nothing about repositories may be in here.
"""

from __future__ import annotations

import array
import contextlib
import gc
import os
import pickle
import select
import signal
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NoReturn, TypeVar

from backthen.repository.errors import ProcessLost

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")

WORKERS = 2
"""Each takes memory, and one process does not think of work for many."""
DESCRIPTORS_MAX = 128
"""How many open files may go with one job; Linux takes 253."""
_JOBS_MAX = 2
"""Jobs that a process has at once: when it has told the result of one it need not wait for the next."""
_LENGTH_BYTES = 4
_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)
"""The end of the other side is an error of this call alone: libfuse takes it back that Python ignores SIGPIPE."""
_ENDING_MS_MAX = 20


def can_fork() -> bool:
    """Whether it is safe to fork now, and of use: on Linux, with several cores, and while no other thread runs.

    macOS has forks, but its libraries do not survive them; Windows has none.
    """
    if sys.platform != "linux" or len(os.sched_getaffinity(0)) == 1:
        return False
    for _ in range(_ENDING_MS_MAX):
        if _is_alone():
            return True
        time.sleep(0.001)  # a thread that was joined may not be quite gone; those of libraries may stay
    return _is_alone()


def _is_alone() -> bool:
    return len(os.listdir("/proc/self/task")) == 1


class Task(Generic[_Result]):
    """A job that a process was given."""

    __slots__ = ("_error", "_outcome", "_processes")

    def __init__(self, processes: Processes[Any, _Result]) -> None:
        self._processes = processes
        self._outcome: tuple[_Result] | None = None
        self._error: Exception | None = None

    def done(self) -> bool:
        """Whether there is a result, or an error."""
        if not self._is_told:
            self._processes.take(wait=False)
        return self._is_told

    def result(self) -> _Result:
        """Wait for the result, or raise what the job raised.

        Raises:
            ProcessLost: a process ended without having been asked to.
        """
        while not self._is_told:
            self._processes.take(wait=True)
        if self._error is not None:
            raise self._error
        assert self._outcome is not None
        return self._outcome[0]

    def tell(self, outcome: tuple[_Result] | Exception) -> None:
        """Take in what came of it."""
        if isinstance(outcome, Exception):
            self._error = outcome
        else:
            self._outcome = outcome

    @property
    def _is_told(self) -> bool:
        return self._outcome is not None or self._error is not None


class _Worker(Generic[_Result]):
    """A forked process, and the jobs it has, in the order in which it does them."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        self.connection = connection
        self.tasks: deque[Task[_Result]] = deque()


class Processes(Generic[_Job, _Result]):
    """Forked processes that do jobs; use in a `with`. To be used from one thread.

    Jobs and results are pickled, and a result must not wait for another job.
    """

    def __init__(self, prepare: Callable[[], Callable[[_Job, list[int]], _Result]]) -> None:
        """Fork; only where `can_fork` says so.

        Args:
            prepare: called in each process before its first job; what it returns does a job, and is given the open
                files that came with it, which are closed when it returns.

        Raises:
            OSError: there can be no more processes, or open files.
        """
        self._workers: list[_Worker[_Result]] = []
        self._poll = select.poll()
        self._lost: ProcessLost | None = None
        try:
            for _ in range(WORKERS):
                self._workers.append(self._fork(prepare))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Processes[_Job, _Result]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Have each process end after the job that it is at, and wait for that; may be called again."""
        for worker in self._workers:
            worker.connection.close()
        for worker in self._workers:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(worker.pid, 0)
        self._workers.clear()

    def submit(self, job: _Job, descriptors: Sequence[int] = ()) -> Task[_Result]:
        """Give a job to the process that has the fewest, once there is room; with it go copies of open files.

        Raises:
            ProcessLost: a process ended without having been asked to.
        """
        self._check_whole()
        while len((worker := min(self._workers, key=lambda worker: len(worker.tasks))).tasks) == _JOBS_MAX:
            self.take(wait=True)
        self._hand_over(worker, pickle.dumps(job, pickle.HIGHEST_PROTOCOL), descriptors)
        task = Task[_Result](self)
        worker.tasks.append(task)
        return task

    def take(self, *, wait: bool) -> None:
        """Take in results that came.

        Raises:
            ProcessLost: a process ended without having been asked to.
        """
        self._check_whole()
        events = dict(self._poll.poll(None if wait else 0))
        for worker in self._workers:
            if events.get(worker.connection.fileno(), 0) & ~select.POLLOUT:
                with self._missing(worker):
                    length = int.from_bytes(_receive_exactly(worker.connection, _LENGTH_BYTES), "big")
                    outcome = _receive_exactly(worker.connection, length)
                worker.tasks.popleft().tell(pickle.loads(outcome))

    def _check_whole(self) -> None:
        if self._lost is not None:
            raise self._lost

    def _hand_over(self, worker: _Worker[_Result], data: bytes, descriptors: Sequence[int]) -> None:
        """Send a job, and take in results meanwhile: two that only write to one another wait for ever."""
        rest = memoryview(len(data).to_bytes(_LENGTH_BYTES, "big") + data)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        self._poll.modify(worker.connection, select.POLLIN | select.POLLOUT)
        while rest:
            with self._missing(worker), contextlib.suppress(BlockingIOError):
                rest = rest[worker.connection.sendmsg([rest], rights, socket.MSG_DONTWAIT | _NO_SIGNAL) :]
                rights = []
            if rest:
                self.take(wait=True)
        self._poll.modify(worker.connection, select.POLLIN)

    @contextlib.contextmanager
    def _missing(self, worker: _Worker[_Result]) -> Iterator[None]:
        """Say how a process ended whose connection turns out to be broken; the others are of no use then, either."""
        try:
            yield
        except ConnectionError:
            _, status = os.waitpid(worker.pid, 0)
            code = os.waitstatus_to_exitcode(status)
            how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            self._lost = ProcessLost(f"a process that did part of the work was ended {how}", hint="Try again.")
            raise self._lost from None

    def _fork(self, prepare: Callable[[], Callable[[_Job, list[int]], _Result]]) -> _Worker[_Result]:
        here, there = socket.socketpair()
        with there, without_interrupts():
            try:
                pid = os.fork()
            except OSError:
                here.close()
                raise
            if pid == 0:
                _become_worker(there, [here, *(worker.connection for worker in self._workers)], prepare)
        self._poll.register(here, select.POLLIN)
        return _Worker(pid, here)


@contextlib.contextmanager
def without_interrupts() -> Iterator[None]:
    """Ctrl-C reaches every process of a terminal: a new one must not take it before it knows to leave it alone."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _become_worker(
    connection: socket.socket,
    others: Sequence[socket.socket],
    prepare: Callable[[], Callable[[_Job, list[int]], _Result]],
) -> NoReturn:
    """Do jobs until the other side is gone, and end this process without what it would do at its end."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for other in others:
            other.close()  # or nobody would notice the end of the process that has it
        gc.freeze()  # looking at what was there before would copy its memory
        with contextlib.suppress(ConnectionError):
            _serve(connection, prepare)
        code = 0
    finally:
        os._exit(code)


def _serve(connection: socket.socket, prepare: Callable[[], Callable[[_Job, list[int]], _Result]]) -> None:
    work: Callable[[_Job, list[int]], _Result] | None = None
    while (received := _receive(connection)) is not None:
        data, descriptors = received
        outcome: tuple[_Result] | Exception
        try:
            work = work or prepare()
            outcome = (work(pickle.loads(data), descriptors),)
        except Exception as error:  # noqa: BLE001  It is raised where the result is asked for.
            error.add_note("".join(traceback.format_exception(error)))  # pickling loses it
            outcome = error
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        data = pickle.dumps(outcome, pickle.HIGHEST_PROTOCOL)
        connection.sendall(len(data).to_bytes(_LENGTH_BYTES, "big") + data, _NO_SIGNAL)


def _receive(connection: socket.socket) -> tuple[bytes, list[int]] | None:
    """The next job and its open files; None when the other side is gone, whatever it may have sent before."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    if any(event & select.POLLHUP for _, event in poll.poll()):
        return None
    flags = socket.MSG_CMSG_CLOEXEC | socket.MSG_WAITALL
    header, descriptors, _, _ = socket.recv_fds(connection, _LENGTH_BYTES, DESCRIPTORS_MAX, flags)
    if not header:
        return None
    return _receive_exactly(connection, int.from_bytes(header, "big")), descriptors


def _receive_exactly(connection: socket.socket, length: int) -> bytes:
    """So many bytes.

    Raises:
        ConnectionError: the other side is gone.
    """
    data = bytearray()
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            raise ConnectionResetError
        data += part
    return bytes(data)
