"""Storages on SSH servers, and what those say that are refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from backthen.repository.errors import StorageError
from backthen.repository.storage import CONFIG_NAME, StorageAccess
from backthen.repository.storage.backends.sftp import SftpStorage
from tests.support.ssh_server import SshServer


@contextmanager
def sftp_storage(location: str, access: StorageAccess) -> Iterator[SftpStorage]:
    """A storage that is closed in the end."""
    storage = SftpStorage(location, access)
    try:
        yield storage
    finally:
        storage.close()


def configured(server: SshServer, folder: Path, text: str) -> StorageAccess:
    """The server's access, with a configuration that comes first."""
    config = folder / "own_config"
    config.write_text(text)
    return replace(server.access, ssh_config=(config, server.config))


def refusal_of(location: str, access: StorageAccess) -> StorageError:
    """What is said when the storage is first used; there is something that can be done about it."""
    with sftp_storage(location, access) as storage, pytest.raises(StorageError) as caught:
        storage.get(CONFIG_NAME)
    assert caught.value.hint
    return caught.value
