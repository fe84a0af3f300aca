"""Damage as it is met through a mount: right bytes or EIO, and the other files as usual."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.support.damage_scene import CHANGES, Contents, Scene, spoil

pytestmark = pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="this user cannot open /dev/fuse")


def _readable(top: Path, contents: Contents) -> set[str]:
    """The names that can be read, which must give the right bytes; the others give EIO, and are not just gone."""
    found = set()
    for name, data in contents.items():
        try:
            assert data == (top / name).read_bytes()
            found.add(name)
        except OSError as error:
            assert error.errno == errno.EIO, f"{name}: {error}"
    return found


def _seen(scene: Scene, mountpoint: Path) -> dict[str, set[str]]:
    """What can be read of each snapshot that is shown."""
    scene.run("mount", str(mountpoint))
    shown = {entry.name.rsplit("_", 1)[1]: entry for entry in (mountpoint / "snapshots").iterdir()}
    seen = {}
    for id_ in scene.ids:
        for digits in (digits for digits in shown if id_.startswith(digits)):
            seen[id_] = _readable(shown[digits] / str(scene.tree).lstrip("/"), scene.contents[id_])
    assert sorted(entry.name for entry in mountpoint.iterdir())
    scene.run("umount", str(mountpoint))
    return seen


@pytest.mark.parametrize("how", ["bit at a third", "deleted"])
@pytest.mark.parametrize("kind", ["packs", "index"])
def test_a_mount_gives_right_bytes_or_eio(scene: Scene, mountpoint: Path, kind: str, how: str) -> None:
    """And as much as a restore can have, which leaves out a file when one bit of it is gone."""
    counts = []
    for name in scene.objects(kind):
        spoil(scene, name, CHANGES[how], is_cache_cold=True)
        seen = _seen(scene, mountpoint)
        assert {id_: set(scene.restored(id_)) for id_ in scene.ids} == seen
        counts.append(sum(map(len, seen.values())))
    whole = sum(map(len, scene.contents.values()))
    assert max(counts) < whole
    if (kind, how) == ("packs", "bit at a third"):
        assert max(counts) >= whole - 2, "one segment of data costs the files in it alone"


@pytest.mark.parametrize("kind", ["roots", "log"])
def test_a_mount_leaves_out_a_damaged_snapshot_and_shows_the_others(scene: Scene, mountpoint: Path, kind: str) -> None:
    for name in scene.objects(kind):
        spoil(scene, name, CHANGES["bit in the middle"], is_cache_cold=True)
        (other,) = (id_ for id_ in scene.ids if id_ not in name)
        assert {other: set(scene.contents[other])} == _seen(scene, mountpoint)


def test_a_mount_outlives_damage_that_comes_while_it_serves(scene: Scene, mountpoint: Path) -> None:
    scene.put_back()
    scene.run("mount", str(mountpoint))
    top = mountpoint / "latest" / str(scene.tree).lstrip("/")
    assert (top / "noted").read_bytes() == b"noted"
    for name in scene.objects("packs"):
        CHANGES["bit in the middle"](scene.repository / name, Path())
    assert len(_readable(top, scene.contents[scene.ids[1]])) < len(scene.contents[scene.ids[1]])
    scene.put_back()
    assert _readable(top, scene.contents[scene.ids[1]]) == set(scene.contents[scene.ids[1]])
    scene.run("umount", str(mountpoint))
