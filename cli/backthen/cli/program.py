"""The tree of commands, each imported when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

import click

from backthen.cli.failures import OutputClosed
from backthen.cli.options import global_options

_COMMANDS: Mapping[str, str] = {
    "init": "init:init",
    "snapshot": "snapshot:snapshot",
    "ls": "browse:ls",
    "cat": "browse:cat",
    "versions": "versions:versions",
    "mount": "mount:mount",
    "umount": "umount:umount",
    "restore": "restore:restore",
    "check": "check:check",
    "prune": "prune:prune",
    "key": "key:key",
    "stats": "stats:stats",
    "cache": "cache:cache",
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
