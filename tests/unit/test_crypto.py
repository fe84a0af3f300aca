"""Keys, sealed objects and key slots: what was changed, moved or guessed never opens, and nothing secret is shown."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from hypothesis import given
from hypothesis import strategies as st

from backthen.repository import clock, entropy
from backthen.repository import format as fmt
from backthen.repository.crypto import (
    ConfigHeader,
    KdfParameters,
    ObjectKind,
    RepositoryKeys,
    Slot,
    SlotKind,
    SpillCipher,
    decode_config,
    decode_slot,
    derive_master,
    encode_config,
    encode_slot,
    new_bundle,
    new_pack_cipher,
    new_recovery_key,
    normalize_recovery_key,
    open_configuration,
    open_object,
    open_slot,
    open_slot_note,
    seal_object,
    slots,
)
from backthen.repository.crypto.keys import hkdf
from backthen.repository.errors import (
    DamageError,
    InvalidRequest,
    MalformedError,
    NewerFormatError,
    TamperedError,
)
from backthen.repository.ids import RepositoryId
from backthen.repository.model.records import BundledKey, ChunkerParameters, Configuration, SlotNote
from tests.support.cipher_record import CipherRecord
from tests.support.fixed_keys import fixed_bundle, fixed_keys

KEYS = fixed_keys()
NOTE = SlotNote(1_790_000_000, "host", "user", "label")
CONFIGURATION = Configuration(1, (), ChunkerParameters(1, 2, 3, 4, 5, 6))
HEADER = ConfigHeader(
    KEYS.repository_id, KdfParameters(bytes(range(32)), fmt.KDF_MEMORY_KIB_MIN, fmt.KDF_PASSES_MIN, fmt.KDF_LANES_MAX)
)
MASTER = hashlib.sha256(b"master").digest()
VERSION_AT, KIND_AT, SCHEME_AT = 4, 5, 6


# Sealed objects


@pytest.mark.parametrize("kind", list(ObjectKind))
@pytest.mark.parametrize(
    "payload", [b"", b"x", b"text " * 5000, os.urandom(3000)], ids=["empty", "one", "text", "random"]
)
def test_a_sealed_object_opens(kind: ObjectKind, payload: bytes) -> None:
    data = seal_object(KEYS, kind, payload, b"bound to")
    assert payload == open_object(KEYS, kind, data, name="name", associated=b"bound to")
    assert len(data) == fmt.padme(len(data)) >= fmt.OBJECT_BYTES_MIN


@pytest.mark.parametrize(("kind", "other"), list(itertools.permutations(ObjectKind, 2)))
def test_a_sealed_object_does_not_open_as_another_kind(kind: ObjectKind, other: ObjectKind) -> None:
    data = bytearray(seal_object(KEYS, kind, b"payload"))
    with pytest.raises(MalformedError, match="name: "):
        open_object(KEYS, other, bytes(data), name="name")
    data[KIND_AT] = other
    with pytest.raises(TamperedError, match="name: "):
        open_object(KEYS, other, bytes(data), name="name")


def test_a_sealed_object_does_not_open_in_another_repository() -> None:
    data = seal_object(KEYS, ObjectKind.ROOT, b"payload")
    for keys in (fixed_keys(1), RepositoryKeys(fixed_keys(1).repository_id, fixed_bundle())):
        with pytest.raises(TamperedError):
            open_object(keys, ObjectKind.ROOT, data, name="name")


@pytest.mark.parametrize("associated", [b"", b"bound t", b"bound to ", b"Bound to"])
def test_a_sealed_object_does_not_open_with_other_associated_data(associated: bytes) -> None:
    data = seal_object(KEYS, ObjectKind.ROOT, b"payload", b"bound to")
    with pytest.raises(TamperedError):
        open_object(KEYS, ObjectKind.ROOT, data, name="name", associated=associated)


def test_a_sealed_object_that_was_cut_or_lengthened_does_not_open() -> None:
    data = seal_object(KEYS, ObjectKind.LOG, b"payload")
    for length in range(len(data)):
        with pytest.raises((TamperedError, MalformedError), match="name: "):
            open_object(KEYS, ObjectKind.LOG, data[:length], name="name")
    with pytest.raises(TamperedError):
        open_object(KEYS, ObjectKind.LOG, data + b"\0", name="name")


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_a_sealed_object_with_a_changed_byte_does_not_open(mask: int) -> None:
    data = seal_object(KEYS, ObjectKind.INDEX, b"payload")
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= mask
        with pytest.raises((TamperedError, MalformedError, NewerFormatError)) as caught:
            open_object(KEYS, ObjectKind.INDEX, bytes(changed), name="name")
        assert "name" in str(caught.value)
        assert isinstance(caught.value, DamageError) or at in (VERSION_AT, SCHEME_AT)


@pytest.mark.parametrize("frame", [b"", b"\xff\xff\xff\xff", b"no frame", b"\x28\xb5\x2f\xfd\x20\x05abc"])
def test_an_authentic_object_without_a_payload_is_malformed(frame: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backthen.repository.crypto.sealed.compress_payload", lambda _: frame)
    data = seal_object(KEYS, ObjectKind.MARK, b"")
    with pytest.raises(MalformedError, match="name: "):
        open_object(KEYS, ObjectKind.MARK, data, name="name")


def test_every_generation_opens_and_the_newest_seals() -> None:
    newer = BundledKey("seal", 5, bytes(32))
    both = RepositoryKeys(KEYS.repository_id, (*KEYS.bundle, newer))
    assert 5 == both.seal_generation
    assert b"old" == open_object(both, ObjectKind.LOG, seal_object(KEYS, ObjectKind.LOG, b"old"), name="name")
    data = seal_object(both, ObjectKind.LOG, b"new")
    assert b"new" == open_object(both, ObjectKind.LOG, data, name="name")
    with pytest.raises(TamperedError, match="generation 5"):
        open_object(KEYS, ObjectKind.LOG, data, name="name")


# Salts and nonces


@pytest.fixture
def constant_randomness(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a machine gives that was cloned: the same random bytes again and again."""
    monkeypatch.setattr(entropy, "random_bytes", bytes)


@pytest.mark.usefixtures("constant_randomness")
def test_salts_do_not_repeat_when_random_bytes_do() -> None:
    assert 1000 == len({entropy.fresh_salt(b"content") for _ in range(1000)})


@pytest.mark.usefixtures("constant_randomness")
def test_salts_do_not_repeat_when_random_bytes_and_clocks_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now_ns", lambda: 1)
    monkeypatch.setattr(clock, "monotonic_ns", lambda: 1)
    assert 1000 == len({entropy.fresh_salt(b"content") for _ in range(1000)})


@pytest.mark.usefixtures("constant_randomness")
@pytest.mark.parametrize("differs", ["process", "wall clock", "monotonic clock", "content"])
def test_each_part_of_a_salt_alone_makes_it_another(differs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def salt(number: int) -> bytes:
        parts = {"process": 1, "wall clock": 1, "monotonic clock": 1, "content": 1} | {differs: number}
        monkeypatch.setattr(entropy, "_counter", itertools.count())
        monkeypatch.setattr(os, "getpid", lambda: parts["process"])
        monkeypatch.setattr(clock, "now_ns", lambda: parts["wall clock"])
        monkeypatch.setattr(clock, "monotonic_ns", lambda: parts["monotonic clock"])
        return entropy.fresh_salt(b"%d" % parts["content"])

    assert salt(1) == salt(1), "nothing else goes in"
    assert salt(1) != salt(2)


@pytest.mark.usefixtures("constant_randomness")
def test_no_key_and_nonce_repeat_when_random_bytes_do(monkeypatch: pytest.MonkeyPatch) -> None:
    record = CipherRecord()
    record.watch(monkeypatch)
    for _ in range(20):
        seal_object(KEYS, ObjectKind.LOG, b"payload")
        new_pack_cipher(KEYS, fmt.PACK_CLASS_DATA, b"content").seal(0, b"segment")
        encode_slot(HEADER, KEYS, MASTER, SlotKind.PASSWORD, NOTE)
    record.check_unique(at_least=20 * 4)


def test_a_salt_is_never_what_the_system_gave() -> None:
    """Else whoever sees the salt sees a part of the generator's output."""
    assert fmt.SALT_BYTES == len(entropy.fresh_salt())
    assert entropy.fresh_salt() != entropy.fresh_salt()


def test_blocks_of_a_spill_have_different_nonces_and_open_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    record = CipherRecord()
    record.watch(monkeypatch)
    one, other = SpillCipher(), SpillCipher()
    blocks = [one.seal(b"block") for _ in range(100)]
    assert 100 == len(set(blocks))
    assert {b"block"} == {one.open(block) for block in blocks}
    record.check_unique(at_least=100)
    for broken in (blocks[0][:-1], blocks[0][:5], b"", b"\xff" + blocks[0][1:]):
        with pytest.raises(TamperedError):
            one.open(broken)
    with pytest.raises(TamperedError):
        other.open(blocks[0])


# config


def test_config_comes_back() -> None:
    data = encode_config(HEADER, KEYS, CONFIGURATION)
    assert HEADER == decode_config(data)
    assert CONFIGURATION == open_configuration(HEADER, KEYS, data)


BOUNDS = {
    "memory": ((fmt.KDF_MEMORY_KIB_MIN, fmt.KDF_MEMORY_KIB_MAX), 72),
    "passes": ((fmt.KDF_PASSES_MIN, fmt.KDF_PASSES_MAX), 76),
    "lanes": ((fmt.KDF_LANES_MIN, fmt.KDF_LANES_MAX), 80),
}


@pytest.mark.parametrize("what", BOUNDS)
def test_the_cost_of_a_key_is_bounded_before_it_is_paid(what: str) -> None:
    (least, most), at = BOUNDS[what]
    data = bytearray(encode_config(HEADER, KEYS, CONFIGURATION))

    def decode(value: int) -> ConfigHeader:
        data[at : at + 4] = value.to_bytes(4, "big")
        return decode_config(bytes(data))

    for value in (least, most):
        kdf = decode(value).kdf
        assert value in (kdf.memory_kib, kdf.passes, kdf.lanes)
    for value in (0, least - 1, most + 1, (1 << 32) - 1):
        with pytest.raises(MalformedError, match="config: "):
            decode(value)


def test_what_is_no_config_is_malformed() -> None:
    data = encode_config(HEADER, KEYS, CONFIGURATION)
    for length in range(84):
        with pytest.raises(MalformedError, match="config: "):
            decode_config(data[:length])
    for length in range(84, len(data)):
        assert HEADER == decode_config(data[:length])
        with pytest.raises((TamperedError, MalformedError), match="config: "):
            open_configuration(HEADER, KEYS, data[:length])


def test_a_changed_byte_in_the_clear_part_of_config_is_noticed_and_named() -> None:
    """By whoever knows the password, before any key is used; never taken for a wrong password."""
    data = encode_config(HEADER, KEYS, CONFIGURATION)
    slot = encode_slot(HEADER, KEYS, MASTER, SlotKind.PASSWORD, NOTE)
    for at, mask in itertools.product(range(84), (0x01, 0x80)):
        changed = bytearray(data)
        changed[at] ^= mask
        with pytest.raises((DamageError, NewerFormatError)) as caught:
            decode_slot(decode_config(bytes(changed)), slot, name="keys/slot")
        if at == VERSION_AT:
            assert isinstance(caught.value, NewerFormatError) or mask == 0x01
        elif not 8 <= at < 40:
            assert isinstance(caught.value, DamageError)
            assert "config" == caught.value.name


def test_config_of_another_repository_is_noticed() -> None:
    data = encode_config(HEADER, KEYS, CONFIGURATION)
    other = ConfigHeader(HEADER.repository_id, KdfParameters(bytes(32), 70_000, 4, 1))
    with pytest.raises(TamperedError):
        open_configuration(other, KEYS, data)


def test_a_feature_that_is_not_known_is_refused() -> None:
    data = encode_config(HEADER, KEYS, Configuration(1, ("time-travel",), CONFIGURATION.chunker))
    with pytest.raises(NewerFormatError, match="time-travel"):
        open_configuration(HEADER, KEYS, data)


def test_fresh_parameters_have_a_salt_of_their_own() -> None:
    one, other = KdfParameters.fresh(), KdfParameters.fresh()
    assert one.salt != other.salt
    assert fmt.SALT_BYTES == len(one.salt)
    assert (fmt.KDF_MEMORY_KIB_MIN, 3, 4) == (one.memory_kib, one.passes, one.lanes)


# Slots


def _slot(master: bytes = MASTER, kind: SlotKind = SlotKind.PASSWORD) -> Slot:
    return decode_slot(HEADER, encode_slot(HEADER, KEYS, master, kind, NOTE), name="keys/slot")


@pytest.mark.parametrize("kind", list(SlotKind))
def test_a_slot_opens_with_its_password_and_no_other(kind: SlotKind) -> None:
    slot = _slot(kind=kind)
    keys = open_slot(HEADER, slot, MASTER)
    assert keys is not None
    assert (KEYS.bundle, KEYS.repository_id) == (keys.bundle, keys.repository_id)
    assert NOTE == open_slot_note(keys, slot)
    assert kind == slot.kind
    assert open_slot(HEADER, slot, bytes(32)) is None


def test_a_wrong_password_costs_one_derivation_however_many_slots_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    derivations: list[bytes] = []

    def counted(*, salt: bytes, length: int, iterations: int, lanes: int, memory_cost: int) -> Argon2id:
        derivations.append(salt)
        return Argon2id(salt=salt, length=length, iterations=iterations, lanes=lanes, memory_cost=memory_cost)

    monkeypatch.setattr(slots, "Argon2id", counted)
    many = [_slot(hashlib.sha256(b"%d" % number).digest()) for number in range(20)]
    master = derive_master(b"wrong", HEADER.kdf)
    assert [None] * 20 == [open_slot(HEADER, slot, master) for slot in many]
    assert [HEADER.kdf.salt] == derivations


def test_a_password_is_derived_as_rfc_9106_says() -> None:
    """The value is one of the reference implementation's own tests."""
    kdf = KdfParameters(b"somesalt", memory_kib=65_536, passes=2, lanes=1)
    expected = "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7"
    assert expected == derive_master(b"password", kdf).hex()


def test_no_two_slots_of_one_password_look_alike() -> None:
    one, other = _slot(), _slot()
    assert one.salt != other.salt
    assert one.commitment != other.commitment
    assert one.wrapped != other.wrapped


def test_a_changed_byte_of_a_slot_is_noticed() -> None:
    """As damage or as another password's slot, which it may well have become; never as keys."""
    data = encode_slot(HEADER, KEYS, MASTER, SlotKind.PASSWORD, NOTE)
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 0x40
        try:
            slot = decode_slot(HEADER, bytes(changed), name="keys/slot")
            keys = open_slot(HEADER, slot, MASTER)
            if keys is not None:
                open_slot_note(keys, slot)
        except (DamageError, NewerFormatError):
            continue
        assert keys is None, at
        assert 72 <= at < 136, "salt or commitment"


def test_a_cut_slot_is_noticed() -> None:
    data = encode_slot(HEADER, KEYS, MASTER, SlotKind.PASSWORD, NOTE)
    for length in range(len(data)):
        with pytest.raises(DamageError):
            open_slot_note(KEYS, decode_slot(HEADER, data[:length], name="keys/slot"))


def test_a_slot_of_another_repository_is_noticed() -> None:
    other = ConfigHeader(RepositoryId(bytes(32)), HEADER.kdf)
    data = encode_slot(other, KEYS, MASTER, SlotKind.PASSWORD, NOTE)
    with pytest.raises(MalformedError, match="keys/slot"):
        decode_slot(HEADER, data, name="keys/slot")


def test_the_parts_of_two_slots_cannot_be_mixed() -> None:
    one, other = _slot(), _slot()
    mixed = Slot("keys/slot", one.kind, one.header, one.salt, one.commitment, other.wrapped, other.note)
    with pytest.raises(TamperedError, match="keys/slot"):
        open_slot(HEADER, mixed, MASTER)
    with pytest.raises(TamperedError, match="keys/slot"):
        open_slot_note(KEYS, mixed)


HOSTILE_BUNDLES: dict[str, bytes] = {
    "nothing": b"",
    "no array": b"\x01",
    "empty": b"\x90",
    "a label that is not UTF-8": b"\x91\x93\xa1\xff\x00\xc4\x00",
    "nested without end": b"\x91" * 100_000,
    "short key": msgspec.msgpack.encode([*fixed_bundle()[:4], ("seal", 0, bytes(31))]),
    "no key that seals": msgspec.msgpack.encode(fixed_bundle()[:4]),
    "no key of blobs": msgspec.msgpack.encode(fixed_bundle()[1:]),
}


@pytest.mark.parametrize("what", HOSTILE_BUNDLES)
def test_a_bundle_that_does_not_follow_the_format_is_malformed(what: str) -> None:
    """Sealed by somebody who knows the password and does not keep to the format."""
    slot = _slot()
    wrapping = AESGCM(hkdf(MASTER, slot.salt, b"backthen v1 slot key"))
    wrapped = wrapping.encrypt(bytes(12), HOSTILE_BUNDLES[what], slot.header)
    with pytest.raises(MalformedError):
        open_slot(HEADER, dataclasses.replace(slot, wrapped=wrapped), MASTER)


def test_a_label_that_is_not_known_is_ignored() -> None:
    keys = RepositoryKeys(KEYS.repository_id, (*fixed_bundle(), BundledKey("signing", 0, bytes(32))))
    assert KEYS.chunker_seed == keys.chunker_seed
    assert "signing" in {item.label for item in keys.bundle}, "and kept, for whoever knows it"


def test_new_bundles_share_no_key() -> None:
    keys = [item.key for _ in range(5) for item in new_bundle()]
    assert len(keys) == len(set(keys))


# Recovery keys


def test_recovery_keys_differ() -> None:
    assert 100 == len({new_recovery_key() for _ in range(100)})


TYPED: dict[str, Callable[[str], str]] = {
    "as printed": lambda text: text,
    "lower case": str.lower,
    "blanks between groups": lambda text: text.replace("-", " "),
    "blanks around": lambda text: f"  {text}\n",
    "digits for letters": lambda text: text.replace("O", "0").replace("I", "1").replace("B", "8"),
}


@pytest.mark.parametrize("how", TYPED)
def test_a_recovery_key_is_understood_as_people_type_it(how: str) -> None:
    for _ in range(30):
        printed = new_recovery_key()
        assert printed == normalize_recovery_key(TYPED[how](printed))


def test_a_mistyped_recovery_key_is_told() -> None:
    """Of all single letters typed wrong one in 65,536 may slip through."""
    printed = new_recovery_key()
    slipped = 0
    for at, letter in itertools.product(range(len(printed)), "ABCDEFGHJKLMNPQRSTUVWXYZ234567"):
        if printed[at] in ("-", letter):
            continue
        try:
            normalize_recovery_key(printed[:at] + letter + printed[at + 1 :])
        except InvalidRequest as error:
            assert error.hint
        else:
            slipped += 1
    assert slipped <= 1


@pytest.mark.parametrize(
    "text", ["", "password", "a-b-c-d-e-f-g-h", "12345 " * 7, "99999-" * 7 + "99999", "ÄÖÜßé-" * 7 + "ÄÖÜßé"]
)
def test_what_does_not_look_like_a_recovery_key_is_none(text: str) -> None:
    assert normalize_recovery_key(text) is None


@given(st.text(max_size=60) | st.text("ABO018-= \n", min_size=40, max_size=50))
def test_any_text_is_a_recovery_key_or_not(text: str) -> None:
    try:
        found = normalize_recovery_key(text)
    except InvalidRequest:
        return
    assert found is None or 47 == len(found)


# What is shown


def _secrets(keys: RepositoryKeys) -> Iterator[bytes]:
    for item in keys.bundle:
        yield item.key
    yield keys.chunker_prf


@pytest.mark.parametrize("show", [repr, str, lambda value: f"{value}", lambda value: repr([value])])
def test_nothing_that_holds_keys_shows_them(show: Callable[[object], str]) -> None:
    holders = (KEYS, KEYS.bundle, new_pack_cipher(KEYS, fmt.PACK_CLASS_DATA, b""), SpillCipher(), HEADER)
    shown = " ".join(map(show, holders))
    for secret in _secrets(KEYS):
        for form in (secret.hex(), repr(secret)[2:-1]):
            assert form not in shown
            assert form[:12] not in shown
    assert str(KEYS.chunker_seed) not in shown
