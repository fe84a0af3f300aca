"""What goes wrong inside a writer ends it, in time, and never leaves something that only looks stored."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backthen.repository import format as fmt
from backthen.repository.crypto import BlobKind, PackCipher
from backthen.repository.errors import RepositoryError, StorageError
from backthen.repository.objects import index_orphans, indexing, writer
from backthen.repository.objects.reader import BlobReader
from backthen.repository.packs import BlobRecord, PackBuilder, Segment, make_run
from tests.support.blob_client import Client, new_storage
from tests.support.built_packs import random_bytes
from tests.support.fixed_keys import fixed_keys

KEYS = fixed_keys()
END_S = 30


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with Client(new_storage(tmp_path), tmp_path / "cache") as made:
        yield made


def _write_many(client: Client, raised: list[BaseException]) -> None:
    try:
        with client.writer() as own:
            for number in range(60):
                own.put(BlobKind.CHUNK, random_bytes(250_000, number))
            own.flush()
    except (RepositoryError, OSError) as error:
        raised.append(error)


def test_a_disk_that_keeps_temporary_files_does_not_make_the_writer_wait_for_ever(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when it became read-only after an error."""
    monkeypatch.setattr(fmt, "PACK_BYTES_TARGET", 1 << 20)

    def fail(name: str, path: Path) -> None:
        threading.Event().wait(0.2)  # so that others finish packs meanwhile
        raise StorageError("the file system is read-only")

    def keep(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(client.storage, "put_file", fail)
    monkeypatch.setattr(Path, "unlink", keep)
    raised: list[BaseException] = []
    thread = threading.Thread(target=_write_many, args=(client, raised), daemon=True)
    thread.start()
    thread.join(END_S)
    assert not thread.is_alive()
    assert [StorageError] == [type(error) for error in raised]


def test_nothing_is_flushed_after_a_worker_failed_even_if_its_error_was_caught(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot takes an OSError for that of the file it reads, and goes on with the next."""

    units = iter(range(20))

    def fail_once(data: bytes, record: BlobRecord) -> list[Segment]:
        if next(units) == 0:
            raise OSError("from where nobody expects it")
        return make_run(data, record)

    monkeypatch.setattr(writer, "make_run", fail_once)
    with client.writer() as own:
        for number in range(20):
            try:
                own.put(BlobKind.CHUNK, random_bytes(300_000, number))
            except OSError:
                continue
            threading.Event().wait(0.01)
        with pytest.raises(OSError, match="nobody expects"):
            own.flush()


def test_a_pack_that_holds_part_of_a_blob_is_never_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = random_bytes(600_000)
    record = BlobRecord(BlobKind.CHUNK, KEYS.blob_id(BlobKind.CHUNK, data), len(data))
    unit = make_run(data, record)
    real = PackCipher.seal_into
    sealed: list[int] = []

    def seal(cipher: PackCipher, number: int, plaintext: bytes, target: memoryview, *, last: bool = False) -> None:
        if len(sealed) == 2:
            raise MemoryError
        sealed.append(number)
        real(cipher, number, plaintext, target, last=last)

    with (tmp_path / "pack").open("wb") as file:
        pack = PackBuilder(KEYS, fmt.PACK_CLASS_DATA, tmp_path / "pack", file)
        with monkeypatch.context() as patch:
            patch.setattr(PackCipher, "seal_into", seal)
            with pytest.raises(MemoryError):
                pack.add(unit)
        with pytest.raises(MemoryError):
            pack.finish()


def test_many_orphans_are_indexed_a_few_at_a_time(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that memory and the length of an index object stay bounded when a whole index was lost."""
    for number in range(5):
        client.put(random_bytes(1000, number))
    for stored in list(client.storage.list("index")):
        client.storage.delete(stored.name)
    client.index.clear()
    monkeypatch.setattr(indexing, "_PACKS_PER_INDEX", 2)
    assert 5 == index_orphans(client.storage, KEYS, client.index, client.packs())
    assert 3 == len(list(client.storage.list("index")))
    assert 5 == client.index.blob_count


def test_the_reader_counts_what_the_table_of_a_segment_takes(client: Client) -> None:
    """A segment of very many tiny blobs takes more for their ends than for their bytes."""
    refs = client.put(*(os.urandom(8) for _ in range(10_000)))
    reader: BlobReader = client.reader
    assert 8 == len(reader.source.read(refs[0]))
    assert sum(use.bytes_used for use in reader.cache_uses) > 10_000 * (8 + 4 + 8 + 28)
