"""Segments and packs: bytes of blobs in, sealed bytes of packs out, and back (FORMAT.md, section 5)."""

from backthen.repository.packs.builder import BuiltPack, PackBuilder
from backthen.repository.packs.reader import PackDirectory, open_segment, read_pack_directory
from backthen.repository.packs.segment import (
    BlobRecord,
    RunPiece,
    Segment,
    SolidBody,
    decode_body,
    make_run,
    make_solid,
    verify_body,
)

__all__ = [
    "BlobRecord",
    "BuiltPack",
    "PackBuilder",
    "PackDirectory",
    "RunPiece",
    "Segment",
    "SolidBody",
    "decode_body",
    "make_run",
    "make_solid",
    "open_segment",
    "read_pack_directory",
    "verify_body",
]
