"""Errors of the command line itself: what was asked for, passwords, configuration.

Each has a `hint`, one sentence on what the user can do, and an exit code. Errors of the repository and of mounts have
theirs in `exits`.
"""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """How the program ends; the numbers are a contract (docs/cli.md)."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    INCOMPLETE = 3
    NO_REPOSITORY = 10
    WRONG_PASSWORD = 12
    DAMAGED = 13
    STORAGE = 14
    MOUNT = 15
    INTERRUPTED = 130


class CommandError(Exception):
    """Base of the command line's own errors.

    Attributes:
        hint: what the user can do about it, one sentence, or empty.
    """

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class RequestError(CommandError):
    """What was asked for makes no sense or is not there."""


class UsageFailure(CommandError):
    """The command was called in a way that cannot work, whatever the repository holds."""

    exit_code = ExitCode.USAGE


class NoPassword(UsageFailure):
    """No password was given and there is nobody to ask."""


class PasswordSourceError(CommandError):
    """The place that a password should come from did not give one."""


class ConfigurationError(UsageFailure):
    """The configuration file cannot be read or understood."""


class MountFailed(CommandError):
    """The background process of a mount ended before the mount was usable."""

    exit_code = ExitCode.MOUNT


class OutputClosed(Exception):
    """Whoever read our output went away (`backthen ls … | head`): end without a word."""
