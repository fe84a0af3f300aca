"""The entry point, and the one place where errors become exit codes.

Nothing heavy is imported before `run` has begun: from there on Ctrl-C ends in one sentence.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from backthen.cli.failures import ExitCode, OutputClosed

if TYPE_CHECKING:
    import click


def main() -> None:
    """Run the command of this process's arguments and leave with its exit code."""
    try:
        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # Once more, while the first was told.
        code = int(ExitCode.INTERRUPTED)
    if code == ExitCode.INTERRUPTED:
        import signal

        signal.signal(signal.SIGINT, signal.SIG_IGN)  # The process ends now anyhow, and with this code.
    _leave(code)


def _leave(code: int) -> NoReturn:
    """End the process, but do not take the interpreter apart.

    Libraries have threads of their own that come back into it for a moment (obstore's do): where it is gone they abort
    the process, and a run that went well would seem to have failed.
    """
    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command; the exit code. Whatever fails is told on standard error."""
    try:
        _open_closed_streams()
        _prepare_streams()
        return _run(arguments)
    except KeyboardInterrupt:
        return _tell_interrupted()


def _run(arguments: Sequence[str]) -> int:
    import click

    from backthen.cli.program import program

    try:
        result = program.main(list(arguments), prog_name="backthen", standalone_mode=False)
        sys.stdout.flush()
    except (OutputClosed, BrokenPipeError):
        _drop_output()
        return ExitCode.FAILED
    except click.Abort:
        return _tell_interrupted()
    except click.ClickException as error:
        return _tell_usage(error, as_json="--json" in arguments)
    except Exception as error:  # noqa: BLE001  Nothing may leave as a traceback.
        return _tell_error(error, as_json="--json" in arguments, debug="--debug" in arguments)
    return result if isinstance(result, int) else ExitCode.DONE


def _open_closed_streams() -> None:
    """Put nothing where a standard stream was closed (`>&-`): no file may get its number and be printed into."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # The lowest free number: this one.
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, "w", closefd=False))  # noqa: SIM115  Kept.


def _prepare_streams() -> None:
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Whoever read standard output is gone: what is still buffered must not fail again when the process ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tell_interrupted() -> int:
    from backthen.cli.notices import warn

    with contextlib.suppress(OSError):
        if sys.stderr.isatty():  # The terminal has just shown `^C`.
            print(file=sys.stderr)
        warn("interrupted")
    return ExitCode.INTERRUPTED


def _tell_usage(error: click.ClickException, *, as_json: bool) -> int:
    import click

    from backthen.cli.reporting import Failure, tell

    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f"See `{context.command_path if context else 'backthen'} --help`."
    message = error.format_message().rstrip(".")
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        if not as_json:
            print(message, file=sys.stderr)
            return ExitCode.USAGE
        message = "missing command"
    tell(Failure("UsageError", message[:1].lower() + message[1:], hint, ExitCode.USAGE), as_json=as_json)
    return ExitCode.USAGE


def _tell_error(error: Exception, *, as_json: bool, debug: bool) -> int:
    from dataclasses import replace

    from backthen.cli.reporting import describe, print_traceback, tell

    if debug:
        print_traceback(error)
    failure = describe(error)
    if isinstance(error, OSError) and _is_output_broken(error):
        failure = replace(failure, message=f"standard output cannot be written: {error.strerror}")
    tell(failure, as_json=as_json)
    if isinstance(error, OSError):
        _drop_output()
    return failure.code


def _is_output_broken(error: OSError) -> bool:
    """Whether it was our own printing that failed: the engine's errors come from deeper, and are translated there."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__"))
    return error.filename is None and module.startswith(("backthen.cli.", "click."))
