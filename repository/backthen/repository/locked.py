"""A repository that was found, and what leads to its keys: the first step of opening it.

The second, `opening`, needs most of the engine. So a key derivation that is begun here runs while that is imported, and
while whatever needs no keys is asked of the storage.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from backthen.repository import format as fmt
from backthen.repository.crypto import ConfigHeader, decode_config, derive_master, open_configuration
from backthen.repository.errors import InvalidRequest, MissingError, ObjectMissing, RepositoryNotFound
from backthen.repository.ids import RepositoryId
from backthen.repository.model.records import ChunkerParameters
from backthen.repository.slots import OpenedSlot, find_own_slot, password_bytes, read_slots
from backthen.repository.storage import CACHE_BYTES_MAX, CONFIG_NAME, ListedAhead, Storage, StoredObject, at_once

_SURVEYED = ("log", "marks", "roots", "packs")
"""Not the index: what another process of this machine adds to that meanwhile must not look as if it were gone."""

CHUNKER = ChunkerParameters(
    fmt.CHUNK_BYTES_MIN,
    fmt.CHUNK_BYTES_MAX,
    fmt.CUT_SPREAD_BYTES,
    fmt.FASTCDC_BYTES_MIN,
    fmt.FASTCDC_BYTES_AVERAGE,
    fmt.FASTCDC_BYTES_MAX,
)
"""How files are cut, which every client of a repository must do alike."""


@dataclass(frozen=True, slots=True)
class Folders:
    """Where this user's caches and state are kept; each repository has a folder of its own inside, named by its id.

    Attributes:
        cache: what can be had again.
        state: what cannot.
        cache_bytes_max: what may be kept of each repository that is elsewhere.
    """

    cache: Path
    state: Path
    cache_bytes_max: int = CACHE_BYTES_MAX


class LockedRepository:
    """A repository that was found, without its keys."""

    def __init__(self, storage: Storage, config: bytes, slots: Sequence[StoredObject], folders: Folders) -> None:
        """Read the clear part of `config`; the key slots are as they were listed.

        Raises:
            MalformedError: it was damaged or changed.
            NewerFormatError: it needs a newer version of the program.
        """
        self._storage = storage
        self._config = config
        self._slots = slots
        self._folders = folders
        self._header = decode_config(config)

    @property
    def id(self) -> RepositoryId:
        """The repository's id."""
        return self._header.repository_id

    @property
    def cache_folder(self) -> Path:
        """Where what can be had again of it is kept."""
        return self._folders.cache / self.id.hex()

    @property
    def folder(self) -> Path | None:
        """Where it is on this machine, or None where it is elsewhere."""
        return self._storage.folder

    def close(self) -> None:
        """Let go of the storage; to be called before a process forks. It may be unlocked all the same."""
        self._storage.close()

    def begin_unlock(self, password: bytes, *, for_snapshot: bool = False) -> Unlocking:
        """Begin to open the repository; costs one key derivation, which goes on in the background.

        Args:
            password: what opens it.
            for_snapshot: list meanwhile, where the storage is far away, what is looked at when a snapshot is begun.

        Raises:
            InvalidRequest: the password looks like a recovery key, but its checksum is wrong.
        """
        ahead = _SURVEYED if for_snapshot and self._storage.concurrency > 1 else ()
        storage = ListedAhead(self._storage, ahead) if ahead else self._storage
        return Unlocking(storage, self._header, self._config, self._slots, self._folders, password_bytes(password))


class Unlocking:
    """A repository whose keys are being derived and whose key slots are being read, each in a thread.

    Attributes:
        storage: where it is.
        header: the clear part of its `config`.
        folders: this user's caches and state.
    """

    def __init__(
        self,
        storage: Storage,
        header: ConfigHeader,
        config: bytes,
        slots: Sequence[StoredObject],
        folders: Folders,
        password: bytes,
    ) -> None:
        """Begin, with the password as `password_bytes` gives it."""
        self.storage = storage
        self.header = header
        self.folders = folders
        self._config = config
        threads = ThreadPoolExecutor(2, thread_name_prefix="unlock")
        self._master = threads.submit(derive_master, password, header.kdf)
        self._slots = threads.submit(read_slots, storage, header, slots)
        threads.shutdown(wait=False)

    def opened(self) -> OpenedSlot:
        """The keys, when both have come to their end.

        Raises:
            WrongPassword: no key slot belongs to the password.
            DamageError: `config` or the key slot was damaged or changed.
            NewerFormatError: it needs a newer version of the program.
            InvalidRequest: this version, or this machine's cryptography library, does not know how.
            StorageError: the storage failed.
        """
        opened = find_own_slot(self.header, self._slots.result(), self._master.result())
        configuration = open_configuration(self.header, opened.keys, self._config)
        if configuration.chunker != CHUNKER:
            raise InvalidRequest(
                "the repository cuts files in a way that this version does not know", hint="Update Backthen."
            )
        return opened


def find_repository(storage: Storage, folders: Folders) -> LockedRepository:
    """The repository in a storage.

    Raises:
        RepositoryNotFound: there is none.
        MissingError: there are snapshots, but their `config` is gone.
        MalformedError: its `config` was damaged or changed.
        NewerFormatError: it needs a newer version of the program.
        StorageError: the storage failed.
    """
    with at_once(storage) as begin:
        slots = begin(lambda: list(storage.list("keys")))
        config = read_config(storage)
        listed = slots()
    if config is None:
        if any(True for _ in storage.list("roots")):
            raise MissingError("it is gone, and without it the repository cannot be opened", name=CONFIG_NAME)
        raise RepositoryNotFound(
            f"there is no repository at {storage.location}", hint=f"Make one with `backthen init {storage.location}`."
        )
    return LockedRepository(storage, config, listed, folders)


def read_config(storage: Storage) -> bytes | None:
    """The bytes of a repository's `config`, or None where there is none.

    Raises:
        StorageError: the storage failed.
    """
    try:
        return storage.get(CONFIG_NAME, 0, fmt.PAYLOAD_BYTES_MAX)
    except ObjectMissing:
        return None
