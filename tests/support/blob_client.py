"""A client of a storage that puts and reads blobs, and ways to damage what it stored."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from backthen.repository.compression import Compression
from backthen.repository.crypto import BlobKind
from backthen.repository.ids import PackId
from backthen.repository.index import LocalIndex
from backthen.repository.model.entry import BlobRef
from backthen.repository.objects import (
    BlobReader,
    BlobWriter,
    refresh_index,
)
from backthen.repository.storage import CachedStorage, LocalStorage, Storage, pack_name, parse_pack_name
from tests.support.fixed_keys import fixed_keys

KEYS = fixed_keys()
PROJECT = Path(__file__).parents[2]


class Client:
    """One machine's way to a storage: its index and its reader."""

    def __init__(self, storage: Storage, cache: Path) -> None:
        self.storage = storage
        self.cache = cache
        self.index = LocalIndex(cache / "index", KEYS)
        cached = storage if isinstance(storage, CachedStorage) else None
        self.reader = BlobReader(storage, KEYS, self.index, lambda: refresh_index(storage, KEYS, self.index), cached)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.index.close()

    def writer(self) -> BlobWriter:
        """A writer that relies on the packs that are in storage now."""
        usable = {pack for pack, _ in self.packs()}
        spool = self.storage.spool or self.cache / "spool"
        return BlobWriter(self.storage, KEYS, self.index, usable=usable, spool=spool, compression=Compression())

    def put(self, *blobs: bytes, kind: BlobKind = BlobKind.CHUNK) -> list[BlobRef]:
        """Store blobs and wait for it."""
        with self.writer() as own:
            refs = [own.put(kind, blob) for blob in blobs]
            own.flush()
        return refs

    def packs(self) -> list[tuple[PackId, int]]:
        """All packs in storage with their lengths."""
        found = ((parse_pack_name(stored.name), stored.length) for stored in self.storage.list("packs"))
        return [(id_, length) for id_, length in found if id_ is not None]


def new_storage(folder: Path) -> LocalStorage:
    """An empty local storage."""
    made = LocalStorage(folder / "repository")
    made.create()
    return made


def spooled(storage: Storage) -> list[Path]:
    """What lies in the storage's folder for files that are not whole yet."""
    return sorted(Path(storage.location).glob("tmp/*"))


def pack_path(storage: Storage, pack: PackId) -> Path:
    """The file of a pack."""
    return Path(storage.location) / pack_name(pack)


def change_file(path: Path, data: bytes) -> None:
    """Put other bytes into a stored file."""
    path.chmod(0o600)
    path.write_bytes(data)


def flip_bit(path: Path, at: int) -> None:
    """Change one bit of a stored file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    change_file(path, bytes(data))


def environment() -> dict[str, str]:
    """For a process that imports what this one does."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(PROJECT), *sys.path])}
