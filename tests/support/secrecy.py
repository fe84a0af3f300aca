"""Looking for secrets in what others can see, in every form that was thought of; and lengths that tell nothing."""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import quote, quote_plus

import blake3
import zstandard

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_DEFLATED = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda", b"\x1f\x8b\x08")
_UNPACKED_MAX = 1 << 20
_DIGESTS: tuple[Callable[[bytes], bytes], ...] = (
    lambda data: hashlib.sha256(data).digest(),
    lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
    lambda data: hashlib.md5(data, usedforsecurity=False).digest(),
    lambda data: hashlib.blake2b(data).digest(),
    lambda data: blake3.blake3(data).digest(),
)


def given_away(secrets: Iterable[str], data: bytes, *, contents: Iterable[bytes] = ()) -> list[str]:
    """The secrets that are in the data in any form, and `digest of …` for each of whole contents whose digest is."""
    texts = [data, *_unpacked(data)]
    found = [secret for secret in secrets if any(form in text for form in forms(secret) for text in texts)]
    digests = ((content, digest) for content in contents for digest in _digests(content))
    found += [f"digest of {content[:20]!r}" for content, digest in digests if any(digest in text for text in texts)]
    return found


@functools.cache
def forms(secret: str) -> tuple[bytes, ...]:
    """What a secret may look like: as it is, reversed, escaped, in other encodings, as base64 wherever it begins."""
    raw = secret.encode()
    found = {
        raw,
        raw[::-1],
        secret.encode("utf-16-le"),
        secret.encode("utf-16-be"),
        secret.encode("utf-32-le"),
        raw.hex().encode(),
        raw.hex().upper().encode(),
        quote(secret).encode(),
        quote(secret, safe="").encode(),
        quote_plus(secret).encode(),
        json.dumps(secret)[1:-1].encode(),
        secret.encode("unicode_escape"),
        base64.b85encode(raw),
        base64.b32encode(raw).rstrip(b"=")[:-1],
        raw.translate(bytes(range(1, 256)) + b"\0"),
        *_base64_forms(raw),
    }
    return tuple(sorted(found))


def padme(length: int) -> int:
    """The least length on the ladder that is not below (Nikitin et al., 2019), written down once more."""
    exponent = length.bit_length() - 1
    bits = exponent - exponent.bit_length()
    return (length + (1 << bits) - 1) >> bits << bits


def _base64_forms(raw: bytes) -> Iterator[bytes]:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for shift in range(3):
            # The characters at both ends also depend on the neighbours.
            encoded = encode(bytes(shift) + raw)
            yield encoded[4 if shift else 0 : len(encoded) // 4 * 4 - 4]


def _digests(content: bytes) -> Iterator[bytes]:
    for digest in _DIGESTS:
        raw = digest(content)
        yield from (raw, raw.hex().encode(), base64.b64encode(raw))


def _unpacked(data: bytes) -> Iterator[bytes]:
    """Whatever in the data can be decompressed."""
    for match in re.finditer(re.escape(_ZSTD_MAGIC), data):
        try:
            yield zstandard.ZstdDecompressor().decompressobj().decompress(data[match.start() :])
        except zstandard.ZstdError:
            continue
    for match in re.finditer(b"|".join(map(re.escape, _DEFLATED)), data):
        try:
            yield zlib.decompressobj(wbits=47).decompress(data[match.start() :], _UNPACKED_MAX)
        except zlib.error:
            continue


def hidden_badly(secret: str) -> dict[str, bytes]:
    """Ways to hide a secret that the search must see through."""
    raw = secret.encode()
    return {
        "as it is": b"x" + raw,
        "base64": b"x" + base64.b64encode(b"12" + raw + b"345"),
        "UTF-16": secret.encode("utf-16-be"),
        "reversed": raw[::-1],
        "URL": quote(secret, safe="").encode(),
        "hexadecimal": raw.hex().encode(),
        "zlib": b"noise" + zlib.compress(raw),
        "gzip": b"noise" + gzip.compress(raw) + b"noise",
        "zstd": b"noise" + zstandard.compress(raw) + b"noise",
    }
