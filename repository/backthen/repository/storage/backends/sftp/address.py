"""What `sftp://user@host:port/path` names. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote, unquote_to_bytes

from backthen.repository.errors import InvalidRequest

_FORM = "Write sftp://user@host/path, or sftp://user@host/~/path for a folder below the home folder."
_LOCATION = re.compile(
    r"sftp://(?:(?P<user>[^/@]*)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^/:@\[\]]+)(?::(?P<port>[0-9]{1,5}))?(?P<path>/.*)?",
    re.IGNORECASE | re.DOTALL,
)
_HOME = b"/~"
_PORT_MAX = 65535


class SftpAddress(NamedTuple):
    """A folder of a server.

    Attributes:
        user: None where the configuration or the name of the local user says it.
        host: a name, an address, or what the configuration calls a host.
        port: None where the configuration says it, or it is the usual one.
        path: where the folder is; one that is not absolute begins in the user's home folder.
    """

    user: str | None
    host: str
    port: int | None
    path: bytes


def parse_address(location: str) -> SftpAddress:
    """Take a location apart.

    Raises:
        InvalidRequest: it is not one, or holds a password; the message does not repeat it.
    """
    match = _LOCATION.fullmatch(location)
    if match is None:
        raise InvalidRequest("the location is not the address of a folder on an SSH server", hint=_FORM)
    user, port, path = match["user"], match["port"], unquote_to_bytes(match["path"] or "")
    if user is not None and ":" in user:
        raise InvalidRequest(
            "a location must not hold a password, since others can see it",
            hint="Log in with a key: install it with `ssh-copy-id`, and leave the password out of the location.",
        )
    if user == "" or b"\0" in path or (port is not None and not 0 < int(port) <= _PORT_MAX):
        raise InvalidRequest("the location is not the address of a folder on an SSH server", hint=_FORM)
    return SftpAddress(
        user=None if user is None else unquote(user),
        host=match["host"].strip("[]"),
        port=None if port is None else int(port),
        path=_folder(path),
    )


def _folder(path: bytes) -> bytes:
    if path == _HOME or path.startswith(_HOME + b"/"):
        return path[len(_HOME) :].strip(b"/") or b"."
    stripped = path.rstrip(b"/")
    if not stripped:
        raise InvalidRequest("the location names no folder on the server", hint=_FORM)
    return stripped
