"""Packs by somebody who has the keys and does not keep to the format: malformed, before much memory is taken."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from backthen.repository import format as fmt
from backthen.repository.compression import Compression, compress, decompress
from backthen.repository.crypto import (
    BlobKind,
    ObjectKind,
    new_pack_cipher,
    open_object,
    seal_object,
    sealed,
)
from backthen.repository.errors import (
    MalformedError,
)
from backthen.repository.ids import BlobId
from backthen.repository.packs import (
    RunPiece,
    SolidBody,
    decode_body,
    make_solid,
    verify_body,
)
from backthen.repository.packs.builder import BLOB_RECORD, SEGMENT_RECORD, TRAILER
from backthen.repository.packs.segment import FORM_RUN, FORM_SOLID
from tests.support.built_packs import blob_record, open_directory
from tests.support.fixed_keys import fixed_keys

KEYS = fixed_keys()


def _sealed_pack(directory: bytes, count: int, segments: Sequence[bytes] = ()) -> bytes:
    """A pack made by somebody who has the keys and does not keep to the format."""
    cipher = new_pack_cipher(KEYS, fmt.PACK_CLASS_DATA, b"")
    parts = [cipher.seal(number, segment) for number, segment in enumerate(segments)]
    last = cipher.seal(count, directory, last=True)
    return b"".join((cipher.header, *parts, last, cipher.seal_trailer(TRAILER.pack(count, len(last)))))


def _payload(segments: bytes, blobs: bytes) -> bytes:
    payload = msgspec.msgpack.encode((segments, blobs))
    return len(payload).to_bytes(4, "big") + payload


ID = BlobId(b"i" * 32)
HOSTILE_DIRECTORIES = {
    "empty": b"",
    "short": b"\0\0",
    "longer than it is": b"\xff\xff\xff\xff\x92",
    "nothing but nesting": (100_000).to_bytes(4, "big") + b"\x91" * 100_000,
    "broken segments": _payload(b"123", b""),
    "broken blobs": _payload(b"", b"123"),
    "segments beyond the pack": _payload(SEGMENT_RECORD.pack(1 << 31, 0, 0), b""),
    "more blobs than there are": _payload(SEGMENT_RECORD.pack(100, 2, 0), BLOB_RECORD.pack(1, ID, 3)),
    "fewer blobs than there are": _payload(SEGMENT_RECORD.pack(100, 0, 0), BLOB_RECORD.pack(1, ID, 3)),
    "unknown form": _payload(SEGMENT_RECORD.pack(100, 0, 2), b""),
    "unknown kind of blob": _payload(SEGMENT_RECORD.pack(100, 1, 0), BLOB_RECORD.pack(9, ID, 3)),
    "more blobs than an ordinal can count": _payload(
        SEGMENT_RECORD.pack(100, 65_536, 0), BLOB_RECORD.pack(1, ID, 3) * 65_536
    ),
}


@pytest.mark.parametrize("what", HOSTILE_DIRECTORIES)
def test_a_hostile_directory_is_malformed(what: str) -> None:
    segment = bytes(100 - fmt.TAG_BYTES)
    with pytest.raises(MalformedError):
        open_directory(_sealed_pack(HOSTILE_DIRECTORIES[what], 1, [segment]))


def test_a_directory_of_fewer_segments_than_the_trailer_says_is_malformed() -> None:
    with pytest.raises(MalformedError):
        open_directory(_sealed_pack(_payload(b"", b""), 3))


def _body(codec: int, length: int, data: bytes) -> bytes:
    return struct.pack(">BI", codec, length) + data


def _frame_stating(length: int) -> bytes:
    """A zstd frame header that promises so many bytes, and one empty last block (RFC 8878, section 3.1.1)."""
    return b"\x28\xb5\x2f\xfd\xe0" + length.to_bytes(8, "little") + b"\x01\x00\x00"


ZEROS = bytes(1 << 20)
BOMBS = {
    "more than a segment may hold": _body(
        1, fmt.SEGMENT_BODY_BYTES_MAX + 1, compress(bytes(fmt.SEGMENT_BODY_BYTES_MAX + 1), 1)
    ),
    "more than it states": _body(1, 100, compress(ZEROS, 1)),
    "less than it states": _body(1, len(ZEROS), compress(bytes(100), 1)),
    "a frame that promises a terabyte": _body(1, 100, _frame_stating(1 << 40)),
    "a frame that promises what it has not": _body(1, 1 << 20, _frame_stating(1 << 20)),
    "a frame without its size": _body(
        1, len(ZEROS), zstandard.ZstdCompressor(write_content_size=False).compress(ZEROS)
    ),
    "two frames": _body(1, 3, compress(b"abc", 1) + compress(b"abc", 1)),
    "bytes after the frame": _body(1, 3, compress(b"abc", 1) + b"x"),
    "a cut frame": _body(1, len(ZEROS), compress(ZEROS, 1)[:-3]),
    "no frame": _body(1, 3, b"abc"),
    "nothing": b"",
    "no body": b"\x00\x00\x00\x00",
    "an unknown codec": _body(2, 3, b"abc"),
    "stored, of another length": _body(0, 4, b"abc"),
    "stored, too long": _body(0, fmt.SEGMENT_BODY_BYTES_MAX + 1, bytes(fmt.SEGMENT_BODY_BYTES_MAX + 1)),
}


@pytest.mark.parametrize("what", BOMBS)
def test_a_hostile_segment_is_malformed(what: str) -> None:
    with pytest.raises(MalformedError):
        decode_body(BOMBS[what])


HOSTILE_BODIES = {
    "no table": (FORM_SOLID, b"\0\0"),
    "no blobs": (FORM_SOLID, bytes(4)),
    "more blobs than allowed": (FORM_SOLID, struct.pack(">I", 16_385) + bytes(4 * 16_385)),
    "table longer than the body": (FORM_SOLID, struct.pack(">II", 2, 0)),
    "blobs longer than the body": (FORM_SOLID, struct.pack(">II", 1, 5) + b"1234"),
    "blobs shorter than the body": (FORM_SOLID, struct.pack(">II", 1, 3) + b"1234"),
    "no piece": (FORM_RUN, b""),
    "empty piece": (FORM_RUN, struct.pack(">32sII", ID, 300_000, 0)),
    "short piece": (FORM_RUN, struct.pack(">32sII", ID, 300_000, 0) + bytes(100)),
    "piece beyond its blob": (FORM_RUN, struct.pack(">32sII", ID, 300_000, 5) + bytes(100)),
    "piece beyond everything": (FORM_RUN, struct.pack(">32sII", ID, 300_000, (1 << 32) - 1) + bytes(100)),
}


@pytest.mark.parametrize("what", HOSTILE_BODIES)
def test_a_hostile_body_is_malformed(what: str) -> None:
    form, body = HOSTILE_BODIES[what]
    with pytest.raises(MalformedError):
        verify_body(memoryview(body), form)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=120), st.sampled_from([FORM_SOLID, FORM_RUN]))
def test_random_segments_are_malformed_or_sound(plaintext: bytes, form: int) -> None:
    for codec in (b"", b"\0" + (len(plaintext)).to_bytes(4, "big")):
        try:
            body = verify_body(decode_body(codec + plaintext), form)
        except MalformedError:
            continue
        assert isinstance(body, RunPiece) or sum(map(len, map(body.blob, range(len(body.ends))))) <= len(plaintext)


@pytest.mark.parametrize("ordinal", [-1, 2, 65_535])
def test_a_blob_that_a_segment_does_not_hold_is_malformed(ordinal: int) -> None:
    segment = make_solid(
        [b"a", b"b"], [blob_record(BlobKind.CHUNK, b"a"), blob_record(BlobKind.CHUNK, b"b")], Compression()
    )
    body = verify_body(decode_body(segment.plaintext), FORM_SOLID)
    assert isinstance(body, SolidBody)
    with pytest.raises(MalformedError):
        body.blob(ordinal)


@pytest.mark.parametrize("length", [fmt.PAYLOAD_BYTES_MAX + 1, 1 << 60])
def test_a_payload_that_promises_too_much_is_refused(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "compress_payload", lambda _: _frame_stating(length))
    data = seal_object(KEYS, ObjectKind.INDEX, b"")
    with pytest.raises(MalformedError, match="index/name"):
        open_object(KEYS, ObjectKind.INDEX, data, name="index/name")


@given(st.binary(max_size=3000), st.integers(1, 9))
def test_frames_come_back(data: bytes, level: int) -> None:
    assert data == decompress(compress(data, level), len(data))
