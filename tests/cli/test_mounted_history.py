"""A mount of a real repository while the repository changes, and where it is damaged."""

from __future__ import annotations

import errno
import os
import random
import time
from pathlib import Path

import pytest

from tests.cli.conftest import User

APPEARS_WITHIN_S = 2


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
