"""What a path ever held: `backthen versions`, and `versions` and `at` in a real mount of a real repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import User

WITHIN_S = 3


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert holds()


def write(path: Path, text: str, mtime_s: int) -> None:
    path.write_text(text)
    os.utime(path, (mtime_s, mtime_s))


def save_three(user: User, tree: Path) -> None:
    """The letter in three snapshots: two contents, and then it is gone."""
    for text, mtime_s in (("one\n", 1_000_000_000), ("two two\n", 1_100_000_000)):
        write(tree / "letter.txt", text, mtime_s)
        user.snapshot(str(tree))
    (tree / "letter.txt").unlink()
    user.snapshot(str(tree))


def test_versions_of_a_file_are_listed(user: User, tree: Path) -> None:
    save_three(user, tree)

    lines = user.run("versions", str(tree / "letter.txt"), variables={"TZ": "UTC"}).text.splitlines()
    assert ["MODIFIED", "SIZE", "FIRST", "SEEN", "LAST", "SEEN", "SNAPSHOT"] == lines[0].split()
    assert ["2001-09-09 01:46:40", "2004-11-09 11:33:20"] == [line[:19] for line in lines[1:]]
    assert user.run("versions", "letter.txt", cwd=tree).text.splitlines()[1:] != []


def test_versions_of_a_file_as_a_document(user: User, tree: Path) -> None:
    save_three(user, tree)

    snapshots = user.run("snapshot", "list", "--json").document["snapshots"]
    assert isinstance(snapshots, list)
    document = user.run("versions", "--json", str(tree / "letter.txt")).document
    assert str(tree / "letter.txt") == document["path"]
    assert [] == document["entries"]
    versions = document["versions"]
    assert isinstance(versions, list)
    assert [snapshot["id"] for snapshot in snapshots[:2]] == [version["snapshot"] for version in versions]
    assert [4, 8] == [version["size"] for version in versions]
    assert [True, True] == [version["first_seen"] == version["last_seen"] for version in versions]


def test_versions_of_a_folder_are_the_names_that_were_ever_in_it(user: User, tree: Path) -> None:
    save_three(user, tree)

    names = user.run("versions", str(tree)).text.splitlines()
    assert ["below/", "letter.txt", "link"] == names
    entries = user.run("versions", ".", "--json", cwd=tree).document["entries"]
    assert isinstance(entries, list)
    assert {"path": str(tree / "letter.txt"), "folder": False, "mtime": "2004-11-09T11:33:20.000000000Z"} in entries


def test_a_path_that_was_never_saved_is_an_error(user: User, tree: Path) -> None:
    user.snapshot(str(tree))

    done = user.run("versions", str(tree / "never"), code=1)
    assert f"no snapshot has '{tree}/never'" in done.err
    assert "Traceback" not in done.err


def test_mount_shows_versions_and_times(user: User, tree: Path, past: Path) -> None:
    save_three(user, tree)
    user.run("mount", str(past), variables={"TZ": "UTC"})
    versions = past / f"versions{tree}"

    found = {path.name: path.read_text() for path in (versions / "letter.txt").iterdir()}
    assert {"2001-09-09 01.46.40.txt": "one\n", "2004-11-09 11.33.20.txt": "two two\n"} == found
    (host,) = os.listdir(past / "at/now")
    assert not (past / f"at/now/{host}{tree}/letter.txt").exists()
    assert os.path.samefile(past / f"at/now/{host}", past / "latest")
    assert [] == os.listdir(past / "at/2001-09-09")
    assert [] == os.listdir(past / "at")


def test_snapshots_that_come_and_go_do_so_in_an_open_mount(user: User, tree: Path, past: Path) -> None:
    write(tree / "letter.txt", "one\n", 1_000_000_000)
    user.snapshot(str(tree))
    user.run("mount", str(past))
    folder = past / f"versions{tree}/letter.txt"
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    assert 1 == len(os.listdir(here))
    (host,) = os.listdir(past / "at/now")
    before = os.readlink(past / f"at/now/{host}")

    write(tree / "letter.txt", "two two\n", 1_100_000_000)
    user.snapshot(str(tree))
    wait_until(lambda: len(os.listdir(folder)) == 2)
    again = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
    assert 2 == len(os.listdir(again))
    os.close(again)
    wait_until(lambda: os.readlink(past / f"at/now/{host}") != before)
    os.close(here)


def test_a_story_is_told_to_who_asks_and_never_copied(user: User, tree: Path, past: Path) -> None:
    save_three(user, tree)
    os.setxattr(tree / "below" / "numbers", "user.own", b"1")
    write(tree / "letter.txt", "two two\n", 1_100_000_000)
    user.snapshot(str(tree))
    user.run("mount", str(past))
    saved = past / f"latest{tree}"
    letter = saved / "letter.txt"

    snapshots = user.run("snapshot", "list", "--json").document["snapshots"]
    assert isinstance(snapshots, list)
    assert snapshots[3]["id"] == os.getxattr(letter, "user.backthen.snapshot").decode()
    assert b"2" == os.getxattr(letter, "user.backthen.versions")
    for name, index in (("first-seen", 1), ("last-seen", 3)):
        assert snapshots[index]["time"][:19] + "Z" == os.getxattr(letter, f"user.backthen.{name}").decode()
    assert [] == [name for name in os.listxattr(letter) if name.startswith("user.backthen.")]
    commands = {
        "cp": ["cp", "-a", f"{saved}/."],
        "rsync": ["rsync", "-aX", f"{saved}/"],
    }
    for name, command in commands.items():
        target = user.home / name
        target.mkdir()
        assert shutil.which(name) is not None
        subprocess.run([*command, str(target)], check=True, timeout=60)
        assert ["user.own"] == os.listxattr(target / "below" / "numbers")
        assert [] == os.listxattr(target / "letter.txt")
