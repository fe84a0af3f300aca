"""The background process: how its start is told, and what it lets go of."""

from __future__ import annotations

import logging
import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backthen.cli.daemon import Started, start_in_background
from backthen.cli.failures import MountFailed
from backthen.cli.reporting import Failure
from backthen.repository import WrongPassword


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def serve_for_ever(ready: Callable[[], None]) -> None:
    ready()
    while True:
        time.sleep(60)


def test_the_parent_goes_on_once_the_process_is_ready(tmp_path: Path) -> None:
    started = start_in_background(serve_for_ever, tmp_path / "logs" / "x.log")
    assert isinstance(started, Started)
    end(started.pid)
    assert stat.S_IMODE((tmp_path / "logs" / "x.log").stat().st_mode) == 0o600


def test_the_process_keeps_nothing_of_the_caller(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    started = start_in_background(serve_for_ever, tmp_path / "x.log")
    assert isinstance(started, Started)
    os.close(writing)
    try:
        assert os.read(reading, 1) == b"", "the caller's pipe has reached its end"
        assert os.readlink(f"/proc/{started.pid}/cwd") == "/"
        assert os.readlink(f"/proc/{started.pid}/fd/0") == "/dev/null"
        assert started.pid == os.getsid(started.pid)
    finally:
        os.close(reading)
        end(started.pid)


def test_an_error_before_it_is_ready_is_told_with_its_code(tmp_path: Path) -> None:
    def fail(_ready: Callable[[], None]) -> None:
        raise WrongPassword("the password is wrong", hint="Try again.")

    result = start_in_background(fail, tmp_path / "x.log")
    assert isinstance(result, Failure)
    assert (
        result.kind,
        result.message,
        result.hint,
        result.code,
    ) == ("WrongPassword", "the password is wrong", "Try again.", 12)
    assert "the password is wrong" in (tmp_path / "x.log").read_text()


def test_a_process_that_ends_without_a_word_is_an_error(tmp_path: Path) -> None:
    def vanish(_ready: Callable[[], None]) -> None:
        os._exit(7)

    with pytest.raises(MountFailed, match="ended before") as caught:
        start_in_background(vanish, tmp_path / "x.log")
    assert str(tmp_path / "x.log") in caught.value.hint


def test_a_log_that_cannot_be_written_is_done_without_and_said(tmp_path: Path) -> None:
    (tmp_path / "x.log").mkdir()
    started = start_in_background(serve_for_ever, tmp_path / "x.log")
    assert isinstance(started, Started)
    end(started.pid)
    assert started.log is None
    (warning,) = started.warnings
    assert f"the log {tmp_path}/x.log cannot be written: Is a directory" == warning


def test_warnings_before_it_is_ready_are_told_and_logged(tmp_path: Path) -> None:
    def work(ready: Callable[[], None]) -> None:
        log = logging.getLogger("backthen.test")
        log.info("all is well")
        log.warning("%d things are odd", 2)
        serve_for_ever(ready)

    started = start_in_background(work, tmp_path / "x.log")
    assert isinstance(started, Started)
    end(started.pid)
    assert ("2 things are odd",) == started.warnings
    assert tmp_path / "x.log" == started.log


def test_a_long_log_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_bytes(bytes(2 << 20))
    started = start_in_background(serve_for_ever, tmp_path / "x.log")
    assert isinstance(started, Started)
    end(started.pid)
    assert ((tmp_path / "x.log").stat().st_size, (tmp_path / "x.log.1").stat().st_size) == (0, 2 << 20)
