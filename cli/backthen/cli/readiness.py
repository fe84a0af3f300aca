"""Telling a service manager that this process is ready, as sd_notify(3) describes it."""

from __future__ import annotations

import socket
from collections.abc import MutableMapping

_VARIABLE = "NOTIFY_SOCKET"


def tell_service_manager(environment: MutableMapping[str, str]) -> bool:
    """Say that the work has begun, if anybody wants to know; whether somebody did.

    Programs started later are not to say it again, so the variable is taken out of the environment.

    Raises:
        OSError: whoever wants to know cannot be reached.
    """
    address = environment.pop(_VARIABLE, "")
    if not address.startswith(("/", "@")):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        # A first `@` stands for the zero byte of an abstract address.
        channel.sendto(b"READY=1", "\0" + address[1:] if address[0] == "@" else address)
    return True
