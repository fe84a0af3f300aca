"""What a password costs, and whom it lets in."""

from __future__ import annotations

from pathlib import Path

import pytest

from backthen.repository import (
    Client,
    Folders,
    Repository,
    WrongPassword,
    add_password,
    add_recovery_key,
    create_repository,
    find_repository,
    unlock,
)
from backthen.repository.crypto import KdfParameters, derive_master
from tests.support.memory_storage import MemoryStorage

CLIENT = Client("host", "user", "program")


@pytest.fixture
def derivations(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The passwords that a key was derived from."""
    derived: list[bytes] = []

    def record(password: bytes, kdf: KdfParameters) -> bytes:
        derived.append(password)
        return derive_master(password, kdf)

    monkeypatch.setattr("backthen.repository.locked.derive_master", record)
    return derived


def test_wrong_password_costs_one_derivation_however_many_slots_there_are(
    tmp_path: Path, derivations: list[bytes]
) -> None:
    storage = MemoryStorage()
    folders = Folders(tmp_path / "cache", tmp_path / "state")
    with create_repository(storage, b"first", folders, CLIENT) as repository:
        _add_slots(repository)
    derivations.clear()
    with pytest.raises(WrongPassword):
        unlock(find_repository(storage, folders), b"guessed", CLIENT)

    assert derivations == [b"guessed"]


@pytest.mark.parametrize("password", [b"first", b"password 4"])
def test_right_password_costs_one_derivation_however_many_slots_there_are(
    tmp_path: Path, derivations: list[bytes], password: bytes
) -> None:
    storage = MemoryStorage()
    folders = Folders(tmp_path / "cache", tmp_path / "state")
    with create_repository(storage, b"first", folders, CLIENT) as repository:
        _add_slots(repository)
    derivations.clear()
    unlock(find_repository(storage, folders), password, CLIENT).close()

    assert derivations == [password]


def _add_slots(repository: Repository) -> None:
    for number in range(5):
        add_password(repository, b"password %d" % number)
    add_recovery_key(repository)
    assert len(list(repository.storage.list("keys"))) == 7
