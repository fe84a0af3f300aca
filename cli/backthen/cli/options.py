"""Options that several commands share: the global ones, and those that narrow down which snapshots are meant."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields
from functools import partial, wraps
from typing import TypeVar

import click

from backthen.cli.failures import UsageFailure
from backthen.cli.passwords import choose_source
from backthen.cli.settings import Options, Settings, resolve_settings

_META = "backthen.cli.options"
_Command = TypeVar("_Command", bound=Callable[..., object])
_Result = TypeVar("_Result")


def global_options(*, hidden: bool = True) -> Callable[[_Command], _Command]:
    """Options that may stand before or after the command; of one that is given twice the later holds.

    They are shown in the help of the whole program alone.
    """

    def decorate(function: _Command) -> _Command:
        for option in reversed(_global_options(hidden)):
            function = option(function)
        return function

    return decorate


def new_password_options(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """Give a command `--new-password-file` and `--new-password-command`, and the function `new_password`."""

    @click.option("--new-password-file", "new_file", metavar="FILE", help="Read the new password from FILE.")
    @click.option("--new-password-command", "new_command", metavar="COMMAND", help="Take it from what COMMAND prints.")
    @wraps(function)
    def decorated(*args: object, new_file: str | None, new_command: str | None, **kwargs: object) -> _Result:
        for name, value in (("--new-password-file", new_file), ("--new-password-command", new_command)):
            if value is not None:
                check_not_empty(name, value)
        return function(*args, new_password=choose_source(new_file, new_command), **kwargs)

    return decorated


def check_not_empty(name: str, value: str) -> None:
    """Refuse the empty text that an unset variable of a script becomes: it must not mean a default.

    Raises:
        UsageFailure: it is empty.
    """
    if not value:
        raise UsageFailure(f"{name} is empty", hint="Give it a value, or leave it out.")


def current_settings() -> Settings:
    """The settings of the command that runs.

    Raises:
        ConfigurationError: the configuration file cannot be used.
        UsageFailure: a password file and a password command are both given.
    """
    return resolve_settings(current_options(), os.environ)


def current_options() -> Options:
    """The global options as they were given so far."""
    meta = click.get_current_context().meta
    given = meta.get(_META, {})
    return Options(**{field.name: given[field.name] for field in fields(Options) if field.name in given})


def program_version() -> str:
    """The version of the installed program."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("backthen")
    except PackageNotFoundError:  # Run from the sources, as the tests of this package can be.
        return "0"


def _remember(context: click.Context, parameter: click.Parameter, value: object) -> None:
    source = context.get_parameter_source(parameter.name or "")
    if source is not click.core.ParameterSource.COMMANDLINE:
        return
    if isinstance(value, str):
        check_not_empty(parameter.opts[-1], value)
    given: dict[str, object] = context.meta.setdefault(_META, {})
    if isinstance(value, int) and not isinstance(value, bool):
        before = given.get(parameter.name or "", 0)
        value += before if isinstance(before, int) else 0
    given[parameter.name or ""] = value


def _print_version(context: click.Context, _parameter: click.Parameter, value: object) -> None:
    if value:
        click.echo(f"backthen {program_version()}")
        context.exit()


def _global_options(hidden: bool) -> tuple[Callable[[_Command], _Command], ...]:
    option = partial(click.option, expose_value=False, hidden=hidden)
    kept = partial(option, callback=_remember)
    return (
        kept("-r", "--repository", metavar="LOCATION", help="Where the repository is. [BACKTHEN_REPOSITORY]"),
        kept("--password-file", metavar="FILE", help="Read the password from FILE. [BACKTHEN_PASSWORD_FILE]"),
        kept(
            "--password-command",
            metavar="COMMAND",
            help="Take what COMMAND prints as the password. [BACKTHEN_PASSWORD_COMMAND]",
        ),
        kept("--cache-dir", metavar="DIR", help="Keep the cache in DIR. [BACKTHEN_CACHE_DIR]"),
        kept(
            "--cache-limit",
            metavar="SIZE",
            help="Keep so much of what was fetched from a repository elsewhere: `1G`. [BACKTHEN_CACHE_LIMIT]",
        ),
        kept(
            "--upload-limit",
            metavar="SIZE",
            help="Send so much a second to a repository elsewhere at most: `2M`. [BACKTHEN_UPLOAD_LIMIT]",
        ),
        kept(
            "--download-limit",
            metavar="SIZE",
            help="Fetch so much a second from a repository elsewhere at most. [BACKTHEN_DOWNLOAD_LIMIT]",
        ),
        kept("--json", is_flag=True, help="Print JSON, for programs."),
        kept("-q", "--quiet", is_flag=True, help="Print nothing but errors and what was asked for."),
        kept("-v", "--verbose", count=True, help="Log what is done; twice: name each file."),
        kept("--debug", is_flag=True, help="Log everything, and show the traceback of an error."),
        option("--version", is_flag=True, is_eager=True, callback=_print_version, help="Print the version."),
    )
