"""The entry point: the tree of commands, and the one place where errors become exit codes."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module

import click

from backthen.cli.failures import ExitCode, OutputClosed
from backthen.cli.options import global_options

_COMMANDS: Mapping[str, str] = {
    "init": "init:init",
    "snapshot": "snapshot:snapshot",
    "ls": "browse:ls",
    "cat": "browse:cat",
    "mount": "mount:mount",
    "umount": "mount:umount",
    "restore": "restore:restore",
    "check": "check:check",
    "key": "key:key",
    "stats": "stats:stats",
}


class _Commands(click.Group):
    """Commands that are imported when they are called, and listed in the order in which they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[cmd_name].split(":")
        command = getattr(import_module(f"backthen.cli.commands.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:  # Before click sees it: it would end the program in its own way.
            raise OutputClosed from error
        except KeyboardInterrupt as error:
            raise click.Abort from error


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Global options may stand before or after the command. Exit codes: 0 done, 1 failed, 2 usage, "
    "3 done but some files could not be read, 10 no repository, 12 wrong password, 13 damaged, 14 storage, "
    "15 mount, 130 interrupted.",
)
@global_options(hidden=False)
def program() -> None:
    """Keep the past of your folders: encrypted snapshots that come back as an ordinary folder."""


def main() -> None:
    """Run the command of this process's arguments and leave with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command; the exit code. Whatever fails is told on standard error."""
    _prepare_streams()
    try:
        result = program.main(list(arguments), prog_name="backthen", standalone_mode=False)
        sys.stdout.flush()
    except (OutputClosed, BrokenPipeError):
        _drop_output()
        return ExitCode.FAILED
    except (KeyboardInterrupt, click.Abort):
        return _tell_interrupted()
    except click.ClickException as error:
        return _tell_usage(error, as_json="--json" in arguments)
    except Exception as error:  # noqa: BLE001  Nothing may leave as a traceback.
        return _tell_error(error, as_json="--json" in arguments, debug="--debug" in arguments)
    return result if isinstance(result, int) else ExitCode.DONE


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
    from backthen.cli.reporting import Failure, tell

    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        print(error.format_message(), file=sys.stderr)
        return ExitCode.USAGE
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f"See `{context.command_path} --help`." if context else ""
    message = error.format_message().rstrip(".")
    tell(Failure("UsageError", message[:1].lower() + message[1:], hint, ExitCode.USAGE), as_json=as_json)
    return ExitCode.USAGE


def _tell_error(error: Exception, *, as_json: bool, debug: bool) -> int:
    from backthen.cli.reporting import describe, print_traceback, tell

    if debug:
        print_traceback(error)
    failure = describe(error)
    tell(failure, as_json=as_json)
    if isinstance(error, OSError):
        _drop_output()  # It may have been standard output that could not be written, a full disk for example.
    return failure.code
