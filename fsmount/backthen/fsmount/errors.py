"""What can go wrong with a mount as a whole: all that leaves `backthen.fsmount`.

What can go wrong with one request inside a mount is in `view/errors.py` and never gets here.
Nothing may be in here but exception classes.
"""

from __future__ import annotations

from backthen.fsmount.holders import Holder


class MountError(Exception):
    """Base of all errors of `backthen.fsmount`.

    Attributes:
        hint: what the user can do about it, one sentence, or empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UnusableMountpoint(MountError):
    """The mountpoint is missing, not an empty folder, in use, or at a place where it would do harm."""


class MountRefused(MountError):
    """The operating system did not make the mount, or made another one than was asked for."""


class NotMounted(MountError):
    """There is no mount of Backthen at the path."""


class MountBusy(MountError):
    """The mount is in use and cannot be taken away.

    Attributes:
        holders: the processes that use it, as far as they can be seen.
    """

    def __init__(self, message: str, *, hint: str = "", holders: tuple[Holder, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.holders = holders
