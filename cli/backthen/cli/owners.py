"""Who is meant by OWNER, as `chown` understands it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from backthen.cli.failures import UsageFailure
from backthen.cli.names import shown_text

if TYPE_CHECKING:
    from backthen.fsmount import Owner

_ID_MAX = 2**32 - 2  # One more means "nobody's" to chown(2).


def parse_owner(text: str) -> Owner:
    """`me`, USER, or USER:GROUP, each of them a name or a number; without GROUP it is the user's own.

    Raises:
        UsageFailure: there is no such user or group.
    """
    from backthen.fsmount import Owner

    if text == "me":
        return Owner(os.getuid(), os.getgid())
    user, separator, group = text.partition(":")
    uid = _user_id(user)
    return Owner(uid, _group_id(group) if separator else _group_of(uid))


def _user_id(text: str) -> int:
    import pwd

    number = _number(text)
    if number is not None:
        return number
    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise UsageFailure(
            f"there is no user '{shown_text(text)}'", hint="Give `me`, a user, or UID:GID to --owner."
        ) from None


def _group_id(text: str) -> int:
    import grp

    number = _number(text)
    if number is not None:
        return number
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise UsageFailure(
            f"there is no group '{shown_text(text)}'", hint="Give `me`, a user, or UID:GID to --owner."
        ) from None


def _group_of(uid: int) -> int:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        raise UsageFailure(
            f"there is no user {uid} on this machine, so its group is not known", hint=f"Say it: --owner {uid}:GID."
        ) from None


def _number(text: str) -> int | None:
    number = int(text) if text.isascii() and text.isdigit() else None
    return None if number is None or number > _ID_MAX else number
