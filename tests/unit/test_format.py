"""`repository/FORMAT.md` says what the code does: its numbers, tables and labels, one by one."""

from __future__ import annotations

import enum
import re
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from backthen.repository import format as fmt
from backthen.repository.crypto import (
    BlobKind,
    ConfigHeader,
    KdfParameters,
    ObjectKind,
    SlotKind,
    decode_slot,
    encode_config,
    encode_slot,
    new_bundle,
    new_pack_cipher,
    new_recovery_key,
    seal_object,
)
from backthen.repository.ids import ObjectId, PackId, SnapshotId
from backthen.repository.model.entry import Entry, EntryType, Extent, pack_extents
from backthen.repository.model.page import Child
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
)
from backthen.repository.packs.builder import BLOB_RECORD, SEGMENT_RECORD, TRAILER
from backthen.repository.packs.segment import FORM_RUN, FORM_SOLID
from backthen.repository.storage import index_name, key_name, log_name, mark_name, pack_name, root_name
from tests.support.fixed_keys import fixed_keys

PAGE = (Path(__file__).parents[2] / "repository" / "FORMAT.md").read_text(encoding="utf-8")
UNITS = {"": 1, "KiB": fmt.KIB, "MiB": fmt.MIB, "GiB": 1024 * fmt.MIB}
WORDS = {"eight": 8, "five": 5}
MASTER = bytes(range(32))


def _quantity(text: str) -> int:
    if text in WORDS:
        return WORDS[text]
    number, _, unit = text.partition(" ")
    return int(number.replace(",", "")) * UNITS[unit]


def _pattern(sentence: str) -> re.Pattern[str]:
    """A sentence of the page; `#` stands for a quantity, any white space for any other."""
    quantity = r"((?:[\d,]*\d|eight|five)(?: [KMG]iB)?)"
    return re.compile(re.sub(r"\\?\s+", r"\\s+", re.escape(sentence)).replace(r"\#", quantity))


NUMBERS: dict[str, tuple[int, ...]] = {
    "The floor is # bytes for every object but packs, and # bytes for packs": (
        fmt.OBJECT_BYTES_MIN,
        fmt.PACK_BYTES_MIN,
    ),
    "# ≤ memory ≤ #,": (fmt.KDF_MEMORY_KIB_MIN * fmt.KIB, fmt.KDF_MEMORY_KIB_MAX * fmt.KIB),
    "# ≤ passes ≤ #,": (fmt.KDF_PASSES_MIN, fmt.KDF_PASSES_MAX),
    "# ≤ lanes ≤ #,": (fmt.KDF_LANES_MIN, fmt.KDF_LANES_MAX),
    "salt of # bytes.": (fmt.SALT_BYTES,),
    "New repositories use #, # passes, # lanes": (
        fmt.KDF_MEMORY_KIB_MIN * fmt.KIB,
        fmt.KDF_PASSES_MIN,
        fmt.KDF_LANES_MAX,
    ),
    "outputs are # bytes": (fmt.KEY_BYTES,),
    "`[#, #, #, #, #, #]`": (
        fmt.CHUNK_BYTES_MIN,
        fmt.CHUNK_BYTES_MAX,
        fmt.CUT_SPREAD_BYTES,
        16,
        32,
        fmt.FASTCDC_BYTES_MAX,
    ),
    "states its content size (at most #)": (fmt.PAYLOAD_BYTES_MAX,),
    "with its tag (# bytes) appended": (fmt.TAG_BYTES,),
    "**Trailer**, the last # bytes": (fmt.PACK_TRAILER_BYTES,),
    "A segment takes # bytes": (SEGMENT_RECORD.size,),
    "number of blobs that begin in it (4, at most #)": (fmt.SEGMENT_BLOBS_MAX,),
    "A blob takes #:": (BLOB_RECORD.size,),
    "The first segment begins at offset #,": (fmt.PACK_HEADER_BYTES,),
    "length of the body (4, at most #)": (fmt.SEGMENT_BODY_BYTES_MAX,),
    "At most # of blobs and # of them": (fmt.SOLID_BYTES_MAX, fmt.SOLID_BLOBS_MAX),
    "A blob over # is a run of pieces of #,": (fmt.RUN_PIECE_BYTES, fmt.RUN_PIECE_BYTES),
    "A pack aims at exactly #": (fmt.PACK_BYTES_TARGET,),
    "over the plaintext, # bytes. Sizes": (fmt.ID_BYTES,),
    "the first # bytes of each blob's id in order": (fmt.ID_PREFIX_BYTES,),
    "A file of up to # is one chunk": (fmt.CHUNK_BYTES_MIN,),
    "minimum #, average #, maximum #,": (fmt.FASTCDC_BYTES_MIN, fmt.FASTCDC_BYTES_AVERAGE, fmt.FASTCDC_BYTES_MAX),
    "over the # bytes before `p`": (fmt.CUT_WINDOW_BYTES,),
    "`d[0:8] mod # = 0`": (fmt.CUT_ONE_IN,),
    "`p + (d[8:16] mod #)`": (fmt.CUT_SPREAD_BYTES,),
    "less than # after the last cut is skipped": (fmt.CHUNK_BYTES_MIN,),
    "more than # after the last, one is forced at #": (fmt.CHUNK_BYTES_MAX, fmt.CHUNK_BYTES_MAX),
    "when it has # items or more and": (fmt.PAGE_ITEMS_MIN,),
    "`PRF < 2^64 / #`": (fmt.PAGE_BORDER_ONE_IN,),
    "after # items, or when its items reach #": (fmt.PAGE_ITEMS_MAX, fmt.PAGE_ITEM_BYTES_MAX),
    "(a hole: # zero bytes)": (fmt.ID_BYTES,),
    "at most # levels": (fmt.PAGE_LEVELS_MAX,),
    "no NUL, and have at most # bytes": (fmt.NAME_BYTES_MAX,),
    "file with up to # extents: # bytes each": (fmt.INLINE_EXTENTS_MAX, 40),
    "file with more than # extents": (fmt.INLINE_EXTENTS_MAX,),
    "if they have at most # in all": (fmt.INLINE_XATTR_BYTES_MAX,),
    "Group key: first # bytes": (fmt.GROUP_KEY_BYTES,),
}


@pytest.mark.parametrize("sentence", NUMBERS)
def test_each_number_of_the_page_is_the_constant(sentence: str) -> None:
    found = _pattern(sentence).findall(PAGE)
    assert 1 == len(found), "the sentence stands on the page once"
    numbers = found[0] if isinstance(found[0], tuple) else found
    assert NUMBERS[sentence] == tuple(map(_quantity, numbers))


def _numbered(text: str) -> dict[str, int]:
    """`0 file, 1 directory` as names with their numbers; what stands in brackets is left out."""
    parts = re.sub(r"\([^)]*\)", "", text).split(",")
    found = [re.match(r"\s*(\d+) ([a-z A-Z]+?)\s*$", part) for part in parts]
    return {match[2].upper().replace(" ", "_"): int(match[1]) for match in found if match}


def _members(kind: type[enum.IntEnum]) -> dict[str, int]:
    return {member.name: member.value for member in kind}


def _find(pattern: str) -> str:
    found = re.findall(pattern, PAGE)
    assert 1 == len(found)
    return str(found[0])


def test_the_kinds_of_everything_are_those_of_the_page() -> None:
    assert _members(ObjectKind) == _numbered(_find(r"\| kind: (.*) \|"))
    assert _members(SlotKind) == _numbered(_find(r"\| slot kind: (.*) \|"))
    assert _members(BlobKind) == _numbered(_find(r"A blob takes 37: kind \(1: (.*?)\)"))
    assert {"SOLID": FORM_SOLID, "RUN": FORM_RUN} == _numbered(_find(r"form \(1: (.*?)\)"))
    classes = {"DATA": fmt.PACK_CLASS_DATA, "TREE": fmt.PACK_CLASS_TREE}
    text = _find(r"\| class: (.*) \|")
    assert classes == _numbered(re.sub(r"\([^)]*\)", "", text))


def test_the_types_of_entries_are_those_of_the_page() -> None:
    found = _numbered(_find(r"\| type \| int \| (.*) \|").replace("name of a link group", "link name"))
    assert _members(EntryType) == found


def test_the_kinds_of_log_entries_are_those_of_the_page() -> None:
    rows = re.findall(r"^\| (\d) (\w+) \|", _section("10"), re.MULTILINE)
    assert _members(LogKind) == {name.upper(): int(number) for number, name in rows}


def _section(number: str) -> str:
    found = re.search(rf"^##+ {re.escape(number)}\.? (.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    return found[0]


def _elements(section: str) -> list[str]:
    """The first column of a section's table of elements."""
    rows = re.findall(r"^\| (.*?) \|", _section(section), re.MULTILINE)
    return [name.strip() for row in rows[1:] if row != "---" for name in row.split(",")]


def _fields(kind: type[msgspec.Struct]) -> list[str]:
    return [name.removesuffix("_ns").replace("_", " ") for name in kind.__struct_fields__]


def test_the_elements_of_an_entry_are_those_of_the_page_in_order() -> None:
    fields = [name for name in _fields(Entry) if name != "device minor"]
    assert [name.replace("device major", "device") for name in fields] == _elements("8.2")


def test_the_elements_of_a_root_are_those_of_the_page_in_order() -> None:
    assert _fields(Root) == _elements("9")
    statistics = _find(r"\| statistics \| list of int \| (.*) \|")
    assert len(Statistics.__struct_fields__) == len(statistics.split(","))


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (LogEntry, _find(r"Payload: `\[(kind, root, .*?)\]`")),
        (Mark, _find(r"Payload: `\[(packs, abandoned roots, .*?)\]`")),
        (IndexObject, _find(r"Payload `\[(class, packs)\]`").replace("class", "pack class")),
        (IndexedPack, _find(r"a pack is `\[(pack id, .*?)\]`").replace("pack id", "id").replace("ids", "prefixes")),
        (Configuration, _find(r"Its payload: `\[(created, .*?)\]`")),
        (SlotNote, _find(r"followed by bytes 0 to 136: `\[(created, .*?)\]`")),
        (
            Child,
            _find(r"`\[(first key, page id, .*?)\]`").replace("first key, page id, page length", "first, id, length"),
        ),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_the_elements_of_a_record_are_those_of_the_page_in_order(kind: type[msgspec.Struct], names: str) -> None:
    assert names.split(", ") == _fields(kind)


def test_the_names_of_objects_are_those_of_the_page() -> None:
    sha, root = ObjectId(bytes(range(32))), SnapshotId(ObjectId(bytes(32)))
    built = {
        key_name(sha),
        pack_name(PackId(sha)),
        index_name(sha),
        root_name(SnapshotId(sha)),
        log_name(root, sha),
        mark_name(sha),
        "config",
    }
    said = {
        name.replace("<first two digits>", sha.hex()[:2])
        .replace("<sha256>", sha.hex())
        .replace("<root id>", root.hex())
        for name in re.findall(r"^    ((?:config|\w+/).*?)  ", _section("2"), re.MULTILINE)
    }
    assert said == built


def _offsets(section: str) -> dict[int, int]:
    """Offset to length of each row of the section's table of bytes that has a fixed length."""
    rows = re.findall(r"^\| (\d+) \| (\d+) \|", _section(section), re.MULTILINE)
    return {int(offset): int(length) for offset, length in rows}


@pytest.mark.parametrize(("section", "size"), [("3.1", 84), ("3.2", 140), ("4", 44), ("5", fmt.PACK_HEADER_BYTES)])
def test_tables_of_bytes_have_no_gaps(section: str, size: int) -> None:
    end = 0
    for offset, length in _offsets(section).items():
        assert end == offset
        end += length
    assert size == end


def _config() -> tuple[ConfigHeader, bytes]:
    keys = fixed_keys()
    header = ConfigHeader(keys.repository_id, KdfParameters(bytes(range(100, 132)), fmt.KDF_MEMORY_KIB_MIN, 5, 3))
    chunker = ChunkerParameters(*NUMBERS["`[#, #, #, #, #, #]`"])
    return header, encode_config(header, keys, Configuration(7, (), chunker))


def test_config_has_its_fields_where_the_page_says() -> None:
    header, data = _config()
    assert b"BKTN\x01\x01\0\0" == data[:8]
    assert header.repository_id == data[8:40]
    assert header.kdf.salt == data[40:72]
    assert [fmt.KDF_MEMORY_KIB_MIN, 5, 3] == [int.from_bytes(data[at : at + 4], "big") for at in (72, 76, 80)]
    assert b"BKTN\x01\x01\0\0" == data[84:92]
    assert len(data) == fmt.padme(len(data)) >= fmt.OBJECT_BYTES_MIN


def test_a_slot_has_its_fields_where_the_page_says() -> None:
    header, config = _config()
    keys = fixed_keys()
    data = encode_slot(header, keys, MASTER, SlotKind.RECOVERY_KEY, SlotNote(1, "host", "user", "label"))
    assert b"BKTN\x01\x02\x02\0" == data[:8]
    assert keys.repository_id == data[8:40]
    assert _sha256(config[:84]) == data[40:72]
    assert _hkdf(MASTER, data[72:104], b"backthen v1 slot commitment") == data[104:136]
    size = int.from_bytes(data[136:140], "big")
    cipher = AESGCM(_hkdf(MASTER, data[72:104], b"backthen v1 slot key"))
    bundle = msgspec.msgpack.decode(cipher.decrypt(bytes(12), data[140 : 140 + size], data[:136]))
    assert [[item.label, item.generation, item.key] for item in keys.bundle] == bundle
    assert b"BKTN\x01\x02\0\0" == data[140 + size : 148 + size]
    assert len(data) == fmt.padme(len(data)) >= fmt.OBJECT_BYTES_MIN
    assert data[72:104] == decode_slot(header, data, name="slot").salt


def _sha256(data: bytes) -> bytes:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    return digest.finalize()


def _hkdf(key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt, info).derive(key)


def test_a_sealed_object_is_what_the_page_says() -> None:
    keys = fixed_keys()
    data = seal_object(keys, ObjectKind.MARK, b"payload", b"associated")
    assert b"BKTN\x01\x06\0\0" + bytes(4) == data[:12]
    seal = next(item.key for item in keys.bundle if item.label == "seal")
    key = _hkdf(seal, data[12:44], b"backthen v1 seal mark\0" + keys.repository_id)
    plaintext = AESGCM(key).decrypt(bytes(12), data[44:], data[:44] + keys.repository_id + b"associated")
    size = int.from_bytes(plaintext[:4], "big")
    assert b"\x28\xb5\x2f\xfd" == plaintext[4:8], "a zstd frame"
    assert bytes(len(plaintext) - 4 - size) == plaintext[4 + size :]
    assert fmt.OBJECT_BYTES_MIN == len(data)


def test_a_part_of_a_pack_is_sealed_as_the_page_says() -> None:
    keys = fixed_keys()
    cipher = new_pack_cipher(keys, fmt.PACK_CLASS_TREE, b"content")
    header = cipher.header
    assert b"BKTP\x01\x02\0\0" + bytes(4) == header[:12]
    assert fmt.PACK_HEADER_BYTES == len(header)
    seal = next(item.key for item in keys.bundle if item.label == "seal")
    own = AESGCM(_hkdf(seal, header[12:44], b"backthen v1 seal tree pack\0" + keys.repository_id))

    def opened(sealed: bytes, number: int, last: int) -> bytes:
        associated = header + keys.repository_id + number.to_bytes(8, "big") + bytes((last,))
        return own.decrypt(number.to_bytes(12, "big"), sealed, associated)

    assert b"segment" == opened(cipher.seal(3, b"segment"), 3, 0)
    assert b"directory" == opened(cipher.seal(4, b"directory", last=True), 4, 1)
    trailer = cipher.seal_trailer(TRAILER.pack(1, 2))
    assert TRAILER.pack(1, 2) == opened(trailer, 2**64 - 1, 0)
    assert fmt.PACK_TRAILER_BYTES == len(trailer)


def test_the_labels_of_the_bundle_are_those_of_the_page() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (?:never|yes) \|", _section("3"), re.MULTILINE)
    assert rows == [item.label for item in new_bundle()]


def test_the_kinds_that_seal_are_those_of_the_page() -> None:
    said = re.findall(r"`([a-z ]+)`", _find(r"the key of one object of kind (.*) \|"))
    assert {kind.name.lower() for kind in ObjectKind} | {"data pack", "tree pack"} == set(said)


def test_the_other_keys_are_derived_as_the_page_says() -> None:
    keys = fixed_keys()
    own = {item.label: item.key for item in keys.bundle}

    def derived(label: str, name: str) -> bytes:
        assert f"`backthen v1 {re.sub('^blob id .*', 'blob id KIND', name)}`" in PAGE
        return blake3(own[label], derive_key_context=f"backthen v1 {name}").digest()

    for kind, name in (
        (BlobKind.CHUNK, "chunk"),
        (BlobKind.PAGE, "page"),
        (BlobKind.LIST, "list"),
        (BlobKind.XATTR, "xattr"),
    ):
        assert blake3(b"data", key=derived("blob", f"blob id {name}")).digest() == keys.blob_id(kind, b"data")
    assert int.from_bytes(derived("chunker", "chunker seed")[:8], "big") % 2**63 == keys.chunker_seed
    assert derived("chunker", "chunker prf") == keys.chunker_prf
    border = blake3(b"\x02name", key=derived("tree", "page border")).digest(8)
    assert int.from_bytes(border, "big") == keys.page_border(2, b"name")
    group = blake3(b"/mnt\0" + (77).to_bytes(8, "big"), key=derived("tree", "link group")).digest(16)
    assert group == keys.link_group(b"/mnt", 77)
    inode = blake3(b"id", key=derived("mount", "inode")).digest(8)
    assert int.from_bytes(inode, "big") == keys.inode_prf(b"id")


def test_extents_are_packed_as_the_page_says() -> None:
    id_ = fixed_keys().blob_id(BlobKind.CHUNK, b"x")
    assert id_ + (5).to_bytes(8, "big") == pack_extents([Extent(id_, 5)])


def test_a_recovery_key_looks_as_the_page_says() -> None:
    assert re.fullmatch(r"(?:[A-Z2-7]{5}-){7}[A-Z2-7]{5}", new_recovery_key())
    assert "47 characters" in PAGE
    assert 47 == len(new_recovery_key())


LENGTHS = st.integers(0, 1 << 45)


@given(LENGTHS)
def test_padding_never_shortens_and_costs_at_most_an_eighth(length: int) -> None:
    assert length <= fmt.padme(length) <= length * 1.12


@given(LENGTHS, LENGTHS)
def test_padding_keeps_the_order(one: int, other: int) -> None:
    assert (one <= other) == (fmt.padme(one) <= fmt.padme(other)) or fmt.padme(one) == fmt.padme(other)


@given(LENGTHS)
def test_padding_what_is_padded_changes_nothing(length: int) -> None:
    assert fmt.padme(length) == fmt.padme(fmt.padme(length))


@given(LENGTHS.filter(lambda length: length > 1))
def test_padding_follows_the_formula_of_the_page(length: int) -> None:
    exponent = length.bit_length() - 1
    step = 2 ** (exponent - exponent.bit_length())
    assert -(-length // step) * step == fmt.padme(length)


@pytest.mark.parametrize(("length", "padded"), [(0, 1024), (1024, 1024), (1025, 1088), (10**6, 1015808)])
def test_objects_have_a_floor(length: int, padded: int) -> None:
    assert padded == fmt.padded_object_length(length)


def test_packs_have_a_lower_floor_and_a_target_that_needs_no_padding() -> None:
    assert fmt.PACK_BYTES_MIN == fmt.padded_pack_length(1)
    assert fmt.PACK_BYTES_TARGET == fmt.padded_pack_length(fmt.PACK_BYTES_TARGET)
