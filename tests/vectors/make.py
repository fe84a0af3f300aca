"""Makes `format-v1.json`, the values that any other reader of the format can be held against (FORMAT.md, section 14).

    python -m tests.vectors.make

writes the file again. Nothing in it is random: keys are SHA-256 of their labels, salts are counted. Byte strings are
hexadecimal, and so are numbers of 64 bits. Two parts rest on other people's code and may change with its version
without the format having changed: the bytes inside zstd frames (what they hold must not), and where FastCDC proposes
cuts. Whoever makes the file anew looks at what changed and why.

The file of a format version is kept for ever: `tests/unit/test_vectors.py` reads the stored bytes, it does not only
compare.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import msgspec
from blake3 import blake3

from backthen.repository import entropy
from backthen.repository import format as fmt
from backthen.repository.chunking import Cutter
from backthen.repository.compression import Compression
from backthen.repository.crypto import (
    BlobKind,
    ConfigHeader,
    KdfParameters,
    ObjectKind,
    SlotKind,
    derive_master,
    encode_config,
    encode_slot,
    new_recovery_key,
    seal_object,
)
from backthen.repository.ids import ObjectId, PackId, SnapshotId
from backthen.repository.model.entry import HOLE, BlobRef, Entry, EntryType, Extent, encode_xattrs, pack_extents
from backthen.repository.model.page import PageWriter
from backthen.repository.model.records import (
    ChunkerParameters,
    Configuration,
    IndexedPack,
    IndexObject,
    LogEntry,
    LogKind,
    Mark,
    Root,
    SlotNote,
    Statistics,
    encode_record,
)
from backthen.repository.packs import BlobRecord, PackBuilder, make_run, make_solid
from tests.support.fixed_keys import fixed_keys
from tests.support.page_blobs import PageBlobs

FILE = Path(__file__).with_name("format-v1.json")
KEYS = fixed_keys()
PASSWORD = b"correct horse battery staple"
CHUNKED_LENGTH = 8 * fmt.MIB

Value = str | int | list["Value"] | dict[str, "Value"]


def make() -> dict[str, Value]:
    """All vectors, as the file holds them."""
    with _counted_entropy():
        return {
            "format": fmt.FORMAT_VERSION,
            "repository_id": KEYS.repository_id.hex(),
            "bundle": [[item.label, item.generation, item.key.hex()] for item in KEYS.bundle],
            "padme": [
                [length, fmt.padme(length)] for length in (1, 2, 9, 100, 1023, 1025, 10**6, 2**25 - 1, 2**40 + 1)
            ],
            "blob_ids": [_blob_id(kind, data) for kind in BlobKind for data in (b"", b"abc", bytes(range(256)) * 10)],
            "chunker": {"seed": _number(KEYS.chunker_seed), "prf": KEYS.chunker_prf.hex()},
            "page_borders": [_border(level, key) for level in (0, 1) for key in (b"name", b"\xff" * 40)],
            "link_groups": [_group(b"/", 1), _group(b"/home/me", 2**63)],
            "inodes": [{"data": data.hex(), "number": _number(KEYS.inode_prf(data))} for data in (b"", bytes(32))],
            "sealing_keys": [_sealing_key(kind) for kind in (*_object_kinds(), "data pack", "tree pack")],
            "recovery_key": new_recovery_key(),
            "unlock": _unlock(),
            "sealed": [_sealed(kind) for kind in ObjectKind],
            "records": _records(),
            "segments": _segments(),
            "pack": _pack(),
            "pages": _pages(),
            "chunks": _chunks(),
        }


def chunked_data() -> bytes:
    """What `chunks` gives the cuts of: the first 8 MiB of BLAKE3's extended output for a text."""
    return blake3(b"backthen test vector").digest(CHUNKED_LENGTH)


@contextmanager
def _counted_entropy() -> Iterator[None]:
    """Salts and random bytes are SHA-256 of a counter for once."""
    numbers = itertools.count()

    def counted(length: int) -> bytes:
        return hashlib.shake_256(b"entropy %d" % next(numbers)).digest(length)

    with (
        mock.patch.object(entropy, "random_bytes", counted),
        mock.patch.object(entropy, "fresh_salt", lambda content=b"": counted(fmt.SALT_BYTES)),
    ):
        yield


def _number(value: int) -> str:
    return value.to_bytes(8, "big").hex()


def _object_kinds() -> list[str]:
    return [kind.name.lower() for kind in ObjectKind]


def _blob_id(kind: BlobKind, data: bytes) -> Value:
    return {"kind": kind.name.lower(), "data": data.hex(), "id": KEYS.blob_id(kind, data).hex()}


def _border(level: int, key: bytes) -> Value:
    return {"level": level, "key": key.hex(), "prf": _number(KEYS.page_border(level, key))}


def _group(top_path: bytes, inode: int) -> Value:
    return {"top_path": top_path.hex(), "inode": _number(inode), "key": KEYS.link_group(top_path, inode).hex()}


def _sealing_key(kind: str) -> Value:
    salt = hashlib.sha256(kind.encode()).digest()
    return {"kind": kind, "generation": 0, "salt": salt.hex(), "key": KEYS.sealing_key(kind, 0, salt).hex()}


def _unlock() -> Value:
    """From a password to the keys: `config` and a slot."""
    header = ConfigHeader(KEYS.repository_id, KdfParameters.fresh())
    sizes = (fmt.CHUNK_BYTES_MIN, fmt.CHUNK_BYTES_MAX, fmt.CUT_SPREAD_BYTES)
    proposals = (fmt.FASTCDC_BYTES_MIN, fmt.FASTCDC_BYTES_AVERAGE, fmt.FASTCDC_BYTES_MAX)
    configuration = Configuration(1_790_000_000_000_000_000, (), ChunkerParameters(*sizes, *proposals))
    master = derive_master(PASSWORD, header.kdf)
    note = SlotNote(1_790_000_000_000_000_001, "host", "user", "label")
    return {
        "password": PASSWORD.hex(),
        "master": master.hex(),
        "config": encode_config(header, KEYS, configuration).hex(),
        "configuration": encode_record(configuration).hex(),
        "slot": encode_slot(header, KEYS, master, SlotKind.PASSWORD, note).hex(),
        "note": encode_record(note).hex(),
    }


def _sealed(kind: ObjectKind) -> Value:
    payload, associated = b"payload of %d" % kind, b"associated" * kind
    data = seal_object(KEYS, kind, payload, associated)
    return {"kind": kind.name.lower(), "payload": payload.hex(), "associated": associated.hex(), "object": data.hex()}


def _id(name: str) -> ObjectId:
    return ObjectId(hashlib.sha256(name.encode()).digest())


def _entries() -> list[Entry]:
    """One entry of each type, sorted by name."""
    page = BlobRef(KEYS.blob_id(BlobKind.PAGE, b"page"), 4)
    chunk = KEYS.blob_id(BlobKind.CHUNK, b"chunk")
    common = {
        "uid": 1000,
        "gid": 100,
        "user": "me",
        "group": "users",
        "mtime_ns": -1,
        "ctime_ns": 1_790_000_000_123_456_789,
    }
    file = Entry(
        b"file", EntryType.FILE, 0o4755, size=8197, extents=pack_extents([Extent(chunk, 5), Extent(HOLE, 8192)])
    )
    return [
        msgspec.structs.replace(entry, **common)
        for entry in (
            Entry(b"block", EntryType.BLOCK_DEVICE, 0o660, device_major=8, device_minor=1),
            Entry(b"character", EntryType.CHARACTER_DEVICE, 0o666, device_major=1, device_minor=3),
            Entry(
                b"directory", EntryType.DIRECTORY, 0o1777, size=7, below=2, page=page, xattrs=((b"user.a", b"\0\xff"),)
            ),
            Entry(b"fifo", EntryType.FIFO, 0o600),
            msgspec.structs.replace(file, allocated=5),
            Entry(b"link name", EntryType.LINK_NAME, link_group=KEYS.link_group(b"/", 7)),
            Entry(b"list", EntryType.FILE, 0o644, size=10**10, page=page, allocated=10**10, xattr_blob=page),
            Entry(b"socket", EntryType.SOCKET, 0o700),
            Entry(b"symlink", EntryType.SYMLINK, 0o777, size=6, target=b"target"),
            Entry(b"unknown \xff", EntryType.UNKNOWN, error="Permission denied"),
        )
    ]


def _records() -> Value:
    top = Entry(b"", EntryType.DIRECTORY, 0o755, below=9, size=5, page=BlobRef(KEYS.blob_id(BlobKind.PAGE, b"top"), 3))
    parents = (SnapshotId(_id("parent")),)
    statistics = Statistics(*range(10))
    paths = (b"/a", b"/b\xff")
    root = Root(
        bytes(range(32)),
        1,
        2,
        "host",
        "user",
        paths,
        ("tag",),
        top,
        None,
        0,
        parents,
        False,
        "backthen 1",
        ("*.o",),
        statistics,
    )
    indexed = IndexedPack(PackId(_id("pack")), b"\0\0\x01\0", b"\0\0\0\2", bytes(range(32)))
    records: dict[str, msgspec.Struct] = {
        "root": root,
        "log": LogEntry(LogKind.COMMIT, SnapshotId(_id("root")), (_id("head"),), bytes(range(16)), 3, 4),
        "mark": Mark((PackId(_id("pack")),), (SnapshotId(_id("abandoned")),), ()),
        "index": IndexObject(fmt.PACK_CLASS_DATA, (indexed,)),
    }
    encoded: dict[str, Value] = {name: encode_record(record).hex() for name, record in records.items()}
    xattrs = ((b"user.a", b"1"), (b"user.b", b""))
    return encoded | {
        "entries": [encode_record(entry).hex() for entry in _entries()],
        "xattrs": encode_xattrs(xattrs).hex(),
    }


def _record(kind: BlobKind, data: bytes) -> BlobRecord:
    return BlobRecord(kind, KEYS.blob_id(kind, data), len(data))


SOLID = (b"first", b"", b"text " * 100)
RUN = bytes(300_000)


def _segments() -> Value:
    solid = make_solid(SOLID, [_record(BlobKind.CHUNK, blob) for blob in SOLID], Compression(0))
    compressed = make_solid(SOLID, [_record(BlobKind.CHUNK, blob) for blob in SOLID], Compression())
    run = make_run(RUN, _record(BlobKind.CHUNK, RUN))
    return {
        "blobs": [blob.hex() for blob in SOLID],
        "stored": solid.plaintext.hex(),
        "compressed": compressed.plaintext.hex(),
        "run_of_300000_zeros": [segment.plaintext.hex() for segment in run],
    }


def _pack() -> Value:
    file = io.BytesIO()
    builder = PackBuilder(KEYS, fmt.PACK_CLASS_DATA, FILE, file)
    builder.add([make_solid(SOLID, [_record(BlobKind.CHUNK, blob) for blob in SOLID], Compression())])
    builder.add(make_run(RUN, _record(BlobKind.CHUNK, RUN)))
    built = builder.finish()
    return {
        "pack": file.getvalue().hex(),
        "id": built.indexed.id.hex(),
        "indexed": encode_record(built.indexed).hex(),
        "blobs": [KEYS.blob_id(BlobKind.CHUNK, blob).hex() for blob in (*SOLID, RUN)],
    }


def _pages() -> Value:
    """A directory with one entry of each type, a folder of 1,000 files, and a file of 200 extents."""
    kinds, folder, extents = PageBlobs(KEYS), PageBlobs(KEYS), PageBlobs(KEYS)
    one, many, long = (PageWriter(blobs.put, KEYS.page_border) for blobs in (kinds, folder, extents))
    for entry in _entries():
        one.add(entry, entry.name, count=1 + entry.below, size=entry.size)
    for number in range(1000):
        entry = Entry(b"%04d" % number, EntryType.FILE, 0o644, size=number)
        many.add(entry, entry.name, count=1, size=entry.size)
    for number in range(200):
        extent = Extent(KEYS.blob_id(BlobKind.CHUNK, b"%d" % number), 1 + number)
        long.add(extent, extent.id, count=1, size=extent.length)
    tops = [writer.finish() for writer in (one, many, long)]
    assert all(top.page is not None for top in tops)
    return {
        "each_type": [data.hex() for data in kinds.pages.values()],
        "thousand": {"ids": [id_.hex() for id_ in folder.pages], "top": list(folder.pages.values())[-1].hex()},
        "extents": [data.hex() for data in extents.pages.values()],
    }


def _chunks() -> Value:
    stream = io.BytesIO(chunked_data())
    lengths = [len(chunk) for chunk in Cutter(KEYS.chunker_seed, KEYS.chunker_prf).cut(stream.readinto)]
    return {"length": CHUNKED_LENGTH, "cuts": list(itertools.accumulate(lengths))}


if __name__ == "__main__":
    FILE.write_text(json.dumps(make(), indent=1) + "\n", encoding="ascii")
