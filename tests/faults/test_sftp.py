"""SSH servers that do not know one, that one does not know, that are poor, full, slow, or go away."""

from __future__ import annotations

import gc
import hashlib
import os
import shlex
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from backthen.repository.errors import InvalidRequest, ObjectExists, ObjectMissing, StorageError
from backthen.repository.ids import ObjectId, PackId
from backthen.repository.storage import CONFIG_NAME, StorageAccess, StoredObject, index_name, pack_name
from backthen.repository.storage.backends.sftp import SftpStorage, folders
from tests.support.onlooker import wait_until
from tests.support.other_ssh_server import EndlessFolders, other_ssh_server
from tests.support.sftp_storages import refusal_of, sftp_storage
from tests.support.slow_line import SlowLine
from tests.support.ssh_server import SshServer, throwaway_sshd

MIB = 1 << 20
DAY_S = 24 * 60 * 60
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run the server so")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """For the files of a server of this test alone."""
    made = tmp_path / "sshd"
    made.mkdir()
    return made


def _pack(content: bytes) -> str:
    return pack_name(PackId(ObjectId(hashlib.sha256(content).digest())))


def _index(content: bytes) -> str:
    return index_name(ObjectId(hashlib.sha256(content).digest()))


# Where it is


def test_a_path_below_the_home_folder(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with throwaway_sshd(folder, sftp=f"internal-sftp -d {home}") as server:
        with sftp_storage(server.location("/~/deep/repository"), server.access) as storage:
            storage.create()
            storage.put(CONFIG_NAME, b"content")
        assert (home / "deep" / "repository" / "config").read_bytes() == b"content"
        with (
            sftp_storage(server.location("/~"), server.access) as storage,
            pytest.raises(InvalidRequest, match="'deep'"),
        ):
            storage.create()


def test_a_file_in_the_place_of_the_folder(ssh_server: SshServer, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"kept")
    for path in (file, file / "below"):
        with sftp_storage(ssh_server.location(path), ssh_server.access) as storage:
            with pytest.raises(StorageError) as caught:
                storage.create()
            stands = f"a file stands where a folder belongs, at {file} on the server"
            assert f"{storage.location}: {stands}" == str(caught.value)
            with pytest.raises(ObjectMissing):
                storage.get(CONFIG_NAME)
    assert file.read_bytes() == b"kept"


@pytest.mark.parametrize("what", ["folder", "link"])
def test_what_is_no_file_is_no_object(ssh_server: SshServer, tmp_path: Path, what: str) -> None:
    name = index_name(ObjectId(bytes(32)))
    place = tmp_path / "repository" / name
    with sftp_storage(ssh_server.location(tmp_path / "repository"), ssh_server.access) as storage:
        storage.create()
        assert place.parent.is_dir()
        place.mkdir() if what == "folder" else place.symlink_to(ssh_server.config)
        for act in (lambda: storage.get(name), lambda: storage.put(name, b"x")):
            with pytest.raises(StorageError) as caught:
                act()
            assert f"{storage.location}/{name}: it is not a regular file" == str(caught.value)
            assert not caught.value.transient
        assert list(storage.list("index")) == []
        assert list((tmp_path / "repository" / "tmp").iterdir()) == []


@needs_root
def test_a_server_that_runs_as_an_ordinary_user_and_may_not_write(folder: Path, tmp_path: Path) -> None:
    own, others = tmp_path / "own", tmp_path / "others"
    for made in (own, others):
        made.mkdir()
    os.chown(own, 65534, 65534)
    for parent in (tmp_path, *tmp_path.parents):
        if not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    with throwaway_sshd(folder, user="nobody") as server:
        with sftp_storage(server.location(own / "repository"), server.access) as storage:
            storage.create()
            storage.put(CONFIG_NAME, b"content")
            assert storage.get(CONFIG_NAME) == b"content"
            assert (0o700, 0o600) == tuple(
                path.stat().st_mode & 0o777 for path in (own / "repository", own / "repository" / "config")
            )
            os.chown(own / "repository", 0, 0)
            with pytest.raises(StorageError, match="denies permission"):
                storage.get(CONFIG_NAME)
        for path in (others, others / "repository"):
            with sftp_storage(server.location(path), server.access) as storage:
                with pytest.raises(StorageError, match="denies permission") as caught:
                    storage.create()
                    storage.put(CONFIG_NAME, b"content")
                assert not caught.value.transient


# What it can


@pytest.mark.parametrize("lacking", ["hardlink", "fsync", "hardlink,fsync,statvfs,limits"])
def test_a_server_without_extensions_stores_as_well(folder: Path, tmp_path: Path, lacking: str) -> None:
    with (
        throwaway_sshd(folder, sftp=f"internal-sftp -P {lacking}") as server,
        sftp_storage(server.location(tmp_path / "repository"), server.access) as storage,
    ):
        storage.create()
        name = _pack(b"race")

        def put(number: int) -> bool:
            try:
                storage.put(name, b"%02d" % number * 100_000)
            except ObjectExists:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(put, range(8)))
        assert sum(won) == 1
        assert storage.get(name) == b"%02d" % won.index(True) * 100_000
        assert list((tmp_path / "repository" / "tmp").iterdir()) == []


def test_a_server_that_numbers_what_is_open_otherwise_stores_as_well(folder: Path, tmp_path: Path) -> None:
    """It gives other handles than were foretold: nothing that was sent with them may count, or do harm."""
    with (
        other_ssh_server(folder) as (port, access),
        sftp_storage(f"sftp://127.0.0.1:{port}{tmp_path}/repository", access) as storage,
    ):
        storage.create()
        contents = [bytes([number]) * 2000 * number for number in range(24)]

        def put_and_get(content: bytes) -> None:
            storage.put(_pack(content), content)
            assert content == storage.get(_pack(content), 0, MIB)
            assert _pack(content) in {stored.name for stored in storage.list("packs")}

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(put_and_get, contents))
        assert {StoredObject(_pack(content), len(content)) for content in contents} == set(storage.list("packs"))
        assert list((tmp_path / "repository" / "tmp").iterdir()) == []


def test_names_without_end_do_not_fill_the_memory(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_LISTING_BYTES_MAX", MIB)
    with (
        other_ssh_server(folder, EndlessFolders) as (port, access),
        sftp_storage(f"sftp://127.0.0.1:{port}{tmp_path}", access) as storage,
    ):
        with pytest.raises(StorageError, match="more names than a repository can have") as caught:
            list(storage.list("log"))
        assert not caught.value.transient


def test_a_server_with_few_sessions_serves_many_threads(folder: Path, tmp_path: Path) -> None:
    with (
        throwaway_sshd(folder, "MaxSessions 1") as server,
        sftp_storage(server.location(tmp_path / "repository"), server.access) as storage,
    ):
        storage.create()
        contents = [bytes([number]) * 1000 for number in range(32)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda content: storage.put(_pack(content), content), contents))
            assert list(pool.map(lambda content: storage.get(_pack(content)), contents)) == contents


@needs_root
def test_a_full_disk_is_told_and_nothing_of_the_object_is_left(folder: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f'mount -t tmpfs -o size={3 * MIB} none {shlex.quote(str(disk))} && exec "$@"'
    with (
        throwaway_sshd(folder, prefix=["unshare", "--mount", "sh", "-c", script, "sh"]) as server,
        sftp_storage(server.location(disk / "repository"), server.access) as storage,
    ):
        storage.create()
        content = os.urandom(8 * MIB)
        with pytest.raises(StorageError) as caught:
            storage.put(_pack(content), content)
        assert f"{storage.location}/{_pack(content)}: the server's disk is full" == str(caught.value)
        assert not caught.value.transient
        assert list(storage.list("packs")) == []
        small = os.urandom(MIB)
        storage.put(_pack(small), small)  # there is room again
        assert list(storage.list("packs")) == [StoredObject(_pack(small), MIB)]


# How far it is


def test_what_is_small_takes_one_round_trip_and_two_to_store(ssh_server: SshServer, tmp_path: Path) -> None:
    """A listing takes one more for the folders of packs, and the very first object for its folders."""
    half_a_mib = os.urandom(MIB // 2)
    with SlowLine(("127.0.0.1", ssh_server.port), round_trip_s=0.2) as line:
        ssh_server.also_at(line.port)
        location = f"sftp://{ssh_server.user}@127.0.0.1:{line.port}{tmp_path}/repository"
        with sftp_storage(location, ssh_server.access) as storage:
            with line.unlimited():
                storage.create()
                storage.put(CONFIG_NAME, b"config")
                storage.put(_index(b"first"), b"first")
                storage.put(_pack(half_a_mib), half_a_mib)
            before = line.counts.round_trips

            def round_trips(act: Callable[[], object]) -> int:
                nonlocal before
                act()
                before, begun = line.counts.round_trips, before
                return before - begun

            content = os.urandom(200_000)
            assert 2 == round_trips(lambda: storage.put(_index(content), content))
            assert 1 == round_trips(lambda: storage.get(_index(content), 0, 32 * MIB))
            assert 1 == round_trips(lambda: storage.get(_index(content), 1000, 1000))
            assert 1 == round_trips(lambda: storage.get(_pack(half_a_mib), 0, MIB // 2))
            assert 1 == round_trips(lambda: list(storage.list("index")))
            assert 1 == round_trips(lambda: list(storage.list("marks")))
            assert 2 == round_trips(lambda: list(storage.list("packs")))
            assert 1 == round_trips(lambda: storage.delete(_index(content)))
            assert 1 == round_trips(lambda: storage.get(CONFIG_NAME))


# When it goes


def test_an_upload_that_is_cut_goes_on_where_it_was(ssh_server: SshServer, tmp_path: Path) -> None:
    content = os.urandom(32 * MIB)
    name, file = _pack(content), tmp_path / "pack"
    file.write_bytes(content)
    with SlowLine(("127.0.0.1", ssh_server.port), round_trip_s=0.001) as line:
        ssh_server.also_at(line.port)
        location = f"sftp://{ssh_server.user}@127.0.0.1:{line.port}{tmp_path}/repository"
        with sftp_storage(location, ssh_server.access) as storage:
            storage.create()
            line.cut_after(26 * MIB)
            with pytest.raises(StorageError) as caught:
                storage.put_file(name, file)
            assert caught.value.transient
            assert file.exists()
            line.go()
            assert list(storage.list("packs")) == []
            before = line.counts
            storage.put_file(name, file)
            assert (line.counts - before).sent < 18 * MIB
            assert storage.get(name) == content
            assert list((tmp_path / "repository" / "tmp").iterdir()) == []
            assert not file.exists()


@pytest.mark.parametrize("loss", ["gone", "shorter"])
def test_an_upload_whose_beginning_is_lost_begins_anew(folder: Path, tmp_path: Path, loss: str) -> None:
    content = os.urandom(20 * MIB)
    name, file, spool = _pack(content), tmp_path / "pack", tmp_path / "repository" / "tmp"
    file.write_bytes(content)
    with throwaway_sshd(folder) as server, SlowLine(("127.0.0.1", server.port), round_trip_s=0.001) as line:
        server.also_at(line.port)
        location = f"sftp://{server.user}@127.0.0.1:{line.port}{tmp_path}/repository"
        with sftp_storage(location, server.access) as storage:
            storage.create()
            line.cut_after(18 * MIB)
            with pytest.raises(StorageError):
                storage.put_file(name, file)
            wait_until(lambda: not server.sessions())  # what has arrived is still being written
            (left,) = spool.iterdir()
            left.unlink() if loss == "gone" else os.truncate(left, MIB)
            line.go()
            storage.put_file(name, file)
            assert storage.get(name) == content


def test_a_server_that_crashes_while_it_is_read_is_told_and_found_again(folder: Path, tmp_path: Path) -> None:
    content = os.urandom(16 * MIB)
    with (
        throwaway_sshd(folder) as server,
        SlowLine(("127.0.0.1", server.port), round_trip_s=0.001, bytes_per_s=32 * MIB) as line,
    ):
        server.also_at(line.port)
        location = f"sftp://{server.user}@127.0.0.1:{line.port}{tmp_path}/repository"
        with sftp_storage(location, server.access) as storage, ThreadPoolExecutor(1) as pool:
            storage.create()
            storage.put(_pack(content), content)
            begun = line.counts.received
            reading = pool.submit(storage.get, _pack(content))
            while line.counts.received < begun + 2 * MIB:
                assert not reading.done()
            server.cut()
            with pytest.raises(StorageError) as caught:
                reading.result()
            assert caught.value.transient
            assert storage.get(_pack(content)) == content
            server.stop()
            assert refusal_of(location, server.access).transient
            server.restart()
            assert storage.get(_pack(content)) == content


def test_a_server_that_says_nothing_is_given_up(ssh_server: SshServer, tmp_path: Path) -> None:
    access = replace(ssh_server.access, timeout_s=1.0)
    with SlowLine(("127.0.0.1", ssh_server.port), round_trip_s=0.001) as line:
        ssh_server.also_at(line.port)
        location = f"sftp://{ssh_server.user}@127.0.0.1:{line.port}{tmp_path}/repository"
        with sftp_storage(location, access) as storage:
            storage.create()
            line.stall()
            for _ in "connected", "connecting":
                with pytest.raises(StorageError, match=r"said nothing|does not answer") as caught:
                    storage.put(CONFIG_NAME, b"content")
                assert caught.value.transient
            line.go()
            storage.put(CONFIG_NAME, b"content")
            assert storage.get(CONFIG_NAME) == b"content"


def test_who_is_at_work_while_it_is_closed_is_told_and_leaves_nothing_open(
    ssh_server: SshServer, tmp_path: Path
) -> None:
    """What is left open is a warning when it is collected, and so an error here."""
    with sftp_storage(ssh_server.location(tmp_path / "repository"), ssh_server.access) as storage:
        storage.create()
        for _ in range(10):
            closing = threading.Event()
            with ThreadPoolExecutor(4) as pool:
                working = [pool.submit(_list_until, closing, storage) for _ in range(4)]
                storage.close()
                closing.set()
            assert {True} >= {error.transient for work in working for error in work.result()}
            storage.close()
            gc.collect()


def _list_until(closing: threading.Event, storage: SftpStorage) -> list[StorageError]:
    """List again and again; what was said against it."""
    refusals = []
    while not closing.is_set():
        try:
            list(storage.list("log"))
        except StorageError as error:
            refusals.append(error)
    return refusals


def test_an_unknown_name_and_a_closed_port_are_told(tmp_path: Path) -> None:
    access = StorageAccess(timeout_s=5)
    assert "not known" in str(refusal_of(f"sftp://nobody.invalid{tmp_path}", access))
    assert refusal_of(f"sftp://127.0.0.1:1{tmp_path}", access).transient


def test_a_repository_whose_disk_went_away_is_not_taken_for_empty(ssh_server: SshServer, tmp_path: Path) -> None:
    with sftp_storage(ssh_server.location(tmp_path / "repository"), ssh_server.access) as storage:
        storage.create()
        storage.put(CONFIG_NAME, b"content")
        (tmp_path / "repository").rename(tmp_path / "away")
        (tmp_path / "repository").mkdir()
        for look in (lambda: list(storage.list("packs")), lambda: storage.get(_pack(b""))):
            with pytest.raises(StorageError, match="does not hold the repository any more") as caught:
                look()
            assert caught.value.transient


def test_folders_that_were_taken_away_are_made_anew(ssh_server: SshServer, tmp_path: Path) -> None:
    with sftp_storage(ssh_server.location(tmp_path / "repository"), ssh_server.access) as storage:
        storage.create()
        storage.put(_pack(b"a"), b"a")
        for path in sorted((tmp_path / "repository").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        with pytest.raises(StorageError, match="the folder is not there"):
            storage.put(_pack(b"a"), b"a")
        storage.put(_pack(b"a"), b"a")
        assert storage.get(_pack(b"a")) == b"a"


def test_only_what_is_a_day_old_by_the_servers_clock_is_abandoned(ssh_server: SshServer, tmp_path: Path) -> None:
    with sftp_storage(ssh_server.location(tmp_path / "repository"), ssh_server.access) as storage:
        assert storage.remove_abandoned_spool() == 0
        storage.create()
        storage.put(CONFIG_NAME, b"content")
        spool = tmp_path / "repository" / "tmp"
        now_s = (tmp_path / "repository" / "config").stat().st_mtime
        ages_s = {"far-old": DAY_S + 60, "far-young": DAY_S - 60, "far-new": 0, "pack-of-a-local-writer": DAY_S + 60}
        for name, age_s in ages_s.items():
            (spool / name).write_bytes(b"half")
            os.utime(spool / name, (now_s - age_s, now_s - age_s))
        assert storage.remove_abandoned_spool() == 1
        assert {path.name for path in spool.iterdir()} == {"far-young", "far-new", "pack-of-a-local-writer"}
