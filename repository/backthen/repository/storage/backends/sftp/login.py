"""From an address to an SSH connection: the user's configuration, keys, agent, and the keys of known hosts.

A host must be known and have the key that is known. Nobody is asked for anything: no password, no passphrase, and no
"are you sure". What goes over a jump host is checked at each hop.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, cast

import asyncssh

from backthen.repository.errors import InvalidAccess, StorageError
from backthen.repository.storage.access import StorageAccess
from backthen.repository.storage.backends.sftp.address import SftpAddress
from backthen.repository.storage.backends.sftp.errors import ServerSilent

HOPS_MAX = 8
_KEEPALIVE_COUNT_MAX = 3
_PORT = 22
_USER_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_GLOBAL_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_JUMP = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^/:@\[\]]+)(?::(?P<port>[0-9]{1,5}))?/?")


class _Jump(NamedTuple):
    """A host on the way to another one."""

    user: str | None
    host: str
    port: int | None


async def open_ssh(address: SftpAddress, access: StorageAccess) -> list[asyncssh.SSHClientConnection]:
    """Connections to the host, each through the one before it; the last one is that to the host.

    Raises:
        InvalidAccess: the configuration, a key, or a file of known hosts cannot be used.
        StorageError: the host is not trusted, or does not let the user in.
        asyncssh.Error: the connection failed.
        OSError: the host cannot be reached.
        ServerSilent: it does not answer.
    """
    hops: list[asyncssh.SSHClientConnection] = []
    try:
        await _open_hop(address, access, hops, HOPS_MAX)
    except BaseException:
        for hop in reversed(hops):
            hop.abort()
        raise
    return hops


async def _open_hop(
    address: SftpAddress | _Jump, access: StorageAccess, hops: list[asyncssh.SSHClientConnection], hops_max: int
) -> None:
    """Add a connection to a host, after those to the hosts on the way to it."""
    if not hops_max:
        raise InvalidAccess(
            f"the way to {address.host} goes over too many hosts", hint="Look for a circle of `ProxyJump`."
        )
    options = _options(address, access)
    if isinstance(options.tunnel, str) and not hops:
        for jump in options.tunnel.split(","):
            await _open_hop(_parse_jump(jump), access, hops, hops_max - 1)
    known = _known_hosts(options)
    try:
        async with asyncio.timeout(access.timeout_s):
            hop = await asyncssh.connect(
                address.host,
                () if address.port is None else address.port,
                options=options,
                config=None,
                tunnel=hops[-1] if hops else None,
                known_hosts=known,
            )
    except TimeoutError as error:
        raise ServerSilent(f"{options.host} does not answer") from error
    except asyncssh.HostKeyNotVerifiable as error:
        raise _untrusted(options, known) from error
    except asyncssh.PermissionDenied as error:
        raise StorageError(
            f"{options.host} lets {options.username} in with none of the keys that it was offered",
            hint="Backthen asks for no password and no passphrase: load a key that has one with `ssh-add`, and install "
            "keys with `ssh-copy-id`.",
        ) from error
    hops.append(hop)


def _options(address: SftpAddress | _Jump, access: StorageAccess) -> asyncssh.SSHClientConnectionOptions:
    """What the configuration says of a host.

    Raises:
        InvalidAccess: it cannot be used.
    """
    try:
        agent = "" if access.ssh_agent is None else str(access.ssh_agent)
        options = _read_options(address, access, agent)
        if options.config.get("IdentityAgent") is not None:
            return _read_options(address, access, ())  # the configuration has its own agent
    except (ValueError, OSError) as error:
        raise InvalidAccess(
            f"the SSH configuration for {address.host} cannot be used: {error}",
            hint=f"See what `ssh {address.host}` says.",
        ) from error
    return options


def _read_options(
    address: SftpAddress | _Jump, access: StorageAccess, agent: str | tuple[()]
) -> asyncssh.SSHClientConnectionOptions:
    return asyncssh.SSHClientConnectionOptions(
        config=[str(path) for path in access.ssh_config] or None,
        host=address.host,
        port=() if address.port is None else address.port,
        username=() if address.user is None else address.user,
        agent_path=agent,
        agent_forwarding=False,
        x11_forwarding=False,
        password_auth=False,
        kbdint_auth=False,
        gss_auth=False,
        gss_kex=False,
        host_based_auth=False,
        keepalive_interval=access.timeout_s,
        keepalive_count_max=_KEEPALIVE_COUNT_MAX,
    )


def _parse_jump(text: str) -> _Jump:
    user, _, place = text.strip().rpartition("@")
    match = _JUMP.fullmatch(place.removeprefix("ssh://"))
    if match is None:
        raise InvalidAccess(f"ProxyJump: {text!r} is not a host", hint="Write it as [user@]host[:port].")
    return _Jump(
        user=user.removeprefix("ssh://") or None,
        host=match["host"].strip("[]"),
        port=int(match["port"]) if match["port"] else None,
    )


def _known_hosts(options: asyncssh.SSHClientConnectionOptions) -> asyncssh.SSHKnownHosts:
    """The keys of all hosts that the user knows.

    Raises:
        InvalidAccess: a file of them cannot be read.
    """
    config = options.config
    named = [
        *cast(Iterable[str], config.get("UserKnownHostsFile", _USER_KNOWN_HOSTS)),
        *cast(Iterable[str], config.get("GlobalKnownHostsFile", _GLOBAL_KNOWN_HOSTS)),
    ]
    paths = [path for path in (Path(name).expanduser() for name in named) if path.is_file()]
    try:
        return asyncssh.read_known_hosts([str(path) for path in paths])
    except (ValueError, OSError) as error:
        raise InvalidAccess(
            f"the keys of known hosts cannot be read: {error}", hint="Look into ~/.ssh/known_hosts."
        ) from error


def _untrusted(options: asyncssh.SSHClientConnectionOptions, known: asyncssh.SSHKnownHosts) -> StorageError:
    """What to say of a host whose key is not the one that is known: asyncssh raises the same for "none is known"."""
    host = options.host_key_alias or options.host
    port = None if options.port == _PORT else options.port
    shown = host if port is None else f"[{host}]:{port}"
    if any(known.match(host, "", port)):
        return StorageError(
            f"the key of {shown} is not the one in known_hosts: it was changed, or somebody listens in between",
            hint="Ask who runs the host. If the new key is right, remove the old one with "
            f"`ssh-keygen -R '{shown}'` and log in once by `ssh` to store the new one.",
        )
    port_option = "" if port is None else f" -p {port}"
    return StorageError(
        f"the key of {shown} is not known",
        hint=f"Log in once by `ssh{port_option} {options.username}@{options.host}`, compare the fingerprint that it "
        "shows with the host's own, and say yes.",
    )
