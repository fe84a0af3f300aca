"""The plaintext of segments: several small blobs side by side, or one piece of a large one (FORMAT.md, section 5)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from typing_extensions import Buffer

from backthen.repository import format as fmt
from backthen.repository.compression import Compression, compress, decompress
from backthen.repository.errors import MalformedError
from backthen.repository.ids import BlobId

FORM_SOLID = 0
FORM_RUN = 1
_CODEC_STORED = 0
_CODEC_ZSTD = 1
_FEW_LARGE_BLOBS = 2
_PREFIX = struct.Struct(">BI")
_PIECE = struct.Struct(">32sII")


class BlobRecord(NamedTuple):
    """A blob as a pack's directory names it; `length` is in bytes."""

    kind: int
    id: BlobId
    length: int


class Segment(NamedTuple):
    """A segment that is compressed and waits to be sealed, with the blobs that begin in it."""

    form: int
    plaintext: bytes
    blobs: tuple[BlobRecord, ...]


class SolidBody(NamedTuple):
    """An opened segment of small blobs: `ends[i]` is where blob i ends in `data`, which starts at `start`."""

    data: memoryview
    start: int
    ends: list[int]

    def blob(self, ordinal: int) -> memoryview:
        """The bytes of one blob.

        Raises:
            MalformedError: the segment has no such blob.
        """
        if not 0 <= ordinal < len(self.ends):
            raise MalformedError("a segment does not hold the blob that the index says")
        begin = self.ends[ordinal - 1] if ordinal else self.start
        return self.data[begin : self.ends[ordinal]]


class RunPiece(NamedTuple):
    """An opened segment that is one piece of a larger blob."""

    id: BlobId
    blob_length: int
    number: int
    data: memoryview


def make_solid(blobs: Sequence[bytes], records: Sequence[BlobRecord], compression: Compression) -> Segment:
    """One segment of small blobs."""
    lengths = struct.pack(f">I{len(blobs)}I", len(blobs), *map(len, blobs))
    return Segment(FORM_SOLID, _encode_body(b"".join((lengths, *blobs)), compression, len(blobs)), tuple(records))


def make_run(blob: Buffer, record: BlobRecord) -> list[Segment]:
    """The segments of one large blob that does not compress, 256 KiB of it in each, stored as they are.

    Small pieces make reading a few bytes of it cheap, and nothing is lost by it.
    """
    view = memoryview(blob)
    segments = []
    for number, offset in enumerate(range(0, len(view), fmt.RUN_PIECE_BYTES)):
        piece = view[offset : offset + fmt.RUN_PIECE_BYTES]
        length = _PIECE.size + len(piece)
        plaintext = b"".join(
            (_PREFIX.pack(_CODEC_STORED, length), _PIECE.pack(record.id, record.length, number), piece)
        )
        segments.append(Segment(FORM_RUN, plaintext, () if number else (record,)))
    return segments


def decode_body(plaintext: bytes) -> memoryview:
    """The body of an opened segment.

    Raises:
        MalformedError: it does not follow the format.
    """
    if len(plaintext) < _PREFIX.size:
        raise MalformedError("a segment is too short")
    codec, length = _PREFIX.unpack_from(plaintext)
    data = memoryview(plaintext)[_PREFIX.size :]
    if length > fmt.SEGMENT_BODY_BYTES_MAX:
        raise MalformedError("a segment states an impossible length")
    if codec == _CODEC_ZSTD:
        return memoryview(decompress(data, length))
    if codec != _CODEC_STORED or len(data) != length:
        raise MalformedError("a segment has an unknown codec or another length than stated")
    return data


def verify_body(body: memoryview, form: int) -> SolidBody | RunPiece:
    """The body of a segment of that form, with its table checked.

    Raises:
        MalformedError: it does not follow the format.
    """
    if form == FORM_RUN:
        return _decode_piece(body)
    return _decode_solid(body)


def _encode_body(body: bytes, compression: Compression, count: int) -> bytes:
    if compression.is_worthwhile(memoryview(body)):
        frame = compress(body, compression.level if count > _FEW_LARGE_BLOBS else compression.level_large)
        if len(frame) < len(body):
            if decompress(frame, len(body)) != body:
                raise AssertionError("zstd did not give back what it was given")
            return _PREFIX.pack(_CODEC_ZSTD, len(body)) + frame
    return _PREFIX.pack(_CODEC_STORED, len(body)) + body


def _decode_piece(body: memoryview) -> RunPiece:
    if len(body) <= _PIECE.size:
        raise MalformedError("a piece of a blob is too short")
    blob_id, blob_length, number = _PIECE.unpack_from(body)
    data = body[_PIECE.size :]
    if len(data) != min(fmt.RUN_PIECE_BYTES, blob_length - number * fmt.RUN_PIECE_BYTES):
        raise MalformedError("a piece of a blob has the wrong length")
    return RunPiece(BlobId(blob_id), blob_length, number, data)


def _decode_solid(body: memoryview) -> SolidBody:
    count = int.from_bytes(body[:4], "big")
    start = 4 + 4 * count
    if not 0 < count <= fmt.SOLID_BLOBS_MAX or start > len(body):
        raise MalformedError("a segment has an impossible number of blobs")
    lengths = struct.unpack_from(f">{count}I", body, 4)
    ends = list(accumulate(lengths, initial=start))[1:]
    if ends[-1] != len(body):
        raise MalformedError("the blobs of a segment do not fill it")
    return SolidBody(body, start, ends)
