"""An older copy of the repository in place of the one that was seen is refused, and the user told how to go on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import User
from tests.support.damage_scene import Scene


def _older(scene: Scene) -> None:
    """Put back the repository as it was before the second snapshot."""
    scene.put_back()
    for name in (*scene.objects("log"), *scene.objects("roots")):
        if scene.ids[1] in name:
            (scene.repository / name).unlink()


@pytest.mark.parametrize("is_cache_cold", [False, True])
def test_an_older_repository_is_refused_loudly(scene: Scene, mountpoint: Path, *, is_cache_cold: bool) -> None:
    _older(scene)
    if is_cache_cold:
        shutil.rmtree(scene.user.home / "cache")
    (state,) = scene.user.home.glob("state/backthen/*/client.json")
    for command in (
        ["snapshot", "list"],
        ["snapshot", "create", str(scene.tree)],
        ["snapshot", "show", "latest"],
        ["ls", "latest"],
        ["cat", f"latest:{scene.tree}/noted"],
        ["restore", "latest", "--target", str(scene.target)],
        ["mount", str(mountpoint)],
        ["stats"],
        ["check"],
    ):
        done = scene.run(*command, code=13)
        told = done.text + done.err
        assert "older or another past" in told, command
        assert scene.ids[1] in told, command
        if command != ["check"]:
            assert str(state) in done.err, command
    assert not scene.target.exists()


def test_whoever_knows_why_can_go_on_with_an_older_repository(scene: Scene) -> None:
    """The hint names the file that remembers; without it nothing can be noticed."""
    _older(scene)
    (state,) = scene.user.home.glob("state/backthen/*/client.json")
    state.unlink()
    assert [scene.ids[0]] == scene.listed()
    assert scene.restored(scene.ids[0]) == scene.contents[scene.ids[0]]
    scene.run("check", "--read-data")


def test_an_empty_log_is_a_rollback_too(scene: Scene) -> None:
    scene.put_back()
    shutil.rmtree(scene.repository / "log")
    assert "older or another past" in scene.run("snapshot", "list", code=13).err


def test_two_entries_with_one_counter_are_named(user: User, tree: Path) -> None:
    """State and repository were both put back, and both futures were joined: one client made two second entries."""
    user.snapshot(str(tree))
    repository, (state,) = user.home / "repository", user.home.glob("state/backthen/*/client.json")
    remembered = state.read_bytes()
    shutil.copytree(repository, user.home / "older")
    user.snapshot(str(tree), "--tag", "one future")
    repository.rename(user.home / "newer")
    (user.home / "older").rename(repository)
    state.write_bytes(remembered)
    latest = user.snapshot(str(tree), "--tag", "another future")
    shutil.copytree(user.home / "newer", repository, dirs_exist_ok=True)
    entries = [path.name for path in (repository / "log").iterdir()]
    assert len(entries) == 3
    done = user.run("snapshot", "list", code=13)
    assert "client and counter of another entry" in done.err
    done = user.run("check", code=13)
    assert sum(name in done.text for name in entries) == 2
    user.run("restore", latest, "--target", str(user.home / "target"))
