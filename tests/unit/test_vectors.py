"""`tests/vectors/format-v1.json`: what was written in format 1 is read for ever, and written in the same way today."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from backthen.repository import format as fmt
from backthen.repository.chunking import Cutter
from backthen.repository.crypto import (
    BlobKind,
    ObjectKind,
    RepositoryKeys,
    decode_config,
    decode_slot,
    derive_master,
    normalize_recovery_key,
    object_id,
    open_configuration,
    open_object,
    open_pack_cipher,
    open_slot,
    open_slot_note,
)
from backthen.repository.ids import ObjectId, PackId, RepositoryId
from backthen.repository.model.entry import Entry, EntryType, decode_xattrs, encode_xattrs, unpack_extents
from backthen.repository.model.page import decode_list_page, decode_tree_page
from backthen.repository.model.records import (
    BundledKey,
    Configuration,
    IndexedPack,
    IndexObject,
    LogEntry,
    Mark,
    Root,
    SlotNote,
    decode_record,
    encode_record,
)
from backthen.repository.packs import RunPiece, SolidBody, decode_body, open_segment, read_pack_directory, verify_body
from backthen.repository.packs.segment import FORM_RUN, FORM_SOLID
from tests.vectors import make

VECTORS: dict[str, Any] = json.loads(make.FILE.read_text(encoding="ascii"))
ZSTD_INSIDE = ("unlock", "sealed", "segments", "pack")


def _keys() -> RepositoryKeys:
    bundle = [BundledKey(label, generation, bytes.fromhex(key)) for label, generation, key in VECTORS["bundle"]]
    return RepositoryKeys(RepositoryId(bytes.fromhex(VECTORS["repository_id"])), bundle)


KEYS = _keys()


def _hex(value: str) -> bytes:
    return bytes.fromhex(value)


def _number(value: str) -> int:
    return int(value, 16)


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    """What the script makes today, as it would be read from its file."""
    decoded: dict[str, Any] = json.loads(json.dumps(make.make()))
    return decoded


@pytest.mark.parametrize("part", [part for part in VECTORS if part not in ZSTD_INSIDE])
def test_the_script_makes_the_stored_values(made: dict[str, Any], part: str) -> None:
    assert VECTORS[part] == made[part]


def test_the_script_makes_every_part_and_no_other(made: dict[str, Any]) -> None:
    assert list(VECTORS) == list(made)


def test_the_script_makes_the_same_in_another_process(made: dict[str, Any]) -> None:
    code = "import json\nfrom tests.vectors import make\nprint(json.dumps(make.make()))"
    path = "import sys; sys.path[:0] = " + repr(sys.path) + "\n"
    root = make.FILE.parents[2]
    done = subprocess.run([sys.executable, "-c", path + code], cwd=root, capture_output=True, check=True, timeout=120)
    assert made == json.loads(done.stdout)


def test_padded_lengths() -> None:
    assert [padded for _, padded in VECTORS["padme"]] == [fmt.padme(length) for length, _ in VECTORS["padme"]]


def test_blob_ids() -> None:
    for item in VECTORS["blob_ids"]:
        assert _hex(item["id"]) == KEYS.blob_id(BlobKind[item["kind"].upper()], _hex(item["data"]))


def test_keys_of_the_chunker() -> None:
    assert _number(VECTORS["chunker"]["seed"]) == KEYS.chunker_seed
    assert _hex(VECTORS["chunker"]["prf"]) == KEYS.chunker_prf


def test_page_borders() -> None:
    for item in VECTORS["page_borders"]:
        assert _number(item["prf"]) == KEYS.page_border(item["level"], _hex(item["key"]))


def test_link_groups() -> None:
    for item in VECTORS["link_groups"]:
        assert _hex(item["key"]) == KEYS.link_group(_hex(item["top_path"]), _number(item["inode"]))


def test_inode_numbers() -> None:
    for item in VECTORS["inodes"]:
        assert _number(item["number"]) == KEYS.inode_prf(_hex(item["data"]))


def test_sealing_keys() -> None:
    for item in VECTORS["sealing_keys"]:
        assert _hex(item["key"]) == KEYS.sealing_key(item["kind"], item["generation"], _hex(item["salt"]))


def test_a_recovery_key_has_its_checksum() -> None:
    text = VECTORS["recovery_key"]
    assert text == normalize_recovery_key(text)
    data = base64.b32decode(text.replace("-", ""))
    assert hashlib.sha256(data[:23]).digest()[:2] == data[23:]


def test_a_password_leads_to_the_keys() -> None:
    unlock = VECTORS["unlock"]
    header = decode_config(_hex(unlock["config"]))
    assert KEYS.repository_id == header.repository_id
    master = derive_master(_hex(unlock["password"]), header.kdf)
    assert _hex(unlock["master"]) == master
    slot = decode_slot(header, _hex(unlock["slot"]), name="slot")
    keys = open_slot(header, slot, master)
    assert keys is not None
    assert KEYS.bundle == keys.bundle
    assert decode_record(_hex(unlock["note"]), SlotNote) == open_slot_note(keys, slot)
    expected = decode_record(_hex(unlock["configuration"]), Configuration)
    assert expected == open_configuration(header, keys, _hex(unlock["config"]))


@pytest.mark.parametrize("item", VECTORS["sealed"], ids=lambda item: str(item["kind"]))
def test_sealed_objects_open(item: dict[str, str]) -> None:
    kind = ObjectKind[item["kind"].upper()]
    payload = open_object(KEYS, kind, _hex(item["object"]), name="vector", associated=_hex(item["associated"]))
    assert _hex(item["payload"]) == payload


RECORDS: dict[str, type[msgspec.Struct]] = {"root": Root, "log": LogEntry, "mark": Mark, "index": IndexObject}


@pytest.mark.parametrize("name", RECORDS)
def test_records_are_read_and_written(name: str) -> None:
    data = _hex(VECTORS["records"][name])
    assert data == encode_record(decode_record(data, RECORDS[name]))


@pytest.mark.parametrize("name", RECORDS)
def test_records_with_further_elements_are_read(name: str) -> None:
    """What a later version may add."""
    data = _hex(VECTORS["records"][name])
    longer = msgspec.msgpack.encode([*msgspec.msgpack.decode(data), "new", [1, 2], None])
    assert decode_record(data, RECORDS[name]) == decode_record(longer, RECORDS[name])


def test_entries_are_read_and_written() -> None:
    entries = [decode_record(_hex(data), Entry) for data in VECTORS["records"]["entries"]]
    assert set(EntryType) == {entry.type for entry in entries}
    assert VECTORS["records"]["entries"] == [encode_record(entry).hex() for entry in entries]
    file = next(entry for entry in entries if entry.name == b"file")
    assert [(False, 5), (True, 8192)] == [(extent.is_hole, extent.length) for extent in unpack_extents(file.extents)]


def test_extended_attributes_are_read_and_written() -> None:
    data = _hex(VECTORS["records"]["xattrs"])
    assert data == encode_xattrs(decode_xattrs(data))


@pytest.mark.parametrize("form", ["stored", "compressed"])
def test_solid_segments_open(form: str) -> None:
    body = verify_body(decode_body(_hex(VECTORS["segments"][form])), FORM_SOLID)
    assert isinstance(body, SolidBody)
    assert list(map(_hex, VECTORS["segments"]["blobs"])) == [
        bytes(body.blob(ordinal)) for ordinal in range(len(body.ends))
    ]


def test_runs_open() -> None:
    pieces = [verify_body(decode_body(_hex(data)), FORM_RUN) for data in VECTORS["segments"]["run_of_300000_zeros"]]
    assert bytes(300_000) == b"".join(piece.data for piece in pieces if isinstance(piece, RunPiece))
    assert {KEYS.blob_id(BlobKind.CHUNK, bytes(300_000))} == {
        piece.id for piece in pieces if isinstance(piece, RunPiece)
    }


def test_the_pack_opens() -> None:
    item = VECTORS["pack"]
    data = _hex(item["pack"])
    assert _hex(item["id"]) == object_id(data)
    assert fmt.padded_pack_length(len(data)) == len(data)
    cipher = open_pack_cipher(KEYS, data[: fmt.PACK_HEADER_BYTES])
    directory = read_pack_directory(cipher, len(data), lambda offset, length: data[offset : offset + length])
    assert item["blobs"] == [record.id.hex() for record in directory.blobs]
    indexed = directory.indexed(PackId(ObjectId(_hex(item["id"]))))
    assert decode_record(_hex(item["indexed"]), IndexedPack) == indexed
    offsets = list(itertools.accumulate(directory.lengths, initial=fmt.PACK_HEADER_BYTES))
    bodies = [
        open_segment(cipher, number, data[offsets[number] : offsets[number + 1]], form)
        for number, form in enumerate(directory.forms)
    ]
    assert isinstance(bodies[0], SolidBody)
    assert list(make.SOLID) == [bytes(bodies[0].blob(ordinal)) for ordinal in range(3)]
    assert make.RUN == b"".join(piece.data for piece in bodies[1:])


def test_pages_are_read() -> None:
    (kinds,) = map(_hex, VECTORS["pages"]["each_type"])
    assert set(EntryType) == {entry.type for entry in decode_tree_page(kinds).items if isinstance(entry, Entry)}
    top = decode_tree_page(_hex(VECTORS["pages"]["thousand"]["top"]))
    assert (1, 1000, 499_500) == (top.level, top.count, top.size)
    children = [item.id.hex() for item in top.items if not isinstance(item, Entry)]
    assert VECTORS["pages"]["thousand"]["ids"][:-1] == children
    lists = [decode_list_page(_hex(data)) for data in VECTORS["pages"]["extents"]]
    assert (200, 20_100) == (lists[-1].count, lists[-1].size)


def test_chunks_are_cut_there() -> None:
    stream = io.BytesIO(make.chunked_data())
    lengths = [len(chunk) for chunk in Cutter(KEYS.chunker_seed, KEYS.chunker_prf).cut(stream.readinto)]
    assert VECTORS["chunks"]["cuts"] == list(itertools.accumulate(lengths))
