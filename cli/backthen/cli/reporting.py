"""How an error is told: one sentence and a hint on standard error, or one JSON document; never a traceback unasked."""

from __future__ import annotations

import json
import os
import sys
import traceback
from dataclasses import dataclass

from backthen.cli.failures import CommandError, ExitCode
from backthen.cli.names import shown_lines
from backthen.cli.notices import warn

_UNEXPECTED_CHARACTERS_MAX = 300


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as it is told.

    Attributes:
        kind: the name of the error's class, for programs.
    """

    kind: str
    message: str
    hint: str
    code: ExitCode

    @property
    def document(self) -> dict[str, object]:
        """The value of `error` in JSON."""
        return {"code": int(self.code), "kind": self.kind, "message": self.message, "hint": self.hint}


def describe(error: Exception) -> Failure:
    """What to tell about an error, and the exit code."""
    kind = type(error).__name__
    if isinstance(error, CommandError):
        return Failure(kind, str(error), error.hint, error.exit_code)
    code = _foreseen_code(error)
    if code is not None:
        return Failure(kind, str(error), str(getattr(error, "hint", "")), code)
    if isinstance(error, OSError) and error.strerror:
        place = "" if error.filename is None else f": {os.fsdecode(error.filename)}"
        return Failure(kind, f"the system refused: {error.strerror}{place}", "", ExitCode.FAILED)
    text = f"unexpected error: {kind}: {error}"[:_UNEXPECTED_CHARACTERS_MAX].rstrip(": ")
    return Failure(kind, text, "Run it again with --debug to see where it happened, and report it.", ExitCode.FAILED)


def is_unexpected(error: Exception) -> bool:
    """Whether nobody foresaw an error, so that where it happened is worth keeping in a log."""
    return not isinstance(error, CommandError) and _foreseen_code(error) is None


def tell(failure: Failure, *, as_json: bool) -> None:
    """Print a failure on standard error."""
    if as_json:
        print(json.dumps({"error": failure.document}), file=sys.stderr, flush=True)
        return
    warn(shown_lines(failure.message))
    if failure.hint:
        print(f"  {shown_lines(failure.hint)}", file=sys.stderr, flush=True)


def print_traceback(error: BaseException) -> None:
    """Show where an error came from. Tracebacks hold source lines and messages, and no values of variables."""
    traceback.print_exception(error, file=sys.stderr)


def _foreseen_code(error: Exception) -> ExitCode | None:
    try:
        from backthen.cli.exits import exit_code_of
    except ImportError:  # The installation is broken, so no error of the engine can have been raised.
        return None
    return exit_code_of(error)
