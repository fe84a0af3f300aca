"""A background process that serves on after the command has ended, and tells its parent how its start went.

The fork comes before any thread is started and any database is opened, because neither survives it.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from backthen.cli.failures import ExitCode, MountFailed
from backthen.cli.names import shown_lines
from backthen.cli.notices import warn
from backthen.cli.reporting import Failure, describe, is_unexpected, print_traceback

LOG_BYTES_MAX = 1 << 20
WARNINGS_MAX = 10
WARNING_CHARACTERS_MAX = 1000
_MESSAGE_BYTES_MAX = 1 << 20

Ready = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Started:
    """The background process is ready.

    Attributes:
        pid: its id.
        log: where it logs, or None where no log can be written.
        warnings: what it had to warn about so far; this is in its log too.
    """

    pid: int
    log: Path | None
    warnings: tuple[str, ...]


class _Warnings(logging.Handler):
    """Keeps the first warnings, for whoever waits at the terminal."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.messages) < WARNINGS_MAX:
            self.messages.append(record.getMessage()[:WARNING_CHARACTERS_MAX])


def start_in_background(work: Callable[[Ready], None], log: Path) -> Started | Failure:
    """Run `work` in a process of its own and wait until it calls `ready` or fails.

    The process has no terminal, keeps none of the caller's files open, works in `/`, and logs to `log`. Where that
    cannot be written it keeps no log, and a warning says so.

    Raises:
        MountFailed: the process ended without a word.
    """
    log_file, refusal = _open_log(log)
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _run_child(work, log_file, writing)
    os.close(writing)
    os.close(log_file)
    with open(reading, "rb") as pipe:
        answer = _wait_for_answer(pid, pipe.read)
    if not answer:
        hint = f"It had no log: {refusal}." if refusal else f"Its log is {log}."
        raise MountFailed("the background process ended before the mount was usable", hint=hint)
    told: Mapping[str, object] = json.loads(answer)
    if "warnings" in told:
        warnings = told["warnings"]
        assert isinstance(warnings, list)
        return Started(pid, None if refusal else log, (*([refusal] if refusal else []), *warnings))
    os.waitpid(pid, 0)
    return _told_failure(told)


def run_apart(work: Callable[[], None]) -> Failure | None:
    """Run `work` in a process of its own, of which nothing stays in this one; how it failed, None where it did not.

    Raises:
        MountFailed: the process ended without a word.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _be_apart(work, writing)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = _wait_for_answer(pid, pipe.read)
    os.waitpid(pid, 0)
    if not answer:
        raise MountFailed("the process that looks for the repository ended without a word")
    told = json.loads(answer)
    return _told_failure(told) if told else None


def _be_apart(work: Callable[[], None], answer: int) -> NoReturn:
    """Be a process that runs `work` and tells how that went. Never returns into the caller's code."""
    try:
        document: Mapping[str, object] = {}
        try:
            work()
        except Exception as error:  # noqa: BLE001  It becomes a message, here as in `main`.
            if is_unexpected(error):
                print_traceback(error)
            document = describe(error).document
        os.write(answer, json.dumps(document).encode())
    finally:
        os._exit(ExitCode.DONE)


def _told_failure(told: Mapping[str, object]) -> Failure:
    code = told["code"]
    assert isinstance(code, int)
    return Failure(str(told["kind"]), str(told["message"]), str(told["hint"]), ExitCode(code))


def _wait_for_answer(pid: int, read: Callable[[int], bytes]) -> bytes:
    try:
        return read(_MESSAGE_BYTES_MAX)
    except KeyboardInterrupt:
        import signal

        os.kill(pid, signal.SIGTERM)
        raise


def _open_log(log: Path) -> tuple[int, str]:
    """The log, or nothing in its place and the reason for it."""
    from backthen.repository import make_private_folder

    try:
        make_private_folder(log.parent)
        if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
            log.replace(log.with_suffix(".log.1"))
        return os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), ""
    except OSError as error:
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        return null, f"the log {log} cannot be written: {error.strerror}"


def _run_child(work: Callable[[Ready], None], log_file: int, answer: int) -> NoReturn:
    """Be the background process. Never returns into the caller's code, whatever happens."""
    code = int(ExitCode.FAILED)
    try:
        _detach(log_file, answer)
        code = _work(work, answer)
    except BaseException:  # noqa: BLE001  A process that must not return has nobody else to tell.
        traceback.print_exc()
    finally:
        os._exit(code)


def _detach(log_file: int, answer: int) -> None:
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log_file, 1)
    os.dup2(log_file, 2)
    os.closerange(3, answer)
    os.closerange(answer + 1, os.sysconf("SC_OPEN_MAX"))
    sys.stdout = sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115  Kept.
    faulthandler.enable(2)


def _work(work: Callable[[Ready], None], answer: int) -> int:
    is_ready = False
    # Stays beside whatever handlers the work sets up.
    kept = _Warnings()
    logging.getLogger("backthen").addHandler(kept)

    def tell(document: Mapping[str, object]) -> None:
        nonlocal is_ready
        if not is_ready:
            is_ready = True
            os.write(answer, json.dumps(document).encode())
            os.close(answer)

    def tell_ready() -> None:
        tell({"warnings": kept.messages})
        logging.getLogger("backthen").removeHandler(kept)

    try:
        work(tell_ready)
    except Exception as error:  # noqa: BLE001  It becomes a message, here as in `main`.
        failure = describe(error)
        tell(failure.document)
        if is_unexpected(error):
            print_traceback(error)
        warn(shown_lines(failure.message))
        return failure.code
    return ExitCode.DONE
