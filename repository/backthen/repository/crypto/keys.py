"""The bundle of a repository's keys and everything derived from it (FORMAT.md, section 3)."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable

from blake3 import blake3
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from typing_extensions import Buffer

from backthen.repository import entropy
from backthen.repository import format as fmt
from backthen.repository.errors import MalformedError, TamperedError
from backthen.repository.ids import BlobId, ObjectId, RepositoryId
from backthen.repository.model.records import BundledKey

_FIXED_LABELS = ("blob", "chunker", "tree", "mount")
_SEAL_LABEL = "seal"


class BlobKind(enum.IntEnum):
    """What a blob is; the numbers are part of the format."""

    CHUNK = 1
    PAGE = 2
    LIST = 3
    XATTR = 4


class ObjectKind(enum.IntEnum):
    """What a sealed object is; the numbers are part of the format."""

    CONFIG = 1
    SLOT = 2
    INDEX = 3
    ROOT = 4
    LOG = 5
    MARK = 6


def object_id(data: Buffer) -> ObjectId:
    """SHA-256 of a stored object's bytes, the last part of its name."""
    return ObjectId(hashlib.sha256(data).digest())


def hkdf(key: bytes, salt: bytes, info: bytes) -> bytes:
    """HKDF with SHA-256 (RFC 5869), 32 bytes."""
    return HKDF(algorithm=hashes.SHA256(), length=fmt.KEY_BYTES, salt=salt, info=info).derive(key)


def new_bundle() -> tuple[BundledKey, ...]:
    """Fresh keys for a new repository."""
    labels = (*_FIXED_LABELS, _SEAL_LABEL)
    return tuple(BundledKey(label, 0, entropy.random_bytes(fmt.KEY_BYTES)) for label in labels)


class RepositoryKeys:
    """The keys of one repository, derived from its bundle. Immutable; safe to use from several threads."""

    __slots__ = (
        "_blob",
        "_border",
        "_group",
        "_inode",
        "_seals",
        "bundle",
        "chunker_prf",
        "chunker_seed",
        "repository_id",
    )

    def __init__(self, repository_id: RepositoryId, bundle: Iterable[BundledKey]) -> None:
        """Derive every key.

        Raises:
            MalformedError: the bundle lacks a key, or one has the wrong length.
        """
        self.repository_id = repository_id
        self.bundle = tuple(bundle)
        fixed: dict[str, bytes] = {}
        self._seals: dict[int, bytes] = {}
        for item in self.bundle:
            if len(item.key) != fmt.KEY_BYTES:
                raise MalformedError("a key of the bundle has the wrong length", name="keys")
            if item.label == _SEAL_LABEL:
                self._seals[item.generation] = item.key
            else:
                fixed[item.label] = item.key
        if not self._seals or any(label not in fixed for label in _FIXED_LABELS):
            raise MalformedError("the bundle lacks a key", name="keys")
        self._blob = {kind: _derive(fixed["blob"], f"blob id {kind.name.lower()}") for kind in BlobKind}
        self.chunker_seed = int.from_bytes(_derive(fixed["chunker"], "chunker seed")[:8], "big") % (1 << 63)
        self.chunker_prf = _derive(fixed["chunker"], "chunker prf")
        self._border = _derive(fixed["tree"], "page border")
        self._group = _derive(fixed["tree"], "link group")
        self._inode = _derive(fixed["mount"], "inode")

    def __repr__(self) -> str:
        """Say nothing about the keys."""
        return f"RepositoryKeys(repository_id={self.repository_id.hex()[:8]})"

    @property
    def seal_generation(self) -> int:
        """The generation that seals now."""
        return max(self._seals)

    def blob_id(self, kind: BlobKind, data: Buffer) -> BlobId:
        """The id of a blob of that kind."""
        return BlobId(blake3(data, key=self._blob[kind]).digest())

    def blob_hash(self, kind: BlobKind) -> blake3:
        """A running hash whose digest is the id of a blob of that kind."""
        return blake3(key=self._blob[kind])

    def page_border(self, level: int, key: bytes) -> int:
        """The PRF below 2^64 that decides whether a page ends after an item (FORMAT.md, section 8.1)."""
        return int.from_bytes(blake3(bytes((level,)) + key, key=self._border).digest(8), "big")

    def link_group(self, top_path: bytes, inode: int) -> bytes:
        """The 16-byte group key of an inode with several names (FORMAT.md, section 8.2)."""
        message = top_path + b"\0" + inode.to_bytes(8, "big")
        return blake3(message, key=self._group).digest(fmt.GROUP_KEY_BYTES)

    def inode_prf(self, data: bytes) -> int:
        """A PRF below 2^64 for inode numbers in a mount."""
        return int.from_bytes(blake3(data, key=self._inode).digest(8), "big")

    def sealing_key(self, kind: str, generation: int, salt: bytes) -> bytes:
        """The key of one object or pack.

        Raises:
            TamperedError: there is no key of that generation.
        """
        seal = self._seals.get(generation)
        if seal is None:
            raise TamperedError(f"it names a key generation {generation} that this repository does not have")
        return hkdf(seal, salt, b"backthen v1 seal " + kind.encode() + b"\0" + self.repository_id)


def _derive(key: bytes, name: str) -> bytes:
    return blake3(key, derive_key_context=f"backthen v1 {name}").digest()
