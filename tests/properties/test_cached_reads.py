"""Whatever is read, forgotten, damaged or gone from the cache: what is read is what is stored."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from backthen.repository.ids import ObjectId, PackId
from backthen.repository.storage import CachedStorage, ObjectCache, pack_name
from backthen.repository.storage.wrappers import cached
from tests.support.flaky_storage import FlakyStorage
from tests.support.memory_storage import MemoryStorage

BLOCK = 1000
LENGTHS = (0, 1, 7 * BLOCK, 20 * BLOCK + 1)
CONTENTS = [hashlib.shake_256(b"%d" % number).digest(length) for number, length in enumerate(LENGTHS)]
NAMES = [pack_name(PackId(ObjectId(bytes([number]) * 32))) for number in range(len(LENGTHS))]

_offsets = st.integers(0, 25 * BLOCK)
_parts = st.tuples(st.sampled_from(range(len(LENGTHS))), _offsets, st.none() | st.integers(0, 25 * BLOCK))
_steps = st.one_of(
    st.tuples(st.just("read"), _parts),
    st.tuples(st.just("prefetch"), _parts),
    st.tuples(st.just("forget"), _parts),
    st.tuples(st.just("damage"), _parts),
    st.tuples(st.just("evict"), _parts),
    st.tuples(st.just("another"), _parts),
)


@contextmanager
def _small_blocks() -> Iterator[None]:
    with patch.object(cached, "BLOCK_BYTES", BLOCK), patch.object(cached, "_MEMORY_BYTES", 4 * BLOCK):
        yield


@settings(max_examples=150, deadline=None)
@given(st.lists(_steps, max_size=40), st.sampled_from([0, 200_000, 1 << 20]), st.sampled_from([1, 3]))
def test_cached_reads_equal_plain_reads(
    steps: list[tuple[str, tuple[int, int, int | None]]], bytes_max: int, concurrency: int
) -> None:
    memory = MemoryStorage()
    for name, content in zip(NAMES, CONTENTS, strict=True):
        memory.put(name, content)
    with tempfile.TemporaryDirectory() as folder, _small_blocks():
        distant = FlakyStorage(memory, concurrency=concurrency)
        clients = [CachedStorage(distant, ObjectCache(Path(folder), bytes_max)) for _ in range(2)]
        for what, (number, offset, length) in steps:
            storage, name = clients[0], NAMES[number]
            if what == "read":
                assert memory.get(name, offset, length) == storage.get(name, offset, length)
            elif what == "prefetch":
                storage.prefetch(name, offset, length or 0)
            elif what == "forget":
                storage.forget(name)
            elif what == "another":
                clients.reverse()
            else:
                for file in sorted(path for path in Path(folder).rglob("*-*"))[offset % 3 :: 3]:
                    file.unlink(missing_ok=True) if what == "evict" else file.write_bytes(b"x" * offset)
        for storage in clients:
            if storage._pool is not None:
                storage._pool.shutdown()  # before the folder goes
            storage.close()
