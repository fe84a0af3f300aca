"""Frames of zstd (RFC 8878) with their content size, in bytes in and bytes out."""

from __future__ import annotations

import threading

import zstandard

from backthen.repository import format as fmt
from backthen.repository.errors import MalformedError

_PAYLOAD_LEVEL = 3
_PROBE_BYTES = 4 * fmt.KIB
_PROBE_SLICES = 4
_PROBE_LEVEL = 1
_PROBE_RATIO = 0.985


class _Contexts(threading.local):
    """Contexts are not safe to share between threads, and dear to make."""

    def __init__(self) -> None:
        self.compressors: dict[int, zstandard.ZstdCompressor] = {}
        self.decompressor = zstandard.ZstdDecompressor()


_contexts = _Contexts()


def compress(data: bytes | memoryview, level: int) -> bytes:
    """One frame that states its content size."""
    compressor = _contexts.compressors.get(level)
    if compressor is None:
        compressor = zstandard.ZstdCompressor(level=level, write_content_size=True)
        _contexts.compressors[level] = compressor
    return compressor.compress(data)


def decompress(frame: bytes | memoryview, length: int) -> bytes:
    """The content of a frame that must have exactly `length` bytes.

    Raises:
        MalformedError: it is not such a frame.
    """
    try:
        if zstandard.frame_content_size(frame) != length:
            raise MalformedError("a compressed segment states another length than its frame")
        data = _contexts.decompressor.decompress(frame, max_output_size=length, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise MalformedError("a compressed segment cannot be decompressed") from error
    if len(data) != length:
        raise MalformedError("a compressed segment has another length than stated")
    return data


def compress_payload(payload: bytes) -> bytes:
    """The payload of a sealed object as one frame."""
    return compress(payload, _PAYLOAD_LEVEL)


def decompress_payload(frame: bytes, *, name: str) -> bytes:
    """The payload of a sealed object from its frame.

    Raises:
        MalformedError: it is no frame, or states more than the format allows; `name` says in which object.
    """
    try:
        length = zstandard.frame_content_size(frame)
        if not 0 <= length <= fmt.PAYLOAD_BYTES_MAX:
            raise MalformedError("its payload has an impossible length", name=name)
        return decompress(frame, length)
    except (zstandard.ZstdError, MalformedError) as error:
        raise MalformedError("its payload cannot be decompressed", name=name) from error


def looks_compressed(data: memoryview) -> bool:
    """Whether a few slices of the data shrink so little that compressing all of it is not worth its time."""
    if len(data) <= _PROBE_BYTES * _PROBE_SLICES:
        return False
    step = (len(data) - _PROBE_BYTES) // (_PROBE_SLICES - 1)
    slices = b"".join(data[step * index : step * index + _PROBE_BYTES] for index in range(_PROBE_SLICES))
    return len(compress(slices, _PROBE_LEVEL)) > len(slices) * _PROBE_RATIO
