"""Packs: what goes in comes out, what was changed is noticed, nothing repeats, little is wasted."""

from __future__ import annotations

import hashlib
import io
import random
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
import pytest
import zstandard
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import Buffer

from backthen.repository import format as fmt
from backthen.repository.compression import Compression, compress, decompress, looks_compressed
from backthen.repository.crypto import (
    BlobKind,
    ObjectKind,
    PackCipher,
    RepositoryKeys,
    new_pack_cipher,
    open_object,
    open_pack_cipher,
    seal_object,
    sealed,
)
from backthen.repository.errors import (
    DamageError,
    MalformedError,
    NewerFormatError,
    RepositoryError,
    StorageError,
    TamperedError,
)
from backthen.repository.ids import BlobId
from backthen.repository.objects.writer import _Lane
from backthen.repository.packs import (
    BlobRecord,
    BuiltPack,
    PackBuilder,
    PackDirectory,
    RunPiece,
    Segment,
    SolidBody,
    decode_body,
    make_run,
    make_solid,
    open_segment,
    read_pack_directory,
    verify_body,
)
from backthen.repository.packs.builder import BLOB_RECORD, SEGMENT_RECORD, TRAILER
from backthen.repository.packs.segment import FORM_RUN, FORM_SOLID
from tests.support.cipher_record import CipherRecord
from tests.support.fixed_keys import fixed_keys

KEYS = fixed_keys()
SAMPLES = settings(max_examples=25, deadline=None)
VERSION_AT, SCHEME_AT = 4, 6


def _random_bytes(length: int, seed: int = 0) -> bytes:
    return blake3(b"%d" % seed).digest(length)


def _record(kind: BlobKind, data: bytes) -> BlobRecord:
    return BlobRecord(kind, KEYS.blob_id(kind, data), len(data))


def _units(blobs: Sequence[bytes], kind: BlobKind, compression: Compression) -> list[list[Segment]]:
    """Large blobs as runs, small ones in threes as solid segments."""
    small = [blob for blob in blobs if len(blob) <= fmt.RUN_PIECE_BYTES]
    units = [make_run(blob, _record(kind, blob), compression) for blob in blobs if len(blob) > fmt.RUN_PIECE_BYTES]
    for at in range(0, len(small), 3):
        group = small[at : at + 3]
        units.append([make_solid(group, [_record(kind, blob) for blob in group], compression)])
    return units


class _Pack(NamedTuple):
    data: bytes
    built: BuiltPack


def _build(units: Sequence[Sequence[Segment]], pack_class: int = fmt.PACK_CLASS_DATA) -> _Pack:
    file = io.BytesIO()
    builder = PackBuilder(KEYS, pack_class, Path("pack"), file)
    for unit in units:
        builder.add(unit)
    built = builder.finish()
    return _Pack(file.getvalue(), built)


def _directory(data: bytes, keys: RepositoryKeys = KEYS) -> tuple[PackCipher, PackDirectory]:
    cipher = open_pack_cipher(keys, data[: fmt.PACK_HEADER_BYTES])
    return cipher, read_pack_directory(cipher, len(data), lambda offset, length: data[offset : offset + length])


def _read(data: bytes, keys: RepositoryKeys = KEYS) -> dict[bytes, bytes]:
    """All blobs of a pack by id; every part of it is opened."""
    cipher, directory = _directory(data, keys)
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


SIZES = st.one_of(st.integers(0, 5000), st.sampled_from([262_143, 262_144, 262_145, 524_288, 524_289, 2 * fmt.MIB]))


@SAMPLES
@given(
    st.lists(st.tuples(SIZES, st.booleans()), min_size=1, max_size=12),
    st.sampled_from([0, 1, 3]),
    st.sampled_from([BlobKind.CHUNK, BlobKind.PAGE, BlobKind.LIST, BlobKind.XATTR]),
)
def test_blobs_come_out_of_a_pack_as_they_went_in(sizes: list[tuple[int, bool]], level: int, kind: BlobKind) -> None:
    blobs = [
        (b"%d " % number * size)[:size] if compressible else _random_bytes(size, number)
        for number, (size, compressible) in enumerate(sizes)
    ]
    pack_class = fmt.PACK_CLASS_DATA if kind == BlobKind.CHUNK else fmt.PACK_CLASS_TREE
    data, built = _build(_units(blobs, kind, Compression(level)), pack_class)
    found = _read(data)
    assert {KEYS.blob_id(kind, blob): blob for blob in blobs} == found
    assert len(data) == built.length == fmt.padded_pack_length(len(data))
    assert hashlib.sha256(data).digest() == built.indexed.id
    _, directory = _directory(data)
    assert pack_class == directory.pack_class
    assert directory.indexed(built.indexed.id) == built.indexed
    assert {kind} == {record.kind for record in directory.blobs}


@pytest.mark.parametrize("compressible", [True, False])
def test_a_segment_is_compressed_only_when_that_makes_it_smaller(compressible: bool) -> None:
    blob = b"text " * 40_000 if compressible else _random_bytes(200_000)
    segment = make_solid([blob], [_record(BlobKind.CHUNK, blob)], Compression())
    assert (segment.plaintext[0] == 1) is compressible
    assert (len(segment.plaintext) < len(blob)) is compressible
    assert looks_compressed(memoryview(blob)) is not compressible


def test_blobs_side_by_side_compress_together() -> None:
    blobs = [b"the same licence text in every file %d\n" % number * 3 for number in range(100)]
    together = make_solid(blobs, [_record(BlobKind.CHUNK, blob) for blob in blobs], Compression())
    apart = [make_solid([blob], [_record(BlobKind.CHUNK, blob)], Compression()) for blob in blobs]
    assert len(together.plaintext) * 5 < sum(len(segment.plaintext) for segment in apart)


def test_a_run_has_pieces_of_256_kib_and_its_blob_in_the_first() -> None:
    blob = _random_bytes(600_000)
    record = _record(BlobKind.CHUNK, blob)
    segments = make_run(blob, record, Compression())
    assert [(record,), (), ()] == [segment.blobs for segment in segments]
    pieces = [verify_body(decode_body(segment.plaintext), FORM_RUN) for segment in segments]
    assert [262_144, 262_144, 75_712] == [len(piece.data) for piece in pieces if isinstance(piece, RunPiece)]


# What was changed is noticed


def _small_pack() -> bytes:
    blobs = [b"one", b"two" * 30, b""]
    data, _ = _build(_units(blobs, BlobKind.CHUNK, Compression()))
    assert fmt.PACK_BYTES_MIN == len(data)
    return data


def _check_noticed(data: bytes) -> None:
    with pytest.raises((TamperedError, MalformedError)):
        _read(data)


def test_every_flipped_bit_is_noticed() -> None:
    pack = _small_pack()
    for at in range(len(pack)):
        for bit in range(8):
            changed = bytearray(pack)
            changed[at] ^= 1 << bit
            with pytest.raises(RepositoryError) as caught:
                _read(bytes(changed))
            expected = (NewerFormatError, TamperedError) if at in (VERSION_AT, SCHEME_AT) else DamageError
            assert isinstance(caught.value, expected), (at, bit)


def test_every_truncation_is_noticed() -> None:
    pack = _small_pack()
    for length in range(len(pack)):
        _check_noticed(pack[:length])
    _check_noticed(pack + bytes(1))
    _check_noticed(pack + pack)


@SAMPLES
@given(st.data())
def test_flipped_bits_of_a_larger_pack_are_noticed(data: st.DataObject) -> None:
    pack, _ = _build(_units([_random_bytes(300_000), b"text" * 1000], BlobKind.CHUNK, Compression()))
    changed = bytearray(pack)
    at = data.draw(st.integers(0, len(pack) - 1).filter(lambda at: at not in (VERSION_AT, SCHEME_AT)))
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    _check_noticed(bytes(changed))


def _segment_ranges(data: bytes) -> list[slice]:
    ranges, offset = [], fmt.PACK_HEADER_BYTES
    for length in _directory(data)[1].lengths:
        ranges.append(slice(offset, offset + length))
        offset += length
    return ranges


@pytest.mark.parametrize(
    "blobs",
    [[_random_bytes(1 << 20)], [_random_bytes(3000, number) for number in range(9)]],
    ids=["pieces of a run", "solid segments"],
)
def test_segments_that_change_places_are_noticed(blobs: list[bytes]) -> None:
    pack, _ = _build(_units(blobs, BlobKind.CHUNK, Compression()))
    one, two = _segment_ranges(pack)[:2]
    assert pack[one] != pack[two] and one.stop - one.start == two.stop - two.start
    swapped = bytearray(pack)
    swapped[one], swapped[two] = pack[two], pack[one]
    _check_noticed(bytes(swapped))


def test_parts_of_another_pack_are_noticed() -> None:
    """Two packs of the same blobs: neither segments nor directory nor trailer of one are taken in the other."""
    units = _units([_random_bytes(5000, number) for number in range(6)], BlobKind.CHUNK, Compression())
    one, two = _build(units).data, _build(units).data
    assert len(one) == len(two)
    ranges = _segment_ranges(one)
    end = ranges[-1].stop
    trailer = len(one) - fmt.PACK_TRAILER_BYTES
    for part in (*ranges, slice(end, trailer), slice(trailer, len(one)), slice(12, fmt.PACK_HEADER_BYTES)):
        mixed = bytearray(one)
        mixed[part] = two[part]
        assert mixed != one
        _check_noticed(bytes(mixed))


def test_a_pack_of_another_repository_is_noticed() -> None:
    same_keys = RepositoryKeys(fixed_keys(1).repository_id, KEYS.bundle)
    for keys in (fixed_keys(1), same_keys):
        with pytest.raises(TamperedError):
            _read(_small_pack(), keys)


def test_a_directory_is_not_taken_for_a_segment() -> None:
    cipher = new_pack_cipher(KEYS, fmt.PACK_CLASS_DATA, b"")
    part = cipher.seal(0, b"directory", last=True)
    with pytest.raises(TamperedError):
        cipher.open(0, part)
    with pytest.raises(TamperedError):
        cipher.open(1, part, last=True)


def test_the_class_of_a_pack_is_bound() -> None:
    pack = bytearray(_small_pack())
    pack[5] = fmt.PACK_CLASS_TREE
    with pytest.raises(TamperedError):
        _read(bytes(pack))


def test_a_key_generation_that_is_not_there_is_noticed() -> None:
    pack = bytearray(_small_pack())
    pack[11] = 9
    with pytest.raises(TamperedError, match="generation 9"):
        _read(bytes(pack))


# What is authentic but does not follow the format


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
        _directory(_sealed_pack(HOSTILE_DIRECTORIES[what], 1, [segment]))


def test_a_directory_of_fewer_segments_than_the_trailer_says_is_malformed() -> None:
    with pytest.raises(MalformedError):
        _directory(_sealed_pack(_payload(b"", b""), 3))


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
    segment = make_solid([b"a", b"b"], [_record(BlobKind.CHUNK, b"a"), _record(BlobKind.CHUNK, b"b")], Compression())
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


# Nothing repeats, and little is wasted


def test_no_key_and_nonce_seal_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    record = CipherRecord()
    record.watch(monkeypatch)
    units = _units(
        [_random_bytes(1 << 20), *(b"%d" % number * 100 for number in range(30))], BlobKind.CHUNK, Compression()
    )
    assert len({_build(units).data for _ in range(5)}) == 5, "equal blobs, different packs"
    for kind in ObjectKind:
        seal_object(KEYS, kind, b"the same payload")
        seal_object(KEYS, kind, b"the same payload")
    record.check_unique(at_least=5 * (4 + 10 + 2) + 2 * len(ObjectKind))


class _FullDisk(io.BytesIO):
    """A file that takes so many bytes and no more, and later takes more again."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def write(self, data: Buffer, /) -> int:
        view = memoryview(data)
        if len(view) > self.room:
            super().write(view[: self.room])
            self.room = 1 << 40
            raise OSError(28, "No space left on device")
        self.room -= len(view)
        return super().write(view)


def test_a_pack_whose_file_failed_seals_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the number of the segment that failed, which is its nonce, would be used again."""
    record = CipherRecord()
    record.watch(monkeypatch)
    units = _units([_random_bytes(3000, number) for number in range(9)], BlobKind.CHUNK, Compression())
    builder = PackBuilder(KEYS, fmt.PACK_CLASS_DATA, Path("pack"), _FullDisk(12_000))
    builder.add(units[0])
    for unit in units[1:]:
        with pytest.raises(StorageError):
            builder.add(unit)
    with pytest.raises(StorageError):
        builder.finish()
    record.check_unique(at_least=2)


def test_packs_are_filled_to_the_last_percent(tmp_path: Path) -> None:
    """Best fit among a few waiting units; the rest is padding, which nothing outside tells from content."""
    lengths: list[int] = []

    def store(_pack_class: int, built: BuiltPack, file: BinaryIO) -> None:
        file.close()
        built.path.unlink()
        lengths.append(built.length)

    lane = _Lane(KEYS, fmt.PACK_CLASS_DATA, tmp_path, store)
    rng = random.Random(5)
    pool = _random_bytes(1 << 20)
    used = 0
    while len(lengths) < 8:
        pieces = rng.choice([1, 1, 1, 2, 4, 8])
        unit = [
            Segment(FORM_SOLID, pool[: rng.randint(100_000, 300_000 if pieces > 1 else 1 << 20)], ())
            for _ in range(pieces)
        ]
        used += PackBuilder.cost(unit)
        lane.place(unit)
    waiting = sum(cost for cost, _ in lane._ready) + fmt.PACK_BYTES_TARGET - lane._builder().room
    lane.discard()
    assert {fmt.PACK_BYTES_TARGET} == set(lengths), "all of one length: nothing says what is in them"
    assert (sum(lengths) - (used - waiting)) / sum(lengths) < 0.01


def test_a_unit_larger_than_a_pack_is_not_split(tmp_path: Path) -> None:
    """Its pack is longer, and still of a Padmé length."""
    packs: list[BuiltPack] = []

    def store(_pack_class: int, built: BuiltPack, file: BinaryIO) -> None:
        file.close()
        built.path.unlink()
        packs.append(built)

    lane = _Lane(KEYS, fmt.PACK_CLASS_DATA, tmp_path, store)
    pool = _random_bytes(1 << 20)
    lane.place([Segment(FORM_SOLID, pool, ()) for _ in range(33)])
    lane.place([Segment(FORM_SOLID, pool, ())])
    lane.finish()
    assert [33 * 4, 4] == [len(built.indexed.lengths) for built in packs]
    assert packs[0].length == fmt.padme(packs[0].length) > fmt.PACK_BYTES_TARGET
