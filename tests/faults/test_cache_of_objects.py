"""The folder of what was fetched on a full disk, on a read-only one, and under several processes at once."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from backthen.repository.objects import remove_abandoned_packs
from backthen.repository.objects.spool import new_spool_file
from backthen.repository.storage import ObjectCache, cached_bytes
from tests.support.blob_client import environment

NAMESPACE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
BLOCK_BYTES = 256 * 1024
TIMEOUT_S = 120

READER = """
import hashlib, random, sys
from pathlib import Path
from backthen.repository.ids import ObjectId, PackId
from backthen.repository.storage import CachedStorage, ObjectCache, pack_name
from tests.support.memory_storage import MemoryStorage

folder, bytes_max, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
memory = MemoryStorage()
names = [pack_name(PackId(ObjectId(bytes([number]) * 32))) for number in range(8)]
contents = {name: hashlib.shake_256(name.encode()).digest(3_000_000) for name in names}
for name in names:
    memory.put(name, contents[name])
storage = CachedStorage(memory, ObjectCache(folder, bytes_max))
rng = random.Random(seed)
for _ in range(300):
    name, offset, length = rng.choice(names), rng.randrange(3_000_000), rng.randrange(600_000)
    assert contents[name][offset : offset + length] == storage.get(name, offset, length)
    if not rng.randrange(50):
        storage.forget(name)
print("whole")
"""


def _run(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())


def _reader(folder: Path, *, bytes_max: int = 1 << 30, seed: int = 0) -> list[str]:
    return [sys.executable, "-c", READER, str(folder), str(bytes_max), str(seed)]


def _assert_reads_all(*processes: subprocess.Popen[str]) -> None:
    ends = [process.communicate(timeout=TIMEOUT_S) for process in processes]
    assert [("whole\n", "")] * len(processes) == ends


@pytest.mark.parametrize("options", ["size=100k", "size=1m", "size=5m", "size=8m,nr_inodes=6", "ro"])
def test_a_disk_that_takes_nothing_more_matters_to_nobody(tmp_path: Path, options: str) -> None:
    script = f'mount -t tmpfs -o {options} none {shlex.quote(str(tmp_path))} && exec "$@"'
    _assert_reads_all(_run([*NAMESPACE, "sh", "-c", script, "sh", *_reader(tmp_path / "objects")]))


@pytest.mark.parametrize("bytes_max", [1 << 30, 8 << 20])
def test_processes_share_what_was_fetched(tmp_path: Path, bytes_max: int) -> None:
    _assert_reads_all(*[_run(_reader(tmp_path, bytes_max=bytes_max, seed=seed)) for seed in range(3)])
    assert cached_bytes(tmp_path) <= bytes_max + 3 * (bytes_max // 16)


def test_a_process_that_is_killed_while_it_keeps_something_leaves_nothing_wrong(tmp_path: Path) -> None:
    for seed in range(4):
        process = _run(_reader(tmp_path, seed=seed))
        while process.poll() is None and cached_bytes(tmp_path) < (seed + 1) << 20:
            pass
        process.kill()
        process.communicate()
    _assert_reads_all(_run(_reader(tmp_path, seed=9)))


def test_what_is_read_while_another_removes_it_is_whole_or_gone(tmp_path: Path) -> None:
    cache, other = ObjectCache(tmp_path, 1 << 30), ObjectCache(tmp_path, 1 << 30)
    data = hashlib.shake_256(b"x").digest(BLOCK_BYTES)
    for _ in range(50):
        cache.put("packs/ab/x-0", data)
        other.remove_beginning("packs/ab/x-")
        assert None is cache.get("packs/ab/x-0")


def test_files_of_killed_writers_are_removed_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    abandoned, file = new_spool_file(tmp_path)
    file.close()
    in_use, held = new_spool_file(tmp_path)
    other = tmp_path / "of-something-else"
    other.touch()
    assert 1 == remove_abandoned_packs(tmp_path)
    assert [False, True, True] == [path.exists() for path in (abandoned, in_use, other)]
    held.close()
    assert 0 == remove_abandoned_packs(tmp_path / "none")
