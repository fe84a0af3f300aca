"""zstd, one context a thread, the probe for what is compressed already, and the choices a user has.

The only importer of `zstandard`.
"""

from backthen.repository.compression.choice import Compression, parse_compression
from backthen.repository.compression.zstd import (
    compress,
    compress_payload,
    decompress,
    decompress_payload,
    looks_compressed,
)

__all__ = [
    "Compression",
    "compress",
    "compress_payload",
    "decompress",
    "decompress_payload",
    "looks_compressed",
    "parse_compression",
]
