"""What the local table keeps of a pack, and of the places of its blobs."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

from backthen.repository import format as fmt
from backthen.repository.ids import ObjectId, PackId
from backthen.repository.model.records import IndexedPack

LOCATION = struct.Struct(">IIH")
"""Number of the pack, segment, ordinal in the segment."""


class PackRecord(NamedTuple):
    """A pack of the table: id, class, and where each segment begins (with the end as last element), in bytes."""

    id: PackId
    pack_class: int
    counts: tuple[int, ...]
    offsets: tuple[int, ...]

    def is_run(self, segment: int) -> bool:
        """Whether a segment is a piece of a blob: none begins in it, or none in the next one."""
        return 0 in self.counts[segment : segment + 2]


def encode_pack(pack: IndexedPack, pack_class: int) -> bytes:
    """A pack as it stands in the table."""
    return pack.id + bytes((pack_class,)) + pack.lengths + pack.counts


def decode_pack(value: bytes) -> PackRecord:
    """A pack from the table."""
    pack_id, pack_class = PackId(ObjectId(value[: fmt.ID_BYTES])), value[fmt.ID_BYTES]
    numbers = struct.unpack(f">{(len(value) - fmt.ID_BYTES - 1) // 4}I", value[fmt.ID_BYTES + 1 :])
    half = len(numbers) // 2
    return PackRecord(
        pack_id, pack_class, numbers[half:], tuple(accumulate(numbers[:half], initial=fmt.PACK_HEADER_BYTES))
    )


def blob_locations(number: int, pack: IndexedPack) -> Iterator[tuple[bytes, bytes]]:
    """(prefix, packed location) of each blob of a pack."""
    counts = struct.unpack(f">{len(pack.counts) // 4}I", pack.counts)
    at = 0
    for segment, count in enumerate(counts):
        for ordinal in range(count):
            yield pack.prefixes[at : at + fmt.ID_PREFIX_BYTES], LOCATION.pack(number, segment, ordinal)
            at += fmt.ID_PREFIX_BYTES
