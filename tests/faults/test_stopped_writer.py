"""Writers that are killed and storages that fail: whole packs or nothing, and an end in time."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from typing_extensions import Buffer

from backthen.repository import format as fmt
from backthen.repository.crypto import BlobKind, object_id
from backthen.repository.errors import (
    StorageError,
)
from backthen.repository.objects import (
    index_orphans,
    load_pack_directory,
    writer,
)
from backthen.repository.objects.spool import new_spool_file
from backthen.repository.storage import LocalStorage
from tests.support.blob_client import (
    PROJECT,
    Client,
    change_file,
    environment,
    flip_bit,
    new_storage,
    pack_path,
    spooled,
)
from tests.support.built_packs import random_bytes
from tests.support.cipher_record import CipherRecord
from tests.support.fixed_keys import fixed_keys

KEYS = fixed_keys()


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return new_storage(tmp_path)


@pytest.fixture
def client(storage: LocalStorage, tmp_path: Path) -> Iterator[Client]:
    with Client(storage, tmp_path / "cache") as made:
        yield made


@pytest.fixture
def other(storage: LocalStorage, tmp_path: Path) -> Iterator[Client]:
    with Client(storage, tmp_path / "other") as made:
        yield made


_WRITE_FOR_EVER = """
import sys
from pathlib import Path
from backthen.repository import format as fmt
from backthen.repository.crypto import BlobKind
from backthen.repository.objects import writer
from backthen.repository.storage import LocalStorage
from tests.support.blob_client import Client
from tests.support.built_packs import random_bytes
fmt.PACK_BYTES_TARGET = 1 << 20
writer._PACKS_PER_INDEX = 1000
client = Client(LocalStorage(Path(sys.argv[1])), Path(sys.argv[2]))
own = client.writer()
number = 0
while True:
    own.put(BlobKind.CHUNK, random_bytes(200_000, number))
    number += 1
"""


def _start(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=PROJECT, env=environment(), stderr=subprocess.PIPE
    )


def test_a_killed_writer_leaves_whole_packs_that_the_next_one_takes_up(
    storage: LocalStorage, client: Client, tmp_path: Path
) -> None:
    process = _start(_WRITE_FOR_EVER, storage.location, tmp_path / "killed")
    while len(client.packs()) < 3 and process.poll() is None:
        threading.Event().wait(0.02)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert -signal.SIGKILL == process.returncode, errors.decode()
    packs = client.packs()
    for pack, length in packs:
        assert pack == object_id(pack_path(storage, pack).read_bytes())
        assert load_pack_directory(storage, KEYS, pack, length).blobs
    assert [] == list(storage.list("index"))
    assert len(packs) == index_orphans(storage, KEYS, client.index, packs)
    assert 0 == index_orphans(storage, KEYS, client.index, packs)
    with client.writer() as own:
        own.put(BlobKind.CHUNK, random_bytes(200_000, 0))
        own.put(BlobKind.CHUNK, random_bytes(200_000, 1))
        own.flush()
        assert 0 == own.bytes_added
    assert 1 == len(list(storage.list("index")))
    storage.remove_abandoned_spool()
    assert [] == spooled(storage)


def test_an_orphan_that_cannot_be_read_is_left_alone(client: Client, other: Client) -> None:
    for number in range(6):
        client.put(random_bytes(1000, number))
    packs = client.packs()
    paths = [pack_path(client.storage, pack) for pack, _ in packs]
    flip_bit(paths[0], 4)  # a version that is not known
    flip_bit(paths[1], 20)  # the salt
    flip_bit(paths[2], -1)  # the trailer
    change_file(paths[3], paths[3].read_bytes()[:-1])
    change_file(paths[4], b"")
    for stored in list(client.storage.list("index")):
        client.storage.delete(stored.name)
    lengths = [(pack, pack_path(client.storage, pack).stat().st_size) for pack, _ in packs]
    assert 1 == index_orphans(client.storage, KEYS, other.index, lengths)
    assert [other.index.has_pack(pack) for pack, _ in packs] == [False] * 5 + [True]


class _Failing(LocalStorage):
    """A storage that fails from the given put on."""

    def __init__(self, root: Path, *, puts: int) -> None:
        super().__init__(root)
        self._puts = puts

    def _count(self) -> None:
        self._puts -= 1
        if self._puts < 0:
            raise StorageError("the disk is on fire")

    def put(self, name: str, data: Buffer) -> None:
        self._count()
        super().put(name, data)

    def put_file(self, name: str, path: Path) -> None:
        self._count()
        super().put_file(name, path)


@pytest.mark.parametrize("puts", range(6))
def test_a_storage_that_fails_stops_the_writer(tmp_path: Path, puts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In time, cleanly, and with the storage's own error; what it stored before stays usable."""
    monkeypatch.setattr(fmt, "PACK_BYTES_TARGET", 1 * fmt.MIB)
    monkeypatch.setattr(writer, "_PACKS_PER_INDEX", 2)
    failing = _Failing(tmp_path / "repository", puts=puts)
    failing.create()
    client = Client(failing, tmp_path / "cache")
    with pytest.raises(StorageError, match="on fire"), client.writer() as own:
        for number in range(100):
            own.put(BlobKind.CHUNK, random_bytes(300_000, number))
        own.flush()
    assert [] == spooled(failing)
    assert [] == [thread.name for thread in threading.enumerate() if thread.name.startswith(("compress", "store"))]
    fresh = Client(LocalStorage(tmp_path / "repository"), tmp_path / "fresh")
    index_orphans(fresh.storage, KEYS, fresh.index, [])
    for pack, length in fresh.packs():
        assert load_pack_directory(fresh.storage, KEYS, pack, length).blobs
    client.index.close()
    fresh.index.close()


def test_a_spool_that_fails_stops_the_writer(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    record = CipherRecord()
    record.watch(monkeypatch)
    opened: list[BinaryIO] = []

    def limited(folder: Path) -> tuple[Path, BinaryIO]:
        path, file = new_spool_file(folder)
        file.close()
        full = Path("/dev/full").open("wb")  # noqa: SIM115 - the writer has to close it
        opened.append(full)
        return path, full

    monkeypatch.setattr(writer, "new_spool_file", limited)
    with pytest.raises(StorageError, match="No space left"), client.writer() as own:
        for number in range(40):
            own.put(BlobKind.CHUNK, random_bytes(300_000, number))
        own.flush()
    assert opened and all(file.closed for file in opened)
    record.check_unique(at_least=1)


_FILL = """
import sys
from pathlib import Path
from backthen.repository.crypto import BlobKind
from backthen.repository.errors import StorageError
from backthen.repository.storage import LocalStorage
from tests.support.blob_client import Client
from tests.support.built_packs import random_bytes
storage = LocalStorage(Path(sys.argv[1]) / "repository")
storage.create()
client = Client(storage, Path(sys.argv[2]))
client.put(b"before")
try:
    with client.writer() as own:
        for number in range(400):
            own.put(BlobKind.CHUNK, random_bytes(300_000, number))
        own.flush()
except StorageError as error:
    print("refused:", error)
print(len(client.packs()), sorted(Path(storage.location).glob("tmp/*")))
client.reader.source.read(client.put(b"before")[0])
"""


def test_a_full_disk_is_an_error_and_nothing_is_left_behind(tmp_path: Path) -> None:
    """A real one of 40 MiB, in a mount namespace of the test's own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = 'mount -t tmpfs -o size=40m none "$1" && exec "$2" -c "$3" "$1" "$4"'
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine gives nobody a mount namespace")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command, "sh", disk, sys.executable, _FILL, tmp_path / "cache"],
        cwd=PROJECT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("refused:")
    assert second in ("1 []", "2 []")
    assert "" == done.stderr


def test_an_error_of_the_storage_is_not_taken_for_damage(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    (ref,) = client.put(random_bytes(1000))

    def fail(name: str, offset: int = 0, length: int | None = None) -> bytes:
        raise StorageError("no connection", transient=True)

    with monkeypatch.context() as patch:
        patch.setattr(client.storage, "get", fail)
        with pytest.raises(StorageError) as caught:
            client.reader.source.read(ref)
        assert caught.value.transient
    assert random_bytes(1000) == client.reader.source.read(ref), "and it is tried again"
