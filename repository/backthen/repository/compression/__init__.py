"""zstd, one context a thread, and the probe for what is compressed already. The only importer of `zstandard`."""

from backthen.repository.compression.zstd import (
    Compression,
    compress,
    compress_payload,
    decompress,
    decompress_payload,
    looks_compressed,
)

__all__ = ["Compression", "compress", "compress_payload", "decompress", "decompress_payload", "looks_compressed"]
