"""Whoever sees all that goes to a storage during the whole life of a repository reads nothing in it.

Everything that talks to a storage is done once here.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from backthen.repository.storage.wrappers.cached import BLOCK_BYTES
from tests.cli.conftest import PASSWORD, TIMEOUT_S, User, settle
from tests.support.far import Far, far_s3, far_sftp
from tests.support.secrecy import given_away, padme

NEW_PASSWORD = "entirely different words"
HOST, TAG = "hostname-zwetschge", "tagname-mirabelle"
NAMES = ("filename-quitte", "foldername-reineclaude", "Überraschung-ß", "renamed-damson")
CONTENTS = ("The content nobody may read: persimmon.", "A longer content, said again and again. ")
XATTR = ("user.attribute-medlar", "attribute-value-loquat")
TARGET = "target-of-a-link-sloe"
SFTP_SERVER = Path("/usr/lib/openssh/sftp-server")
REQUEST = re.compile(rb"^(GET|PUT|HEAD|DELETE|POST) (/\S*) HTTP/1\.1\r\n((?:[^\r\n]+\r\n)*)\r\n", re.MULTILINE)
READ = re.compile(rb'read "([^"]+)" \(handle \d+\) off (\d+) len (\d+)')


@dataclass(frozen=True)
class Seen:
    """What the storage saw, and what was not to be seen.

    Attributes:
        traffic: all that went over the line.
        objects: names and lengths of all that was stored.
        log: what the server has written down, with each request of an SFTP server.
        beside: cache, state and logs of the user.
    """

    traffic: tuple[Path, ...]
    objects: dict[str, int]
    log: bytes
    beside: tuple[Path, ...]
    secrets: tuple[str, ...]
    contents: tuple[bytes, ...]


def _plant(tree: Path) -> None:
    folder = tree / NAMES[1] / NAMES[2]
    folder.mkdir(parents=True)
    (tree / NAMES[0]).write_text(CONTENTS[0])
    (folder / "long").write_text(CONTENTS[1] * 20_000)
    (folder / "noise").write_bytes(random.Random(5).randbytes(3_000_000) + CONTENTS[0].encode())
    (folder / "link").symlink_to(TARGET)
    os.setxattr(folder / "long", XATTR[0], XATTR[1].encode())


def _live(far: Far, folder: Path) -> tuple[User, tuple[str, ...], tuple[bytes, ...]]:
    """A whole life; whose it was, and the secrets in it."""
    home, tree = folder / "home", folder / "saved"
    past = home / "Past"
    past.mkdir(parents=True)
    _plant(tree)
    far.settle(home)
    user = User(home)
    settle(user)
    user.variables |= {"BACKTHEN_REPOSITORY": far.location, **far.variables}
    (home / "new").write_text(NEW_PASSWORD)
    user.run("init")
    contents = {path.read_bytes() for path in tree.rglob("*") if path.is_file() and not path.is_symlink()}
    (tree / "gone").write_bytes(random.Random(6).randbytes(2_000_000))  # what lies beside it is moved by the prune
    for name in (NAMES[1], NAMES[3]):
        user.run("snapshot", "create", str(tree), "--host", HOST, "--tag", TAG)
        (tree / "gone").unlink(missing_ok=True)
        (tree / NAMES[0]).write_text(CONTENTS[0] * 2)
        (tree / name).rename(tree / NAMES[3])
    user.run("mount", str(past))
    try:
        subprocess.run(["grep", "-r", "persimmon", str(past / f"latest{tree}")], check=True, timeout=TIMEOUT_S)
    finally:
        user.run("umount", str(past))
    for cold in ("restore", "check"):
        arguments = {"restore": (f"latest:{tree}", "--target", str(folder / "restored")), "check": ("--read-data",)}
        user.run(cold, *arguments[cold], "--cache-dir", str(folder / cold))
    first = user.run("snapshot", "list", "--json").document["snapshots"][0]["id"]  # type: ignore[index]
    user.run("snapshot", "forget", first)
    assert user.run("prune", "--json").events[-1]["bytes_moved"]
    recovery_key = re.search(r"(?:[A-Z2-7]{5}-){7}[A-Z2-7]{5}", user.run("key", "recovery-key").text)
    assert recovery_key is not None
    user.run("key", "change-password", "--new-password-file", str(home / "new"))
    secrets = (HOST, TAG, *NAMES, *CONTENTS, *XATTR, TARGET, PASSWORD, NEW_PASSWORD, recovery_key[0], str(tree))
    return user, secrets, tuple(contents)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """Over plain HTTP, so that the traffic is what the server gets."""
    folder = tmp_path_factory.mktemp("s3")
    record = folder / "record"
    record.mkdir()
    with far_s3(folder, 0.0, None, record) as far:
        user, secrets, contents = _live(far, folder)
        traffic = tuple(sorted(record.iterdir()))
        objects = {
            path: int(re.search(rb"content-length: (\d+)", headers, re.IGNORECASE)[1])  # type: ignore[index]
            for method, path, headers in _requests(traffic)
            if method == "PUT" and "/tmp/" not in path
        }
        beside = (user.home / "cache", user.home / "state", folder / "restore", folder / "check")
        yield Seen(traffic, objects, b"", beside, secrets, contents)


@pytest.fixture(scope="module")
def sftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """SSH hides the traffic from others; the server itself sees what is stored, and its log has each request."""
    folder = tmp_path_factory.mktemp("sftp")
    log = folder / "requests"
    command = f"ForceCommand {SFTP_SERVER} -e -l DEBUG3 2>>{log}"
    with far_sftp(folder, 0.0, None, (command,)) as far:
        user, secrets, contents = _live(far, folder)
        stored = [path for path in (folder / "repository").rglob("*") if path.is_file()]
        objects = {str(path): path.stat().st_size for path in stored}
        beside = (user.home / "cache", user.home / "state", folder / "restore", folder / "check")
        yield Seen(tuple(stored), objects, log.read_bytes(), beside, secrets, contents)


@pytest.fixture(params=["s3", "sftp"])
def seen(request: pytest.FixtureRequest) -> Seen:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("this user cannot open /dev/fuse")
    if request.param == "sftp" and not SFTP_SERVER.exists():
        pytest.skip("there is no sftp-server")
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Seen)
    return found


def _requests(traffic: tuple[Path, ...]) -> Iterator[tuple[str, str, bytes]]:
    """Method, path and headers of each HTTP request."""
    for path in traffic:
        if path.name.endswith("-sent"):
            for match in REQUEST.finditer(path.read_bytes()):
                yield match[1].decode(), match[2].decode(), match[3]


def test_nothing_that_was_saved_is_in_what_the_storage_sees(seen: Seen) -> None:
    given = {str(path): given_away(seen.secrets, path.read_bytes(), contents=seen.contents) for path in seen.traffic}
    assert {path: found for path, found in given.items() if found} == {}
    assert sum(path.stat().st_size for path in seen.traffic) > 3_000_000


def test_nothing_that_was_saved_is_in_the_names_or_the_servers_log(seen: Seen) -> None:
    assert given_away(seen.secrets, "\n".join(seen.objects).encode() + seen.log.replace(b"/saved", b"")) == []


def test_nothing_that_was_saved_is_in_cache_state_and_logs(seen: Seen) -> None:
    files = [path for folder in seen.beside for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 20
    given = {str(path): given_away(seen.secrets, path.read_bytes(), contents=seen.contents) for path in files}
    assert {path: found for path, found in given.items() if found} == {}
    assert given_away(seen.secrets, "\n".join(path.name for path in files).encode()) == []


def test_all_lengths_are_padded(seen: Seen) -> None:
    assert len(seen.objects) > 10
    assert {name: padme(length) for name, length in seen.objects.items()} == seen.objects


def test_packs_are_asked_of_s3_in_blocks_or_whole(s3: Seen) -> None:
    ranges = set()
    for method, path, headers in _requests(s3.traffic):
        if method == "GET" and "/packs/" in path:
            match = re.search(rb"range: bytes=(\d+)-(\d*)", headers, re.IGNORECASE)
            begin, end = (int(match[1]), int(match[2] or -1)) if match else (0, -1)
            ranges.add((begin % BLOCK_BYTES, (end + 1) % BLOCK_BYTES))
    assert ranges == {(0, 0)}


def test_packs_are_asked_of_an_sftp_server_in_blocks_or_whole(sftp: Seen) -> None:
    read: dict[str, set[int]] = {}
    for name, offset, length in READ.findall(sftp.log):
        if b"/packs/" in name:
            read.setdefault(name.decode(), set()).update(range(int(offset), int(offset) + int(length)))
    assert read
    for name, places in read.items():
        stored = sftp.objects.get(name, max(places) + 1)  # the prune read some whole before it deleted them
        borders = {at for at in places if at - 1 not in places} | {at + 1 for at in places if at + 1 not in places}
        assert {at % BLOCK_BYTES for at in borders if at < stored} == {0}


def test_everything_else_is_asked_for_whole(s3: Seen) -> None:
    asked = 0
    for method, path, headers in _requests(s3.traffic):
        if method == "GET" and "list-type" not in path and "/packs/" not in path:
            match = re.search(rb"range: bytes=(\d+)-(\d*)", headers, re.IGNORECASE)
            begin, end = (int(match[1]), int(match[2]) + 1) if match else (0, s3.objects[path])
            assert begin == 0 and end >= s3.objects[path], path
            asked += 1
    assert asked
