"""Constants of the repository format (FORMAT.md) and the padding ladder; a test compares them with that page."""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB

FORMAT_VERSION = 1
OBJECT_MAGIC = b"BKTN"
PACK_MAGIC = b"BKTP"
SCHEME_DERIVED = 0

SALT_BYTES = 32
KEY_BYTES = 32
TAG_BYTES = 16
ID_BYTES = 32
ID_PREFIX_BYTES = 16
GROUP_KEY_BYTES = 16

OBJECT_BYTES_MIN = 1 * KIB
PACK_BYTES_MIN = 512
PAYLOAD_BYTES_MAX = 256 * MIB

PACK_BYTES_TARGET = 32 * MIB
PACK_BLOBS_MAX = 65_536
PACK_HEADER_BYTES = 44
PACK_TRAILER_BYTES = 24
PACK_CLASS_DATA = 1
PACK_CLASS_TREE = 2

SOLID_BYTES_MAX = 2 * MIB
SOLID_BLOBS_MAX = 16_384
RUN_PIECE_BYTES = 256 * KIB
SEGMENT_BODY_BYTES_MAX = 4 * MIB
SEGMENT_BLOBS_MAX = 65_535

CHUNK_BYTES_MIN = 256 * KIB
CHUNK_BYTES_MAX = 2 * MIB
CUT_SPREAD_BYTES = 64 * KIB
CUT_ONE_IN = 16
CUT_WINDOW_BYTES = 64
FASTCDC_BYTES_MIN = 16 * KIB
FASTCDC_BYTES_AVERAGE = 32 * KIB
FASTCDC_BYTES_MAX = 64 * KIB

PAGE_ITEMS_MIN = 32
PAGE_ITEMS_MAX = 256
PAGE_ITEM_BYTES_MAX = 32 * KIB
PAGE_BORDER_ONE_IN = 48
PAGE_LEVELS_MAX = 16
NAME_BYTES_MAX = 4096
INLINE_EXTENTS_MAX = 8
INLINE_XATTR_BYTES_MAX = 1 * KIB

KDF_MEMORY_KIB_MIN = 64 * KIB
KDF_MEMORY_KIB_MAX = 1024 * KIB
KDF_PASSES_MIN = 3
KDF_PASSES_MAX = 10
KDF_LANES_MIN = 1
KDF_LANES_MAX = 4


def padme(length: int) -> int:
    """The least Padmé length that is not below `length` bytes.

    Source: Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs" (2019),
        section 4.
    """
    if length < 2:
        return length
    exponent = length.bit_length() - 1
    kept_bits = exponent.bit_length()
    granularity = 1 << max(exponent - kept_bits, 0)
    return (length + granularity - 1) // granularity * granularity


def padded_object_length(length: int) -> int:
    """Length in bytes of a stored object (other than a pack) that needs `length` bytes."""
    return padme(max(length, OBJECT_BYTES_MIN))


def padded_pack_length(length: int) -> int:
    """Length in bytes of a pack that needs `length` bytes."""
    return padme(max(length, PACK_BYTES_MIN))
