"""A mount of a real repository while the repository changes, and where it is damaged."""

from __future__ import annotations

import errno
import os
import random
import time
from pathlib import Path

import pytest

from tests.cli.conftest import User
from tests.support.onlooker import wait_until

APPEARS_WITHIN_S = 2
MIB = 1 << 20


def test_snapshot_made_after_mounting_appears_within_two_seconds(user: User, tree: Path, past: Path) -> None:
    user.snapshot(str(tree))
    user.run("mount", str(past))
    before = os.listdir(past / "snapshots")
    held = (past / f"latest{tree}/letter.txt").open()
    (tree / "letter.txt").write_text("Dear both,\n")
    user.snapshot(str(tree))
    deadline = time.monotonic() + APPEARS_WITHIN_S
    while len(os.listdir(past / "snapshots")) == 1 and time.monotonic() < deadline:
        time.sleep(0.02)

    assert (1, 2) == (len(before), len(os.listdir(past / "snapshots")))
    assert (past / f"latest{tree}/letter.txt").read_text() == "Dear both,\n"
    assert (past / f"snapshots/{before[0]}{tree}/letter.txt").read_text() == "Dear all,\n"
    with held:
        assert held.read() == "Dear all,\n"


@pytest.mark.parametrize("how", ["changed", "cut short", "gone"])
def test_damage_fails_the_files_it_is_in_and_leaves_the_rest(user: User, tree: Path, past: Path, how: str) -> None:
    user.snapshot(str(tree))
    whole = set(user.data_packs)
    (tree / "hurt").write_bytes(random.Random(8).randbytes(100_000))
    user.snapshot(str(tree))
    (name,) = set(user.data_packs) - whole
    pack = user.home / "repository" / "packs" / name[:2] / name
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.unlink()
    if how != "gone":
        pack.write_bytes(data if how == "changed" else data[: len(data) // 2])
    log = Path(str(user.run("mount", str(past), "--json").document["log"]))
    saved = past / f"latest{tree}"

    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        (saved / "hurt").read_bytes()
    assert (saved / "hurt").stat().st_size == 100_000
    assert (tree / "below" / "numbers").read_bytes() == (saved / "below" / "numbers").read_bytes()
    assert name in log.read_text()
    restored = user.home / "restored"
    done = user.run("restore", f"latest:{tree}", "--target", str(restored), code=13)
    assert f"{restored}/hurt: " in done.err
    assert name in done.err
    assert ["below", "letter.txt", "link"] == sorted(os.listdir(restored))
    assert name in user.run("check", "--read-data", code=13).text


@pytest.mark.parametrize("driver", ["libfuse3", "pyfuse3", "refuse"])
def test_a_forgotten_snapshot_goes_and_what_is_open_is_read_until_its_packs_are_deleted(
    user: User, tree: Path, past: Path, driver: str
) -> None:
    first = user.snapshot("--tag", "all", str(tree))
    film = random.Random(3).randbytes(40 * MIB)
    (tree / "film").write_bytes(film)
    (tree / "letter.txt").write_text("Dear both,\n")
    second = user.snapshot("--tag", "all", str(tree))
    log = Path(str(user.run("mount", "--driver", driver, "--cache-size", "8M", "--json", str(past)).document["log"]))
    first_name, second_name = _named(past, first), _named(past, second)
    versions, (host,) = past / f"versions{tree}", os.listdir(past / "hosts")
    assert (2, True) == (len(os.listdir(versions / "letter.txt")), "film" in os.listdir(versions))
    saved = past / f"snapshots/{second_name}{tree}"

    with (saved / "film").open("rb", buffering=0) as opened:
        assert opened.read(MIB) == film[:MIB]
        user.run("snapshot", "forget", second)
        wait_until(lambda: os.listdir(past / "snapshots") == [first_name])
        wait_until(lambda: os.readlink(past / "latest") == f"snapshots/{first_name}")
        wait_until(lambda: not saved.parent.parent.exists())
        for view in (f"hosts/{host}", "tags/all"):
            assert 1 == len(os.listdir(past / view))
        assert os.readlink(past / f"at/now/{host}").endswith(first_name)
        assert (1, False) == (len(os.listdir(versions / "letter.txt")), "film" in os.listdir(versions))
        assert (past / f"latest{tree}/letter.txt").read_text() == "Dear all,\n"
        assert os.pread(opened.fileno(), MIB, 16 * MIB) == film[16 * MIB : 17 * MIB]

        before = user.packs
        user.run("prune")
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            os.pread(opened.fileno(), MIB, 30 * MIB)
        assert any(name in log.read_text() for name in before.keys() - user.packs.keys())
    assert (past / f"latest{tree}/below/numbers").read_bytes() == (tree / "below/numbers").read_bytes()
    third = user.snapshot(str(tree))
    wait_until(lambda: len(os.listdir(past / "snapshots")) == 2)
    assert (past / f"snapshots/{_named(past, third)}{tree}/film").read_bytes() == film
    user.run("umount", str(past))


def _named(past: Path, id_: str) -> str:
    """The name of a snapshot in a mount."""
    (name,) = (name for name in os.listdir(past / "snapshots") if name.endswith(id_[:8]))
    return name
