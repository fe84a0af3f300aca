"""Packs in memory, made and read by the real code."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from backthen.repository import format as fmt
from backthen.repository.compression import Compression
from backthen.repository.crypto import (
    BlobKind,
    PackCipher,
    RepositoryKeys,
    open_pack_cipher,
)
from backthen.repository.packs import (
    BlobRecord,
    BuiltPack,
    PackBuilder,
    PackDirectory,
    Segment,
    SolidBody,
    make_run,
    make_solid,
    open_segment,
    read_pack_directory,
)
from tests.support.fixed_keys import fixed_keys

KEYS = fixed_keys()


def random_bytes(length: int, seed: int = 0) -> bytes:
    """Bytes that do not compress, the same for a seed in every run."""
    return blake3(b"%d" % seed).digest(length)


def blob_record(kind: BlobKind, data: bytes) -> BlobRecord:
    """What a pack's directory says of a blob."""
    return BlobRecord(kind, KEYS.blob_id(kind, data), len(data))


def make_units(blobs: Sequence[bytes], kind: BlobKind, compression: Compression) -> list[list[Segment]]:
    """Large blobs as runs, small ones in threes as solid segments."""
    small = [blob for blob in blobs if len(blob) <= fmt.RUN_PIECE_BYTES]
    units = [make_run(blob, blob_record(kind, blob)) for blob in blobs if len(blob) > fmt.RUN_PIECE_BYTES]
    for at in range(0, len(small), 3):
        group = small[at : at + 3]
        units.append([make_solid(group, [blob_record(kind, blob) for blob in group], compression)])
    return units


class Pack(NamedTuple):
    """The bytes of a pack, and what its builder said of it."""

    data: bytes
    built: BuiltPack


def build_pack(units: Sequence[Sequence[Segment]], pack_class: int = fmt.PACK_CLASS_DATA) -> Pack:
    """A finished pack of those units."""
    file = io.BytesIO()
    builder = PackBuilder(KEYS, pack_class, Path("pack"), file)
    for unit in units:
        builder.add(unit)
    built = builder.finish()
    return Pack(file.getvalue(), built)


def open_directory(data: bytes, keys: RepositoryKeys = KEYS) -> tuple[PackCipher, PackDirectory]:
    """The cipher and the directory of a pack."""
    cipher = open_pack_cipher(keys, data[: fmt.PACK_HEADER_BYTES])
    return cipher, read_pack_directory(cipher, len(data), lambda offset, length: data[offset : offset + length])


def read_blobs(data: bytes, keys: RepositoryKeys = KEYS) -> dict[bytes, bytes]:
    """All blobs of a pack by id; every part of it is opened."""
    cipher, directory = open_directory(data, keys)
    offset = fmt.PACK_HEADER_BYTES
    blobs = iter(directory.blobs)
    found: dict[bytes, bytes] = {}
    for number, length in enumerate(directory.lengths):
        body = open_segment(cipher, number, data[offset : offset + length], directory.forms[number])
        if isinstance(body, SolidBody):
            for ordinal in range(directory.counts[number]):
                found[next(blobs).id] = bytes(body.blob(ordinal))
        else:
            if directory.counts[number]:
                next(blobs)
            found[body.id] = found.get(body.id, b"") + bytes(body.data)
        offset += length
    return found
