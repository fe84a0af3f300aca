"""Snapshots are let go by name or by rules, and room is made, without harm to what stays."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import TIMEOUT_S, User, program
from tests.support.comparison import differences
from tests.support.damage_scene import contents_of
from tests.support.sample_tree import make_sample_tree

MIB = 1 << 20


def _ids(user: User) -> list[str]:
    snapshots = user.run("snapshot", "list", "--json").document["snapshots"]
    assert isinstance(snapshots, list)
    return [snapshot["id"] for snapshot in snapshots]


def _stored(user: User) -> dict[str, bytes]:
    repository = user.home / "repository"
    return {str(path.relative_to(repository)): path.read_bytes() for path in repository.rglob("*") if path.is_file()}


@pytest.fixture
def films(user: User, tree: Path) -> list[str]:
    """Four snapshots of a tree; in the first two there is a film, which is noise, and half of another one's folder."""
    for number in range(6):
        (tree / f"noise{number}").write_bytes(random.Random(number).randbytes(MIB))
    (tree / "film").write_bytes(random.Random(9).randbytes(8 * MIB))
    ids = [user.snapshot(str(tree))]
    (tree / "letter.txt").write_text("Dear both,\n")
    ids.append(user.snapshot(str(tree)))
    for name in ("film", "noise0", "noise1", "noise2"):
        (tree / name).unlink()
    for day in range(2):
        (tree / "letter.txt").write_text(f"Day {day}\n")
        ids.append(user.snapshot(str(tree)))
    return ids


def test_a_dry_run_changes_nothing(user: User, films: list[str]) -> None:
    before = _stored(user)
    text = user.run("snapshot", "forget", "--keep-last", "2", "--dry-run").text
    assert all(id_[:8] in text for id_ in films[:2])
    assert not any(id_[:8] in text for id_ in films[2:])
    assert "2 snapshots would be forgotten (--dry-run), 2 snapshots kept" in text
    user.run("snapshot", "forget", films[0], "--dry-run")
    assert "0 packs" in user.run("prune", "--dry-run").text
    assert before == _stored(user)


def test_what_is_not_needed_any_more_goes_and_all_else_stays(user: User, tree: Path, films: list[str]) -> None:
    user.run("snapshot", "forget", "--keep-last", "2")
    assert films[2:] == _ids(user)
    before = sum(path.stat().st_size for path in user.packs.values())
    foretold = user.run("prune", "--dry-run", "--json").events[-1]
    assert films[:2] == [snapshot["id"] for snapshot in foretold["snapshots"]]  # type: ignore[attr-defined]
    done = user.run("prune", "--json").events[-1]
    assert (foretold["packs"], foretold["bytes_packs"]) == (done["packs"], done["bytes_packs"])
    left = sum(path.stat().st_size for path in user.packs.values())
    assert left == done["bytes_left"]
    assert left < before - 10 * MIB
    assert not list((user.home / "repository" / "marks").iterdir())
    assert 2 == len(list((user.home / "repository" / "roots").iterdir()))
    assert "No fault was found" in user.run("check", "--read-data").text
    user.run("restore", films[3], "--target", str(user.home / "restored"))
    assert contents_of(tree) == contents_of(user.home / "restored" / str(tree).lstrip("/"))
    again = user.run("prune", "--json").events[-1]
    assert (0, 0, left) == (again["packs"], again["bytes_moved"], again["bytes_left"])


def test_a_snapshot_after_a_prune_sends_only_what_is_not_there(user: User, tree: Path, films: list[str]) -> None:
    user.run("snapshot", "forget", *films[:3])
    user.run("prune")
    before = user.data_packs
    user.snapshot(str(tree))
    assert before == user.data_packs
    (tree / "film").write_bytes(random.Random(9).randbytes(8 * MIB))
    new = user.snapshot(str(tree))
    shutil.rmtree(tree)
    user.run("restore", new, "--target", "/")
    assert (tree / "film").read_bytes() == random.Random(9).randbytes(8 * MIB)


def test_a_mount_reads_what_a_prune_moved(user: User, tree: Path, past: Path, films: list[str]) -> None:
    user.run("mount", "--cache-size", "8M", str(past))
    saved = past / f"latest{tree}"
    with (saved / "noise5").open("rb", buffering=0) as opened:
        assert opened.read(1000) == (tree / "noise5").read_bytes()[:1000]
        before = set(user.packs)
        user.run("snapshot", "forget", *films[:2])
        assert user.run("prune", "--json").events[-1]["bytes_moved"]
        assert before - set(user.packs)
        assert os.pread(opened.fileno(), MIB, 0) == (tree / "noise5").read_bytes()
    for name in ("noise3", "noise4", "letter.txt"):
        assert (saved / name).read_bytes() == (tree / name).read_bytes()
    user.run("umount", str(past))


def test_all_that_a_file_system_can_hold_survives_a_prune(user: User, tmp_path: Path) -> None:
    tree = tmp_path / "sample"
    tree.mkdir()
    make_sample_tree(tree, as_root=os.geteuid() == 0)
    (tree / "long").write_bytes(random.Random(20).randbytes(20 * MIB))
    extra = [tree / "folder" / f"extra {number}" for number in range(500)]
    for number, path in enumerate(extra):
        path.write_bytes(random.Random(number).randbytes(20_000))
    user.run("snapshot", "create", str(tree), code=None)
    for path in extra:
        path.unlink()
    kept = user.snapshot(str(tree))
    user.run("snapshot", "forget", "--keep-last", "1")
    before = set(user.packs) - set(user.data_packs)
    assert user.run("prune", "--json").events[-1]["bytes_moved"]
    assert not before <= set(user.packs), "pages of trees were not moved"
    assert "No fault was found" in user.run("check", "--read-data").text
    user.run("restore", f"{kept}:{tree}", "--target", str(tmp_path / "restored"))
    assert [] == list(differences(os.fsencode(tree), os.fsencode(tmp_path / "restored")))


def test_rules_look_at_each_host_and_set_of_paths_by_themselves(user: User, tree: Path) -> None:
    by_host = {host: [user.snapshot("--host", host, str(tree)) for _ in range(2)] for host in ("here", "there")}
    tagged = user.snapshot("--tag", "release", "--host", "here", str(tree))
    user.snapshot("--host", "here", str(tree))
    below = user.snapshot("--host", "here", str(tree / "below"))
    document = user.run(
        "snapshot", "forget", "--keep-last", "1", "--keep-tag", "release", "--host", "here", "--json"
    ).document
    kept = document["kept"]
    assert isinstance(kept, list)
    assert {tagged: ["tag release"], below: ["last"]}.items() <= {k["id"]: k["reasons"] for k in kept}.items()
    left = _ids(user)
    assert [*by_host["there"], tagged] == [id_ for id_ in left if id_ in (*by_host["there"], *by_host["here"], tagged)]
    assert 5 == len(left)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give either snapshots or options"),
        (("latest", "--keep-last", "1"), "give either snapshots or options"),
        (("--keep-last", "0"), "no rule says what to keep"),
        (("--keep-last", "-1"), "--keep-last"),
        (("--keep-within", "soon"), "not a length of time"),
        (("--keep-tag", "misspelt"), "keep no snapshot of"),
        (("0123456789",), "no snapshot has an id"),
        (("nonsense",), "is not a snapshot"),
    ],
)
def test_what_makes_no_sense_is_refused(user: User, tree: Path, arguments: tuple[str, ...], said: str) -> None:
    user.snapshot(str(tree))
    done = user.run("snapshot", "forget", *arguments, code=None)
    assert done.code in (1, 2)
    assert said in done.err
    assert 1 == len(_ids(user))


def test_times_within_are_written_in_several_ways(user: User, tree: Path) -> None:
    user.snapshot(str(tree))
    for within in ("30 days", "6m", "1 year", "12h", "2 weeks"):
        assert "0 snapshots would" in user.run("snapshot", "forget", "--keep-within", within, "--dry-run").text


def test_nothing_is_deleted_from_a_damaged_repository(user: User, films: list[str]) -> None:
    user.run("snapshot", "forget", films[0], films[1])
    (user.home / "repository" / "roots" / films[2]).unlink()
    before = _stored(user)
    done = user.run("prune", code=13)
    assert films[2] in done.err
    assert before == _stored(user)
    user.run("snapshot", "forget", films[2][:10])
    user.run("prune")
    assert films[3:] == _ids(user)
    assert "No fault was found" in user.run("check", "--read-data").text


def test_a_pack_that_is_lost_stops_a_prune(user: User, films: list[str]) -> None:
    user.run("snapshot", "forget", films[0])
    (name,) = (name for name in user.data_packs if user.data_packs[name] > 8 * MIB)
    user.packs[name].unlink()
    before = _stored(user)
    assert "missing" in user.run("prune", code=13).err
    assert before == _stored(user) | {}
    user.run("snapshot", "forget", *films[1:])
    user.run("prune")
    assert [] == _ids(user)
    assert not user.packs


def test_two_prunes_and_a_snapshot_at_once_lose_nothing(user: User, tree: Path, films: list[str]) -> None:
    user.run("snapshot", "forget", *films[:2])
    (tree / "film").write_bytes(random.Random(9).randbytes(8 * MIB))
    commands = (("prune",), ("snapshot", "create", "--quiet", str(tree)), ("prune",))
    running = [
        subprocess.Popen(
            [*program(), *command, "--cache-dir", str(user.home / f"cache{number}")],
            env=user.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for number, command in enumerate(commands)
    ]
    for process in running:
        _, said = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0 or b"another prune" in said, said
    assert "No fault was found" in user.run("check", "--read-data").text
    assert 3 == len(_ids(user))
    user.run("restore", "latest", "--target", str(user.home / "restored"))
    assert contents_of(tree) == contents_of(user.home / "restored" / str(tree).lstrip("/"))
    user.run("prune")
    assert not list((user.home / "repository" / "marks").iterdir())


def test_a_forgotten_snapshot_is_said_to_be_gone(user: User, tree: Path) -> None:
    first = user.snapshot(str(tree))
    user.snapshot(str(tree))
    user.run("snapshot", "forget", first)
    for command in (("ls", first), ("snapshot", "show", first), ("snapshot", "forget", first)):
        assert "no snapshot has an id" in user.run(*command, code=1).err
