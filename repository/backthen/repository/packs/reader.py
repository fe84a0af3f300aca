"""Opening what is in a pack: one segment, or the directory of all of them (FORMAT.md, section 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from backthen.repository import format as fmt
from backthen.repository.crypto import BlobKind, PackCipher
from backthen.repository.errors import MalformedError
from backthen.repository.ids import BlobId, PackId
from backthen.repository.model.entry import UNDECODABLE
from backthen.repository.model.records import IndexedPack
from backthen.repository.packs.builder import BLOB_RECORD, SEGMENT_RECORD, TRAILER, pack_numbers
from backthen.repository.packs.segment import (
    FORM_RUN,
    FORM_SOLID,
    BlobRecord,
    RunPiece,
    SolidBody,
    decode_body,
    verify_body,
)

ReadRange = Callable[[int, int], bytes]
"""(offset, length) to the bytes of a pack there."""


class PackDirectory(NamedTuple):
    """What a pack says is in it; lengths in bytes, as stored."""

    pack_class: int
    lengths: list[int]
    counts: list[int]
    forms: list[int]
    blobs: list[BlobRecord]

    def indexed(self, pack_id: PackId) -> IndexedPack:
        """The same as an index object says it."""
        prefixes = b"".join(blob.id[: fmt.ID_PREFIX_BYTES] for blob in self.blobs)
        return IndexedPack(pack_id, pack_numbers(self.lengths), pack_numbers(self.counts), prefixes)


def open_segment(cipher: PackCipher, number: int, sealed: bytes | memoryview, form: int) -> SolidBody | RunPiece:
    """Authenticate, decompress and check one segment.

    Raises:
        TamperedError: it is not the segment that was sealed there.
        MalformedError: it does not follow the format.
    """
    return verify_body(decode_body(cipher.open(number, sealed)), form)


def read_pack_directory(cipher: PackCipher, length: int, read: ReadRange) -> PackDirectory:
    """The directory of a pack of `length` bytes.

    Raises:
        TamperedError: directory or trailer are not what was sealed.
        MalformedError: they do not follow the format.
    """
    trailer_at = length - fmt.PACK_TRAILER_BYTES
    if trailer_at < fmt.PACK_HEADER_BYTES:
        raise MalformedError("it is too short for a pack")
    count, sealed_length = TRAILER.unpack(cipher.open_trailer(read(trailer_at, fmt.PACK_TRAILER_BYTES)))
    begin = trailer_at - sealed_length
    if begin < fmt.PACK_HEADER_BYTES:
        raise MalformedError("its directory is longer than the pack")
    plaintext = cipher.open(count, read(begin, sealed_length), last=True)
    payload = plaintext[4 : 4 + int.from_bytes(plaintext[:4], "big")]
    directory = _decode(cipher.pack_class, payload)
    if len(directory.lengths) != count or sum(directory.lengths) + fmt.PACK_HEADER_BYTES != begin:
        raise MalformedError("its directory does not describe its segments")
    return directory


def _decode(pack_class: int, payload: bytes) -> PackDirectory:
    try:
        segments, blobs = msgspec.msgpack.decode(payload, type=tuple[bytes, bytes])
    except UNDECODABLE as error:
        raise MalformedError("its directory cannot be decoded") from error
    if len(segments) % SEGMENT_RECORD.size or len(blobs) % BLOB_RECORD.size:
        raise MalformedError("its directory has a broken length")
    records = list(SEGMENT_RECORD.iter_unpack(segments))
    directory = PackDirectory(
        pack_class,
        [length for length, _, _ in records],
        [count for _, count, _ in records],
        [form for _, _, form in records],
        [BlobRecord(kind, BlobId(id_), length) for kind, id_, length in BLOB_RECORD.iter_unpack(blobs)],
    )
    is_sound = (
        sum(directory.counts) == len(directory.blobs)
        and max(directory.counts, default=0) <= fmt.SEGMENT_BLOBS_MAX
        and set(directory.forms) <= {FORM_SOLID, FORM_RUN}
        and {blob.kind for blob in directory.blobs} <= set(BlobKind)
    )
    if not is_sound:
        raise MalformedError("its directory contradicts itself")
    return directory
