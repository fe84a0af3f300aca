"""What is kept of a repository that is elsewhere: shown, bounded, cleared, and never believed where it matters."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from backthen.repository import open_storage
from tests.cli.conftest import User, settle
from tests.support.s3_server import S3Server


@pytest.fixture
def tenant(newcomer: User, s3_server: S3Server) -> User:
    """Somebody whose repository is in a bucket."""
    settle(newcomer)
    newcomer.variables |= {**s3_server.variables, "BACKTHEN_REPOSITORY": s3_server.new_location()}
    newcomer.run("init")
    return newcomer


@pytest.fixture
def saved(tenant: User, tree: Path) -> User:
    """The same, with a snapshot that was read once."""
    (tree / "large").write_bytes(bytes(range(256)) * 8192)
    tenant.snapshot(str(tree))
    tenant.run("cat", f"latest:{tree}/large")
    return tenant


def _kept(user: User) -> int:
    repositories = user.run("cache", "--json").document["repositories"]
    assert isinstance(repositories, list)
    return sum(int(repository["bytes_fetched"]) for repository in repositories)


def test_the_cache_is_shown_and_cleared(saved: User) -> None:
    document = saved.run("cache", "--json").document
    assert (str(saved.home / "cache" / "backthen"), 1 << 30) == (document["folder"], document["bytes_fetched_max"])
    kept = _kept(saved)
    assert kept > 0
    assert "1.0 GiB" in saved.run("cache").text
    assert {"bytes_cleared": kept} == saved.run("cache", "clear", "--json").document
    assert 0 == _kept(saved)
    assert "Cleared 0 B\n" == saved.run("cache", "clear").text


def test_no_cache_is_nothing(newcomer: User) -> None:
    assert [] == newcomer.run("cache", "--json").document["repositories"]
    assert 0 == newcomer.run("cache", "clear", "--json").document["bytes_cleared"]


def test_what_was_read_is_near(saved: User, tree: Path, s3_server: S3Server) -> None:
    storage = open_storage(saved.variables["BACKTHEN_REPOSITORY"], s3_server.access)
    for stored in list(storage.list("packs")):
        storage.delete(stored.name)
    storage.close()
    assert (tree / "large").read_bytes() == saved.run("cat", f"latest:{tree}/large").out


@pytest.mark.parametrize("folder", ["packs", "roots"])
def test_a_check_believes_the_storage_alone(saved: User, tree: Path, s3_server: S3Server, folder: str) -> None:
    storage = open_storage(saved.variables["BACKTHEN_REPOSITORY"], s3_server.access)
    for stored in list(storage.list(folder)):
        storage.delete(stored.name)
    storage.close()
    saved.run("ls", f"latest:{tree}")
    saved.run("check", code=13)


def test_a_check_finds_what_changed_in_the_storage(saved: User, s3_server: S3Server) -> None:
    storage = open_storage(saved.variables["BACKTHEN_REPOSITORY"], s3_server.access)
    for stored in list(storage.list("packs")):
        data = bytearray(storage.get(stored.name))
        data[200] ^= 1
        storage.delete(stored.name)
        storage.put(stored.name, data)
    storage.close()
    saved.run("check", "--read-data", code=13)


@pytest.mark.parametrize("option", [("--cache-limit", "0"), ("--cache-limit", "16M")])
def test_the_bound_can_be_chosen(saved: User, tree: Path, option: tuple[str, str]) -> None:
    saved.run("cache", "clear")
    assert (tree / "large").read_bytes() == saved.run("cat", f"latest:{tree}/large", *option).out
    assert (0 if option[1] == "0" else 1) == min(_kept(saved), 1)


def test_whatever_happens_to_the_cache_files_are_read(saved: User, tree: Path) -> None:
    expected = (tree / "large").read_bytes()
    files = [path for path in (saved.home / "cache").rglob("objects/**/*") if path.is_file()]
    assert files
    for number, file in enumerate(files):
        file.write_bytes((b"", b"nonsense", file.read_bytes()[:-1])[number % 3])
    assert expected == saved.run("cat", f"latest:{tree}/large").out
    saved.run("snapshot", "create", str(tree))
    for objects in (saved.home / "cache").rglob("objects"):
        shutil.rmtree(objects)
        objects.write_bytes(b"")
    assert expected == saved.run("cat", f"latest:{tree}/large").out
    saved.run("snapshot", "create", str(tree))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--upload-limit", "fast"), ("--download-limit", "10"), ("--upload-limit", "0"), ("--cache-limit", "-1"),
        ("--upload-limit", ""),
    ],
)  # fmt: skip
def test_what_is_no_size_is_refused(newcomer: User, arguments: tuple[str, str]) -> None:
    assert arguments[0] in newcomer.run("cache", *arguments, code=2).err


def test_limits_come_from_the_environment_and_the_configuration_file_too(newcomer: User) -> None:
    done = newcomer.run("cache", variables={"BACKTHEN_DOWNLOAD_LIMIT": "often"}, code=2)
    assert "BACKTHEN_DOWNLOAD_LIMIT" in done.err
    file = newcomer.home / "config" / "backthen" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text('cache-limit = "300M"\nupload-limit = "some"\n')
    assert "upload-limit" in newcomer.run("cache", code=2).err
    file.write_text('cache-limit = "300M"\nupload-limit = "2M"\n')
    assert 300 << 20 == newcomer.run("cache", "--json").document["bytes_fetched_max"]


def test_limits_change_nothing_but_the_time(tenant: User, tree: Path) -> None:
    tenant.run("snapshot", "create", str(tree), "--upload-limit", "10M")
    done = tenant.run("ls", f"latest:{tree}", "--download-limit", "10M")
    assert "below" in done.text
