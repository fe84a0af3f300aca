"""A prune killed at any moment: what is kept can be read, and the next prune finishes."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from tests.cli.conftest import User
from tests.support.damage_scene import contents_of
from tests.support.killing import kill_at, moments, sample
from tests.support.prepared_program import PreparedProgram
from tests.support.victims import copy_of, restored, shown_ids, stored_bytes

MIB = 1 << 20
KILLS = 24
FORGET_KILLS = 4


def _with_much_to_prune(user: User, tree: Path) -> str:
    """A snapshot to keep, whose data lies beside that of forgotten ones."""
    for number in range(6):
        (tree / f"noise{number}").write_bytes(random.Random(number).randbytes(MIB // 2))
    first = user.snapshot(str(tree))
    (tree / "letter.txt").write_text("Dear both,\n")
    second = user.snapshot(str(tree))
    for number in range(4):
        (tree / f"noise{number}").unlink()
    kept = user.snapshot(str(tree))
    user.run("snapshot", "forget", first, second)
    return kept


def test_a_prune_killed_anywhere_loses_nothing_and_the_next_one_finishes(
    tmp_path: Path, prepared: PreparedProgram, user: User, tree: Path
) -> None:
    kept = _with_much_to_prune(user, tree)
    undisturbed = copy_of(user, tmp_path / "undisturbed")
    found = moments(undisturbed, tmp_path / "log", [undisturbed.home], "prune", "-q")
    bytes_max = stored_bytes(undisturbed) + 16_384  # roots of further snapshots and what is stored anew
    changes = [moment for moment in found if moment.call in ("link", "linkat", "unlink")]
    assert len(changes) > KILLS // 2
    kills = 0
    for number, moment in enumerate(dict.fromkeys([*sample(changes, KILLS * 2 // 3), *sample(found, KILLS // 3)])):
        victim = copy_of(user, tmp_path / f"victim {number}")
        kills += kill_at(victim, moment, "prune", "-q")
        assert [kept] == shown_ids(prepared, victim)
        assert contents_of(tree) == restored(prepared, victim, kept, tree), moment
        prepared.run(victim, "check", "--read-data")
        new = prepared.run(victim, "snapshot", "create", "--json", str(tree)).events[-1]["id"]
        prepared.run(victim, "prune")
        assert [] == list((victim.home / "repository" / "marks").iterdir()), f"left after {moment}"
        assert [kept, new] == shown_ids(prepared, victim)
        prepared.run(victim, "check", "--read-data")
        assert contents_of(tree) == restored(prepared, victim, kept, tree), moment
        prepared.run(victim, "prune")
        assert stored_bytes(victim) <= bytes_max, f"left after {moment}"
        shutil.rmtree(victim.home)
    assert kills > KILLS // 2, "most kills must come before the end"


def test_a_forget_killed_anywhere_has_forgotten_or_not(
    tmp_path: Path, prepared: PreparedProgram, user: User, tree: Path
) -> None:
    first, second = user.snapshot(str(tree)), user.snapshot(str(tree))
    undisturbed = copy_of(user, tmp_path / "undisturbed")
    found = moments(undisturbed, tmp_path / "log", [undisturbed.home], "snapshot", "forget", "-q", first)
    for number, moment in enumerate(sample(found, FORGET_KILLS)):
        victim = copy_of(user, tmp_path / f"victim {number}")
        kill_at(victim, moment, "snapshot", "forget", "-q", first)
        assert shown_ids(prepared, victim) in ([first, second], [second])
        if first in shown_ids(prepared, victim):
            prepared.run(victim, "snapshot", "forget", first)
        assert [second] == shown_ids(prepared, victim)
        prepared.run(victim, "check", "--read-data")
