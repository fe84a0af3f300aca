"""What reaches a mount: the kernel answers what it has been told, and asks for the rest in few requests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import User
from tests.support.request_log import counted

SOURCES = Path(__file__).parents[2]
TIMES = 50
FILES = 300


@pytest.fixture(params=["libfuse3", "pyfuse3"])
def requests(request: pytest.FixtureRequest, user: User, tree: Path, past: Path) -> Iterator[Path]:
    """A mount of the tree and of a folder of many files; where its requests are written down."""
    many = tree / "many"
    many.mkdir()
    for number in range(FILES):
        (many / f"{number:03d}").write_bytes(b"x" * number)
    with (tree / "disk").open("wb") as disk:
        disk.truncate(256 << 20)
        os.pwrite(disk.fileno(), b"middle", 128 << 20)
    user.snapshot(str(tree))
    log = user.home / "requests"
    module = "tests.support.request_log"
    command = [sys.executable, "-m", module, str(log), "mount", "--driver", request.param, "--foreground", str(past)]
    environment = {**user.environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=SOURCES) as server:
        assert server.stdout is not None
        assert b"Mounted" in server.stdout.readline()
        yield log
        user.run("umount", str(past))
    assert server.returncode == 0


def test_where_symlinks_point_is_asked_once(requests: Path, tree: Path, past: Path) -> None:
    saved = past / f"latest{tree}"
    for _ in range(TIMES):
        assert (saved / "link").stat().st_size == 10
        assert (saved / "letter.txt").read_text() == "Dear all,\n"
        assert os.readlink(saved / "link") == "letter.txt"

    assert counted(requests)["readlink"] == 2


def test_listing_with_attributes_asks_nothing_for_each_file(requests: Path, tree: Path, past: Path) -> None:
    with os.scandir(past / f"latest{tree}/many") as entries:
        sizes = sum(entry.stat().st_size for entry in entries)

    assert sum(range(FILES)) == sizes
    asked = counted(requests)
    assert asked["getattr"] + asked["lookup"] < 20
    assert 0 < asked["readdir"] + asked["readdirplus"] < 20


def test_small_file_is_read_in_one_request(requests: Path, tree: Path, past: Path) -> None:
    saved = past / f"latest{tree}/many"
    for _ in range(TIMES):
        for number in range(1, 4):
            assert len((saved / f"{number:03d}").read_bytes()) == number

    assert counted(requests)["read"] == 3


def test_holes_are_not_read_where_the_driver_tells_them(
    request: pytest.FixtureRequest, requests: Path, tree: Path, past: Path
) -> None:
    subprocess.run(["cp", past / f"latest{tree}/disk", tree / "copy"], check=True)

    assert (tree / "copy").stat().st_size == 256 << 20
    assert (tree / "copy").stat().st_blocks <= (tree / "disk").stat().st_blocks
    subprocess.run(["cmp", tree / "disk", tree / "copy"], check=True)
    asked = counted(requests)
    assert (asked["lseek"] > 0) == (asked["read"] < 10) == ("libfuse3" in request.node.name)


def test_requests_are_told_apart(requests: Path, tree: Path, past: Path) -> None:
    with pytest.raises(FileNotFoundError):
        (past / f"latest{tree}/none").stat()
    with pytest.raises(OSError, match="No data"):
        os.getxattr(past / f"latest{tree}/letter.txt", "user.none")
    os.statvfs(past)

    lines = requests.read_text().splitlines()
    assert [line.split()[0] for line in lines if line.endswith("b'none' ENOENT")] == ["lookup"]
    assert [line.split()[0] for line in lines if line.endswith("b'user.none' ENODATA")] == ["getxattr"]
    assert counted(requests)["statfs"] == 1
