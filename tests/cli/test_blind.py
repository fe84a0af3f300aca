"""Who holds the repository, or finds the cache, reads nothing in it."""

from __future__ import annotations

import hashlib
import os
import pwd
import random
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blake3
import pytest

from tests.cli.conftest import PASSWORD, User, settle
from tests.support.role import role
from tests.support.secrecy import given_away, hidden_badly, padme

NEW_PASSWORD = "entirely different words"
HOST = "hostname-zwetschge"
TAG = "tagname-mirabelle"
NAMES = ("filename-quitte", "foldername-reineclaude", "Überraschung-ß", "unreadable-name-damson")
CONTENTS = ("The content nobody may read: persimmon.", "A longer content, said again and again. ")
XATTR = ("user.attribute-medlar", "attribute-value-loquat")
LARGE_XATTR = "attribute-value-kumquat " * 100
TARGET = "target-of-a-link-sloe"
OBJECT_NAME = re.compile(
    r"config|(keys|index|roots|marks)/[0-9a-f]{64}|packs/([0-9a-f]{2})/\2[0-9a-f]{62}|log/[0-9a-f]{64}-[0-9a-f]{64}"
)


@dataclass(frozen=True)
class Left:
    """All that a user has left on the disk: in the repository, and beside it."""

    repository: Path
    beside: tuple[Path, ...]
    secrets: tuple[str, ...]
    contents: tuple[bytes, ...]

    def files(self) -> Iterator[Path]:
        for folder in (self.repository, *self.beside):
            yield from (path for path in folder.rglob("*") if path.is_file())

    def objects(self) -> list[Path]:
        return [path for path in self.repository.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def left() -> Iterator[Left]:
    """What is left by two snapshots, a mount, a restore, a change of the password, a forget and a prune."""
    if os.geteuid() != 0 and not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("this user cannot open /dev/fuse")
    with role("user") as owner:
        home, tree, past = (owner.folder / name for name in ("home", "saved", "home/Past"))
        past.mkdir(parents=True)
        _plant(tree)
        user = User(home, prefix=owner.prefix)
        settle(user)
        (home / "new").write_text(NEW_PASSWORD)
        owner.give(owner.folder)
        (tree / NAMES[3]).chmod(0)
        user.run("init")
        for _ in range(2):
            user.run("snapshot", "create", str(tree), "--host", HOST, "--tag", TAG, code=3)
            (tree / NAMES[0]).write_text(CONTENTS[0] * 2)
        user.run("mount", str(past))
        try:
            owner.call("grep", "persimmon", past / f"latest{tree}" / NAMES[0])
            unread = owner.python("-c", "import sys; open(sys.argv[1])", past / f"latest{tree}" / NAMES[3])
            assert b"Input/output error" in unread.stderr
            user.run("restore", f"latest:{tree}", "--target", str(owner.folder / "restored"), code=3)
            user.run("snapshot", "forget", "--keep-last", "1")
            user.run("prune")
            recovery_key = user.run("key", "recovery-key").text
            user.run("key", "change-password", "--new-password-file", str(home / "new"))
        finally:
            user.run("umount", str(past))
        found = re.search(r"(?:[A-Z2-7]{5}-){7}[A-Z2-7]{5}", recovery_key)
        assert found is not None
        secrets = (
            *(HOST, TAG, *NAMES, *CONTENTS, *XATTR, LARGE_XATTR[:24], TARGET, PASSWORD, NEW_PASSWORD, found[0]),
            *(pwd.getpwuid(owner.uid).pw_name, str(tree)),
        )
        contents = tuple(path.read_bytes() for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
        yield Left(home / "repository", tuple(home / name for name in ("cache", "state")), secrets, contents)


def _plant(tree: Path) -> None:
    folder = tree / NAMES[1] / NAMES[2]
    folder.mkdir(parents=True)
    (tree / NAMES[0]).write_text(CONTENTS[0])
    (folder / "long").write_text(CONTENTS[1] * 20_000)
    (folder / "noise").write_bytes(random.Random(5).randbytes(400_000) + CONTENTS[0].encode())
    (folder / "link").symlink_to(TARGET)
    os.setxattr(folder / "long", XATTR[0], XATTR[1].encode())
    os.setxattr(folder / "noise", XATTR[0], LARGE_XATTR.encode())
    (tree / NAMES[3]).write_text("unreadable")


@pytest.mark.parametrize("hidden", hidden_badly(CONTENTS[0]).items(), ids=lambda pair: pair[0])
def test_search_finds_what_is_hidden_badly(hidden: tuple[str, bytes]) -> None:
    assert [CONTENTS[0]] == given_away((CONTENTS[0], TARGET), hidden[1])


@pytest.mark.parametrize("digest", [hashlib.sha256, blake3.blake3])
def test_search_finds_digests_of_contents(digest: Callable[[bytes], Any]) -> None:
    content = CONTENTS[0].encode()
    for hidden in (digest(content).digest(), digest(content).hexdigest().encode()):
        assert len(given_away((), b"x" + hidden, contents=(content,))) == 1


def test_nothing_that_was_saved_can_be_read_anywhere(left: Left) -> None:
    found = {
        str(path): given
        for path in left.files()
        if (given := given_away(left.secrets, path.read_bytes(), contents=left.contents))
    }

    assert found == {}


def test_no_name_of_a_file_tells_anything(left: Left) -> None:
    for folder in (left.repository, *left.beside):
        paths = "\n".join(str(path.relative_to(folder)) for path in folder.rglob("*"))
        assert given_away(left.secrets, paths.encode()) == []


def test_objects_are_named_by_the_hash_of_their_bytes(left: Left) -> None:
    names = {path.relative_to(left.repository).as_posix(): path for path in left.objects()}

    assert {"config", "keys", "packs", "index", "roots", "log"} == {name.split("/")[0] for name in names}
    for name, path in names.items():
        assert OBJECT_NAME.fullmatch(name), name
        assert name == "config" or name.endswith(hashlib.sha256(path.read_bytes()).hexdigest())


def test_every_object_has_a_padded_length(left: Left) -> None:
    lengths = {str(path): path.stat().st_size for path in left.objects()}

    assert {path: padme(length) for path, length in lengths.items()} == lengths


def test_files_and_folders_are_for_their_owner_alone(left: Left) -> None:
    for folder in (left.repository, *left.beside):
        for path in (folder, *folder.rglob("*")):
            allowed = 0o700 if path.is_dir() else 0o600
            assert (path, allowed) == (path, stat.S_IMODE(path.stat().st_mode))


def test_slightly_different_sizes_look_the_same(newcomer: User, tmp_path: Path) -> None:
    lengths = []
    for number, (small, large) in enumerate([(70_000, 3_000_000), (70_013, 3_001_234)]):
        user = User(newcomer.home / str(number))
        user.home.mkdir()
        settle(user)
        tree = tmp_path / f"tree{number}"
        tree.mkdir()
        (tree / "small").write_bytes(random.Random(6).randbytes(small))
        (tree / "large").write_bytes(random.Random(7).randbytes(large))
        user.run("init")
        user.snapshot(str(tree))
        lengths.append(sorted(user.data_packs.values()))

    assert lengths[0] == lengths[1]
    assert lengths[0][0] > 3_000_000
