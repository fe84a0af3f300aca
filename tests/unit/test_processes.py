"""Work that forked processes do, and what becomes of it when they fail, are killed, or are no longer wanted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backthen.repository.errors import ProcessLost, StorageError
from backthen.repository.processes import DESCRIPTORS_MAX, WORKERS, Processes


@pytest.fixture(autouse=True)
def no_children_left() -> Iterator[None]:
    before = _children()
    yield
    assert _children() <= before  # the servers of other tests are children, too


def _children() -> set[str]:
    tasks = Path(f"/proc/{os.getpid()}/task").iterdir()
    return {child for task in tasks for child in (task / "children").read_text().split()}


def _doubling() -> Callable[[int, list[int]], tuple[int, int]]:
    return lambda number, _: (2 * number, os.getpid())


def test_each_job_is_done_once_and_none_of_them_here() -> None:
    with Processes(_doubling) as processes:
        tasks = [processes.submit(number) for number in range(100)]
        results = [task.result() for task in tasks]
    assert [2 * number for number in range(100)] == [doubled for doubled, _ in results]
    pids = {pid for _, pid in results}
    assert (WORKERS, False) == (len(pids), os.getpid() in pids)


def test_long_jobs_and_long_results_arrive_whole() -> None:
    def prepare() -> Callable[[bytes, list[int]], bytes]:
        return lambda data, _: data[::-1]

    jobs = [os.urandom(3 << 20) for _ in range(6)]
    with Processes(prepare) as processes:
        tasks = [processes.submit(job) for job in jobs]
        assert [job[::-1] for job in jobs] == [task.result() for task in tasks]


def test_open_files_come_with_a_job_and_are_closed_after_it(tmp_path: Path) -> None:
    def prepare() -> Callable[[bytes, list[int]], int]:
        def write(data: bytes, descriptors: list[int]) -> int:
            for descriptor in descriptors:
                os.write(descriptor, data)
            return len(os.listdir("/proc/self/fd"))

        return write

    with Processes(prepare) as processes:
        descriptors = [os.open(tmp_path / str(number), os.O_CREAT | os.O_WRONLY) for number in range(DESCRIPTORS_MAX)]
        counts = {processes.submit(b"x", descriptors).result() for _ in range(20)}
        for descriptor in descriptors:
            os.close(descriptor)
    assert {b"x" * 20} == {path.read_bytes() for path in tmp_path.iterdir()}
    assert len(counts) <= WORKERS, "none was left open"


def test_what_a_job_raises_is_raised_where_its_result_is_asked_for() -> None:
    def prepare() -> Callable[[int, list[int]], int]:
        def fail_at_three(number: int, _: list[int]) -> int:
            if number == 3:
                raise StorageError("the disk is full", hint="Make room.", transient=True)
            return number

        return fail_at_three

    with Processes(prepare) as processes:
        tasks = [processes.submit(number) for number in range(6)]
        with pytest.raises(StorageError, match="the disk is full") as raised:
            tasks[3].result()
        assert ("Make room.", True) == (raised.value.hint, raised.value.transient)
        assert "fail_at_three" in "".join(raised.value.__notes__)
        assert [0, 1, 2, 4, 5] == [task.result() for task in tasks if task is not tasks[3]]


def test_what_preparing_raises_is_raised_likewise() -> None:
    def prepare() -> Callable[[int, list[int]], int]:
        raise StorageError("it is away")

    with Processes(prepare) as processes, pytest.raises(StorageError, match="it is away"):
        processes.submit(1).result()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_killed_is_missed(number: signal.Signals) -> None:
    def prepare() -> Callable[[signal.Signals, list[int]], None]:
        return lambda number, _: os.kill(os.getpid(), number)

    with Processes(prepare) as processes, pytest.raises(ProcessLost, match=f"was ended by {number.name}") as raised:
        processes.submit(number).result()
    assert raised.value.hint


def test_after_one_is_lost_the_others_are_given_no_more() -> None:
    def prepare() -> Callable[[int, list[int]], int]:
        def kill_unless_zero(number: int, _: list[int]) -> int:
            if number:
                os.kill(os.getpid(), number)
            return number

        return kill_unless_zero

    with Processes(prepare) as processes:
        lost = processes.submit(signal.SIGKILL)
        for _ in range(3):
            with pytest.raises(ProcessLost, match="SIGKILL"):
                lost.result()
            with pytest.raises(ProcessLost, match="SIGKILL"):
                processes.submit(0).result()


def test_a_process_that_was_killed_before_it_had_a_job_is_missed() -> None:
    with Processes(_doubling) as processes:
        pids = [worker.pid for worker in processes._workers]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(ProcessLost, match="was ended by SIGKILL"):
            processes.submit(1).result()


def test_ctrl_c_is_left_to_who_forked() -> None:
    with Processes(_doubling) as processes:
        for worker in processes._workers:
            os.kill(worker.pid, signal.SIGINT)
        assert (42, 44) == tuple(processes.submit(number).result()[0] for number in (21, 22))


def test_processes_end_with_the_one_that_forked_them() -> None:
    script = """
import os, signal
from backthen.repository.processes import Processes
processes = Processes(lambda: lambda job, _: job)
print(*(worker.pid for worker in processes._workers), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, timeout=60, check=False)
    assert -signal.SIGKILL == killed.returncode  # standard output was closed by all of them by then
    pids = [int(pid) for pid in killed.stdout.split()]
    assert WORKERS == len(pids)
    assert [] == [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()]


def test_who_has_other_threads_must_not_fork() -> None:
    script = """
import threading
from backthen.repository.processes import can_fork
before = can_fork()
end = threading.Event()
thread = threading.Thread(target=end.wait)
thread.start()
during = can_fork()
end.set()
thread.join()
print(before, during, can_fork())
"""
    answers = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, timeout=60, check=True).stdout
    several = len(os.sched_getaffinity(0)) > 1
    assert f"{several} False {several}\n".encode() == answers
