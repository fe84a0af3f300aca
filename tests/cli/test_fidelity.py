"""What goes in comes out, through a mount and through a restore, as root and as an ordinary user."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.conftest import User, settle
from tests.support.comparison import Aspects, differences
from tests.support.role import Role, role
from tests.support.sample_tree import ODD_NAMES, make_sample_tree

GIB = 1 << 30
MANY = 100_000
WAYS = ("mount", "restore")
LINKED = ("second name", "folder/third name", "folder/deeper/first name")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make and be somebody else")


@dataclass(frozen=True)
class Place:
    """The sample tree of somebody, mounted and restored."""

    role: Role
    user: User
    tree: Path
    mountpoint: Path

    def found(self, way: str) -> Path:
        """The top of what came back."""
        return self.mountpoint / f"latest{self.tree}" if way == "mount" else self.tree.parent / "restored"

    def status(self, path: Path) -> tuple[int, int, int, int]:
        """Inode number, links, blocks and size, as its owner sees them."""
        fields = self.role.call("stat", "--format=%i %h %b %s", path).split()
        return int(fields[0]), int(fields[1]), int(fields[2]), int(fields[3])

    def numbers(self) -> list[bytes]:
        """Inode number and path of everything in the mounted tree."""
        return sorted(self.role.call("find", self.found("mount"), "-printf", r"%i %P\0").split(b"\0"))


@pytest.fixture(scope="module", params=["root", "user"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if os.geteuid() != 0 and (request.param == "root" or not os.access("/dev/fuse", os.R_OK | os.W_OK)):
        pytest.skip("needs root")
    with role(request.param) as owner:
        home, tree = owner.folder / "home", owner.folder / "tree"
        made = Place(owner, User(home, prefix=owner.prefix), tree, home / "Past")
        made.mountpoint.mkdir(parents=True)
        settle(made.user)
        owner.give(owner.folder)
        _make_tree(owner, tree)
        made.user.run("init")
        made.user.snapshot(str(tree))
        made.user.run("mount", str(made.mountpoint))
        try:
            made.user.run("restore", f"latest:{tree}", "--target", str(made.found("restore")), "--verify")
            yield made
        finally:
            made.user.run("umount", str(made.mountpoint))


def _make_tree(owner: Role, tree: Path) -> None:
    """The sample tree as its owner makes it; without the file that only root can read."""
    script = (
        "import pathlib, sys; from tests.support.sample_tree import make_sample_tree; tree = pathlib.Path(sys.argv[1]);"
        "tree.mkdir(); make_sample_tree(tree, as_root=sys.argv[2] == 'root')"
    )
    made = owner.python("-c", script, tree, "root" if owner.is_root else "user")
    assert made.returncode == 0, made.stderr
    if not owner.is_root:
        (tree / "mode 0").unlink()


@pytest.mark.parametrize("way", WAYS)
def test_nothing_differs(place: Place, way: str) -> None:
    compared = place.role.python("-m", "tests.support.comparison", place.tree, place.found(way))

    assert (0, b"") == (compared.returncode, compared.stdout), compared.stderr


@pytest.mark.parametrize("way", WAYS)
def test_diff_finds_nothing(place: Place, way: str) -> None:
    special = [f"--exclude={name}" for name in ("fifo", "socket", "character", "block")]

    assert place.role.call("diff", "-r", "--no-dereference", *special, place.tree, place.found(way)) == b""


@pytest.mark.parametrize("way", WAYS)
def test_odd_names_are_listed(place: Place, way: str) -> None:
    listed = place.role.call("find", place.found(way), "-maxdepth", "1", "-printf", r"%f\0").split(b"\0")

    assert set(ODD_NAMES) <= set(listed)


@pytest.mark.parametrize("way", WAYS)
def test_holes_take_no_room(place: Place, way: str) -> None:
    _, _, blocks, size = place.status(place.found(way) / "sparse")

    assert size == (place.tree / "sparse").stat().st_size
    assert 0 < blocks <= (place.tree / "sparse").stat().st_blocks + 8


@pytest.mark.parametrize("way", WAYS)
def test_names_of_one_file_share_number_and_count(place: Place, way: str) -> None:
    found = {place.status(place.found(way) / name)[:2] for name in LINKED}

    assert [links for _, links in found] == [3]


def test_numbers_are_the_same_at_the_next_mount(place: Place) -> None:
    first = place.numbers()
    place.user.run("umount", str(place.mountpoint))
    place.user.run("mount", str(place.mountpoint))

    assert len(first) > 30
    assert first == place.numbers()


def test_restored_folder_hands_its_default_acl_down(place: Place) -> None:
    below = place.found("restore") / "folder" / "made later"
    place.role.call("mkdir", below)
    rules = place.role.call("getfacl", "--omit-header", "--absolute-names", "--numeric", below).splitlines()
    place.role.call("rmdir", below)

    assert {b"user:12:rwx", b"default:user:12:rwx"} <= set(rules)


@needs_root
def test_restored_acl_lets_in_whom_it_names(user: User, tmp_path: Path) -> None:
    with role("user") as other:
        tree, restored = (other.folder / name for name in ("tree", "restored"))
        tree.mkdir()
        for name in ("shared", "private"):
            (tree / name).write_text("secret")
            (tree / name).chmod(0o600)
        subprocess.run(["setfacl", "-m", f"u:{other.uid}:r", tree / "shared"], check=True)
        user.snapshot(str(tree))
        user.run("restore", f"latest:{tree}", "--target", str(restored))

        assert other.call("cat", restored / "shared") == b"secret"
        with pytest.raises(subprocess.CalledProcessError):
            other.call("cat", restored / "private")


@needs_root
def test_what_needs_root_is_noted_when_a_user_restores(user: User, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    make_sample_tree(tree, as_root=True)
    user.snapshot(str(tree))
    with role("user") as other:
        home, restored = other.folder / "home", other.folder / "restored"
        shutil.copytree(user.home, home)
        other.give(other.folder)
        heir = User(home, prefix=other.prefix)
        settle(heir)

        summary = heir.run("restore", f"latest:{tree}", "--target", str(restored), "--json").events[-1]
        rest = list(differences(os.fsencode(tree), os.fsencode(restored), Aspects(owner=False)))

    assert summary["problems"] == 0
    notes = str(summary["notes"])
    for words in ("owner", "set-user-id", "device node", "need root"):
        assert words in notes
    lost = ("'block': only", "'character': only", "'large': extended", "'text': extended", "mode ", "folder 2770")
    assert [line for line in rest if not any(part in line for part in lost)] == []


def test_every_byte_may_be_in_a_name(user: User, past: Path, tmp_path: Path) -> None:
    tree = os.fsencode(tmp_path / "tree")
    names = {b"<%c>" % byte for byte in range(1, 256) if byte != ord("/")}
    os.mkdir(tree)
    for name in names:
        Path(os.fsdecode(tree + b"/" + name)).write_bytes(name)
    user.run("snapshot", "create", tree)
    user.run("mount", str(past))
    restored = tmp_path / "restored"
    user.run("restore", b"latest:" + tree, "--target", str(restored))

    for found in (os.fsencode(past) + b"/latest" + tree, os.fsencode(restored)):
        assert names == set(os.listdir(found))
        assert names == {Path(os.fsdecode(found + b"/" + name)).read_bytes() for name in names}


def test_every_name_of_a_large_folder_comes_back(user: User, past: Path, tmp_path: Path) -> None:
    tree, restored = tmp_path / "tree", tmp_path / "restored"
    tree.mkdir()
    names = {f"{number:06d} of many" for number in range(MANY)}
    folder = os.open(tree, os.O_RDONLY)
    for name in sorted(names):
        os.mknod(name, dir_fd=folder)
    os.close(folder)
    user.snapshot(str(tree))
    user.run("mount", str(past))
    user.run("restore", f"latest:{tree}", "--target", str(restored))

    listed = os.listdir(past / f"latest{tree}")
    assert MANY == len(listed)
    assert names == set(listed)
    assert names == set(os.listdir(restored))


def test_file_beyond_four_gib_is_read_at_any_place(user: User, past: Path, tmp_path: Path) -> None:
    tree, restored = tmp_path / "tree", tmp_path / "restored"
    tree.mkdir()
    pieces = {0: b"begin", 4 * GIB - 3: b"border", 5 * GIB: b"the very end"}
    with (tree / "huge").open("wb") as file:
        for offset, piece in pieces.items():
            os.pwrite(file.fileno(), piece, offset)
    user.snapshot(str(tree))
    user.run("mount", str(past))
    user.run("restore", f"latest:{tree}", "--target", str(restored))

    for path in (past / f"latest{tree}/huge", restored / "huge"):
        with path.open("rb") as file:
            assert pieces == {offset: os.pread(file.fileno(), len(piece), offset) for offset, piece in pieces.items()}
            assert os.pread(file.fileno(), 4096, 5 * GIB - 10) == bytes(10) + b"the very end"
        assert path.stat().st_size == 5 * GIB + len(b"the very end")
        assert 0 < path.stat().st_blocks <= 64
