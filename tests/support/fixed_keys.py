"""Keys that are the same in every run."""

from __future__ import annotations

import hashlib

from backthen.repository.crypto import RepositoryKeys
from backthen.repository.ids import RepositoryId
from backthen.repository.model.records import BundledKey

LABELS = ("blob", "chunker", "tree", "mount", "seal")


def fixed_bundle(number: int = 0) -> tuple[BundledKey, ...]:
    """The bundle of repository `number`: each key is the SHA-256 of its label and the number."""
    return tuple(BundledKey(label, 0, hashlib.sha256(f"{label} {number}".encode()).digest()) for label in LABELS)


def fixed_keys(number: int = 0) -> RepositoryKeys:
    """The keys of repository `number`."""
    return RepositoryKeys(RepositoryId(hashlib.sha256(f"repository {number}".encode()).digest()), fixed_bundle(number))
