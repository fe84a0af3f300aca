"""`snapshot create --compression`: every choice stores the same files, and each another number of bytes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.conftest import User, settle

CHOICES = ("auto", "off", "fast", "max", "6")
WORDS = b"snapshot tree chunk blob segment pack index prune retention inode mount storage folder file".split()


def stored_bytes(user: User) -> int:
    return sum(path.stat().st_size for path in (user.home / "repository").rglob("*") if path.is_file())


def content_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files, one that is cut into chunks, and one that does not compress."""
    folder = tmp_path_factory.mktemp("texts")
    number = 1
    for name, count in (*((f"small {index}", 800) for index in range(40)), ("large", 400_000)):
        words = []
        for _ in range(count):
            number = number * 1_103_515_245 + 12_345 & 0x7FFF_FFFF
            words.append(WORDS[(number >> 16) % len(WORDS)])
        (folder / name).write_bytes(b" ".join(words))
    (folder / "noise").write_bytes(os.urandom(1_000_000))
    return folder


@pytest.fixture(scope="module")
def users(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, User]:
    """One for each choice, who has saved the texts with it."""
    made = {}
    for choice in CHOICES:
        user = User(tmp_path_factory.mktemp("home"))
        settle(user)
        user.run("init")
        user.run("snapshot", "create", "--compression", choice, str(texts))
        made[choice] = user
    return made


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_restores_identically(choice: str, users: dict[str, User], texts: Path, tmp_path: Path) -> None:
    users[choice].run("restore", f"latest:{texts}", "--target", str(tmp_path / "restored"))
    assert contents(texts) == contents(tmp_path / "restored")
    users[choice].run("check", "--read-data")


def test_off_stores_everything_as_it_is(users: dict[str, User], texts: Path) -> None:
    assert stored_bytes(users["off"]) > content_bytes(texts)
    large = (texts / "large").read_bytes()[:1000]
    assert not any(large in path.read_bytes() for path in (users["off"].home / "repository").rglob("*/*/*"))


def test_harder_choices_store_less(users: dict[str, User]) -> None:
    sizes = {choice: stored_bytes(user) for choice, user in users.items()}
    assert sizes["max"] < sizes["6"] < sizes["fast"] < sizes["off"]
    assert sizes["max"] < sizes["auto"] < sizes["off"]


def test_auto_is_what_is_chosen_without_a_choice(users: dict[str, User], user: User, texts: Path) -> None:
    user.run("snapshot", "create", str(texts))
    chosen, stored = (sum(each.data_packs.values()) for each in (users["auto"], user))
    assert abs(stored - chosen) < chosen / 20, "each repository cuts files elsewhere, so sizes differ a little"


def test_what_is_stored_is_not_stored_again_under_another_choice(users: dict[str, User], texts: Path) -> None:
    user = users["fast"]
    before = user.data_packs
    user.run("snapshot", "create", "--parent", "none", "--compression", "max", str(texts))
    assert before == user.data_packs


@pytest.mark.parametrize("text", ["23", "best", ""])
def test_an_unknown_choice_is_refused_before_anything_is_asked_for(user: User, texts: Path, text: str) -> None:
    done = user.run("snapshot", "create", "--compression", text, str(texts), code=2)
    assert f"--compression: there is no compression '{text}'" in done.err
    assert "a zstd level from 1 to 22" in done.err
    assert [] == list((user.home / "repository" / "roots").glob("*"))
