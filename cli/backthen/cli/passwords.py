"""Where passwords come from: a file, a command, the environment, the terminal.

Invariant: a password is never in an argument, a message, a log or a traceback, and no child process inherits it.
"""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path

from backthen.cli.failures import CommandError, NoPassword, PasswordSourceError, UsageFailure
from backthen.cli.names import shown_text
from backthen.cli.notices import warn

PASSWORD_BYTES_MAX = 64 * 1024
TRIES_MAX = 3
_READ_BY_OTHERS = stat.S_IRGRP | stat.S_IROTH


@dataclass(frozen=True, slots=True)
class PasswordFile:
    """The first and only content of a file."""

    path: Path


@dataclass(frozen=True, slots=True)
class PasswordCommand:
    """What a command prints; it is run without a shell."""

    command: str


@dataclass(frozen=True, slots=True)
class GivenPassword:
    """The value of BACKTHEN_PASSWORD."""

    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Terminal:
    """Somebody at a terminal has to be asked."""


PasswordSource = PasswordFile | PasswordCommand | GivenPassword | Terminal


def choose_source(file: str | None, command: str | None, value: str | None = None) -> PasswordSource | None:
    """The source that one level of settings (options, environment, configuration file) names, or None.

    Raises:
        UsageFailure: it names a file and a command.
    """
    if file and command:
        raise UsageFailure("a password file and a password command are both given", hint="Give one of them.")
    if file:
        return PasswordFile(Path(file).expanduser())
    if command:
        return PasswordCommand(command)
    return GivenPassword(os.fsencode(value)) if value else None


def read_password(source: PasswordSource, prompt: str) -> bytes:
    """The password that opens a repository.

    Raises:
        NoPassword: somebody would have to be asked, and there is no terminal.
        PasswordSourceError: the file or the command gave no password.
    """
    if isinstance(source, Terminal):
        return _ask(prompt)
    return _read_source(source)


def read_new_password(source: PasswordSource, purpose: str) -> bytes:
    """A password that is set now; on a terminal it is asked for twice.

    Raises:
        NoPassword: somebody would have to be asked, and there is no terminal.
        PasswordSourceError: the file or the command gave no password, or an empty one.
        CommandError: the two that were typed differ, or are empty.
    """
    if not isinstance(source, Terminal):
        password = _read_source(source)
        if not password:
            raise PasswordSourceError("the new password is empty", hint="An empty password protects nothing.")
        return password
    if not has_terminal():
        raise NoPassword(
            "no new password was given, and there is no terminal to ask for it",
            hint="Give it by --new-password-file or --new-password-command.",
        )
    for _ in range(TRIES_MAX):
        password = _ask(f"{purpose}: ")
        if not password:
            warn("an empty password protects nothing")
        elif _ask("The same again: ") == password:
            return password
        else:
            warn("the two are not the same")
    raise CommandError("no password was set")


def has_terminal() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin is not None and sys.stdin.isatty()


def normalize(password: bytes) -> bytes:
    """The form that keys are derived from: Unicode NFC where the bytes are UTF-8, else the bytes as they are."""
    import unicodedata

    try:
        return unicodedata.normalize("NFC", password.decode()).encode()
    except UnicodeDecodeError:
        return password


def without_newline(data: bytes) -> bytes:
    """The data without the one newline that editors and `echo` add."""
    return data.removesuffix(b"\n").removesuffix(b"\r") if data.endswith(b"\n") else data


def _read_source(source: PasswordFile | PasswordCommand | GivenPassword) -> bytes:
    if isinstance(source, GivenPassword):
        return normalize(source.value)
    data = _read_file(source.path) if isinstance(source, PasswordFile) else _run(source.command)
    if len(data) > PASSWORD_BYTES_MAX:
        raise PasswordSourceError(
            f"the password is longer than {PASSWORD_BYTES_MAX} bytes", hint="Is it the right file?"
        )
    return normalize(without_newline(data))


def _read_file(path: Path) -> bytes:
    shown = shown_text(str(path))
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(PASSWORD_BYTES_MAX + 3)
    except OSError as error:
        raise PasswordSourceError(f"the password file {shown} cannot be read: {error.strerror}") from error
    if stat.S_ISREG(status.st_mode) and status.st_mode & _READ_BY_OTHERS:
        warn(f"the password file {shown} can be read by others (chmod 600 makes it yours alone)")
    return data


def _run(command: str) -> bytes:
    import shlex
    import subprocess

    try:
        words = shlex.split(command)
    except ValueError as error:
        raise PasswordSourceError(f"the password command cannot be understood: {error}") from error
    if not words:
        raise PasswordSourceError("the password command is empty")
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, check=False)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise PasswordSourceError(f"the password command cannot be run: {shown_text(words[0])}: {reason}") from error
    if done.returncode:
        raise PasswordSourceError(f"the password command failed with exit code {done.returncode}")
    return done.stdout


def _ask(prompt: str) -> bytes:
    if not has_terminal():
        raise NoPassword(
            "no password was given, and there is no terminal to ask for it",
            hint="Give it by --password-file, --password-command or BACKTHEN_PASSWORD.",
        )
    import getpass

    try:
        return normalize(os.fsencode(getpass.getpass(prompt)))
    except UnicodeDecodeError:
        print(file=sys.stderr)  # The line of the prompt was not ended.
        raise PasswordSourceError("what was typed is not text in the encoding of this terminal") from None
    except EOFError:
        raise KeyboardInterrupt from None
