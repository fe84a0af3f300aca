"""Types of the ids in a repository; bytes inside, hexadecimal only at the edge."""

from __future__ import annotations

from typing import NewType

BlobId = NewType("BlobId", bytes)
"""32 bytes: keyed BLAKE3 of a blob's plaintext."""

ObjectId = NewType("ObjectId", bytes)
"""32 bytes: SHA-256 of a stored object; the last part of its name."""

PackId = NewType("PackId", ObjectId)
SnapshotId = NewType("SnapshotId", ObjectId)

RepositoryId = NewType("RepositoryId", bytes)
"""32 random bytes."""
