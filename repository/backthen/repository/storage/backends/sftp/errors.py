"""Where what asyncssh raises becomes an error of the storage, which says whether trying again may help."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager

import asyncssh

from backthen.repository.errors import ObjectExists, StorageError

STRANGER_HINT = "Something else than Backthen has put it there."
_LOST = (
    asyncssh.SFTPConnectionLost,
    asyncssh.SFTPNoConnection,
    asyncssh.SFTPBadMessage,
    asyncssh.DisconnectError,
    ConnectionError,
    EOFError,
)


class ServerSilent(Exception):
    """The server said nothing for as long as it may."""


class StorageClosed(Exception):
    """The storage was closed by another thread."""


class NameTaken(Exception):
    """There is an object of that name, durably."""


class Unusable(Exception):
    """What is on the server cannot be used, for a reason that is said.

    Attributes:
        hint: what the user can do about it.
    """

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.hint = hint


@contextmanager
def plain_errors(place: str) -> Iterator[None]:
    """Translate what is raised inside.

    Args:
        place: what the message is about.

    Raises:
        ObjectExists: for `NameTaken`.
        StorageError: for what cannot be used, and all that asyncssh and the network raise.
    """
    try:
        yield
    except NameTaken as error:
        raise ObjectExists(f"{place} exists already") from error
    except Unusable as error:
        raise StorageError(f"{place}: {error}", hint=error.hint) from error
    except asyncssh.SFTPNoSuchFile as error:
        raise StorageError(f"{place}: the folder is not there", hint="Is its disk mounted on the server?") from error
    except asyncssh.SFTPPermissionDenied as error:
        raise StorageError(
            f"{place}: the server denies permission", hint="Check who owns it there, and who may write."
        ) from error
    except ConnectionRefusedError as error:
        raise StorageError(
            f"{place}: nobody takes connections at that port", hint="Is the SSH server running there?", transient=True
        ) from error
    except _LOST as error:
        raise StorageError(
            f"{place}: the connection was lost{_reason(error)}", hint="Is the network up?", transient=True
        ) from error
    except asyncssh.SFTPFailure as error:
        raise StorageError(
            f"{place}: the server failed, and does not say why{_reason(error)}",
            hint="Look whether its disk is full, damaged or read-only.",
        ) from error
    except asyncssh.Error as error:
        raise StorageError(f"{place}: the server refused{_reason(error)}") from error
    except (CancelledError, StorageClosed) as error:
        raise StorageError(f"{place}: the connection was closed", transient=True) from error
    except ServerSilent as error:
        raise StorageError(f"{place}: {error}", hint="Is the network up?", transient=True) from error
    except socket.gaierror as error:
        raise StorageError(
            f"{place}: the host is not known ({error.strerror})",
            hint="Check its name, and whether the network is up.",
            transient=error.errno == socket.EAI_AGAIN,
        ) from error
    except OSError as error:
        raise StorageError(f"{place}: {error.strerror or error}", hint="Is the network up?", transient=True) from error


def is_lost(error: BaseException) -> bool:
    """Whether it says that the connection is gone."""
    return isinstance(error, (*_LOST, ServerSilent, TimeoutError))


def _reason(error: Exception) -> str:
    text = str(error)
    return f" ({text})" if text and text not in ("Failure", "Connection lost") else ""
