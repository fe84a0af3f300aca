"""An SFTP server that is not OpenSSH's: asyncssh's own, which never gives a handle again that was closed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncssh

from backthen.repository.storage import StorageAccess
from tests.support.ssh_server import TIMEOUT_S, make_key


class EndlessFolders(asyncssh.SFTPServer):
    """In each folder it has names without end."""

    async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        number = 0
        while True:
            yield asyncssh.SFTPName(b"%064x" % number, attrs=asyncssh.SFTPAttrs(type=asyncssh.FILEXFER_TYPE_REGULAR))
            number += 1


@contextmanager
def other_ssh_server(
    folder: Path, serve: Callable[[asyncssh.SSHServerChannel[bytes]], asyncssh.SFTPServer] = asyncssh.SFTPServer
) -> Iterator[tuple[int, StorageAccess]]:
    """Serve while the context lasts: the port on 127.0.0.1, and what reaches it."""
    for name in ("host_key", "client_key"):
        make_key(folder / name)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="other ssh server", daemon=True)
    thread.start()
    listener = asyncio.run_coroutine_threadsafe(_listen(folder, serve), loop).result()
    port = listener.get_port()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host_key.pub').read_text()}")
    config = folder / "ssh_config"
    config.write_text(f"IdentityFile {folder / 'client_key'}\nUserKnownHostsFile {folder / 'known_hosts'}\n")
    try:
        yield port, StorageAccess(ssh_config=(config,), timeout_s=TIMEOUT_S, retry_for_s=TIMEOUT_S)
    finally:
        asyncio.run_coroutine_threadsafe(_closed(listener), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _listen(
    folder: Path, serve: Callable[[asyncssh.SSHServerChannel[bytes]], asyncssh.SFTPServer]
) -> asyncssh.SSHAcceptor:
    return await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[folder / "host_key"],
        authorized_client_keys=str(folder / "client_key.pub"),
        sftp_factory=serve,
    )


async def _closed(listener: asyncssh.SSHAcceptor) -> None:
    listener.close()
    await listener.wait_closed()
