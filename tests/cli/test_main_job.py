"""The main job: save, list, look into it, bring it back."""

from __future__ import annotations

import base64
import os
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.conftest import User


def snapshots_of(user: User, *options: str) -> list[dict[str, object]]:
    snapshots = user.run("snapshot", "list", "--json", *options).document["snapshots"]
    assert isinstance(snapshots, list)
    return snapshots


def test_a_snapshot_is_reported(user: User, tree: Path) -> None:
    summary = user.run("snapshot", "create", "--json", str(tree)).events[-1]
    assert (summary["files_new"], summary["files_changed"], summary["files_unchanged"]) == (2, 0, 0)
    assert len(str(summary["id"])) == 64
    assert summary["parent"] is None
    again = user.run("snapshot", "create", "--json", str(tree)).events[-1]
    assert summary["id"] == again["parent"]
    assert again["bytes_read"] == 0
    text = user.run("snapshot", "create", str(tree)).text
    for word in ("Snapshot ", "files", "new", "changed", "unchanged", "read", "added", "time"):
        assert word in text


def test_quiet_says_nothing(user: User, tree: Path) -> None:
    done = user.run("snapshot", "create", "-q", str(tree))
    assert (done.out, done.err) == (b"", "")


def test_snapshots_are_listed_oldest_first(user: User, tree: Path) -> None:
    ids = [user.snapshot(str(tree), "--tag", tag, "--host", "ship") for tag in ("one", "two", "three")]
    listed = snapshots_of(user)
    assert ids == [snapshot["id"] for snapshot in listed]
    assert [snapshot["tags"] for snapshot in listed] == [["one"], ["two"], ["three"]]
    assert [[str(tree)]] * 3 == [snapshot["paths"] for snapshot in listed]
    assert {"ship"} == {snapshot["host"] for snapshot in listed}
    moment = datetime.fromisoformat(str(listed[0]["time"])[:26] + "+00:00")
    assert timedelta(0) < datetime.now(moment.tzinfo) - moment < timedelta(minutes=5)
    text = user.run("snapshot", "list").text
    assert [id_[:8] for id_ in ids] == [line[:8] for line in text.splitlines()[1:4]]


def test_an_empty_list_is_a_document(user: User) -> None:
    assert user.run("snapshot", "list", "--json").document == {"snapshots": []}


def test_host_tag_and_path_narrow(user: User, tree: Path) -> None:
    one = user.snapshot(str(tree), "--host", "one", "--tag", "a", "--tag", "b")
    two = user.snapshot(str(tree / "below"), "--host", "two", "--tag", "a")
    assert [one] == [s["id"] for s in snapshots_of(user, "--host", "one")]
    assert [one, two] == [s["id"] for s in snapshots_of(user, "--tag", "a")]
    assert [one] == [s["id"] for s in snapshots_of(user, "--tag", "a", "--tag", "b")]
    assert [two] == [s["id"] for s in snapshots_of(user, "--path", f"{tree}/./below/")]
    assert snapshots_of(user, "--path", str(tree.parent)) == []
    assert one == user.run("snapshot", "show", "latest", "--host", "one", "--json").document["id"]
    assert b"letter.txt" in user.run("ls", f"latest:{tree}", "--path", str(tree)).out


def test_a_snapshot_is_named_in_many_ways(user: User, tree: Path) -> None:
    first, second = (user.snapshot(str(tree)) for _ in range(2))
    now = datetime.now().astimezone()
    names = {
        "latest": second,
        "latest~1": first,
        first[:12]: first,
        first.upper(): first,
        "now": second,
        "today": second,
        f"{now:%Y-%m-%d}": second,
        f"{now + timedelta(minutes=1):%Y-%m-%d %H:%M}": second,
    }
    for name, expected in names.items():
        assert expected == user.run("snapshot", "show", name, "--json").document["id"], name


@pytest.mark.parametrize("name", ["latest~7", "0" * 64, "2001-01-01", "nonsense"])
def test_what_names_no_snapshot_is_one(user: User, tree: Path, name: str) -> None:
    user.snapshot(str(tree))
    user.run("snapshot", "show", name, code=1)


def test_ambiguity_lists_the_candidates(user: User, tree: Path) -> None:
    ids = [user.snapshot(str(tree)) for _ in range(17)]  # Two of them begin alike, there being sixteen digits.
    digit = next(id_[0] for id_ in ids if sum(other[0] == id_[0] for other in ids) > 1)
    done = user.run("snapshot", "show", digit, code=1)
    for id_ in ids:
        assert (id_[:8] in done.err) == (id_[0] == digit)


def test_ls_lists_raw_bytes_into_a_pipe(user: User, tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path / "names")
    os.mkdir(folder)
    names = sorted([b"caf\xe9", b"new\nline", b"esc\x1b[31m", b"plain"])
    for name in names:
        with open(folder + b"/" + name, "wb"):
            pass
    user.snapshot(str(tmp_path / "names"))
    assert b"".join(name + b"\n" for name in names) == user.run("ls", b"latest:" + folder).out
    entries = user.run("ls", "--json", b"latest:" + folder).document["entries"]
    assert isinstance(entries, list)
    told = [base64.b64decode(e["path_bytes"]) if "path_bytes" in e else e["path"].encode() for e in entries]
    assert [folder + b"/" + name for name in names] == told
    assert user.run("cat", b"latest:" + folder + b"/caf\xe9").out == b""


def test_ls_shows_what_is_there(user: User, tree: Path) -> None:
    user.snapshot(str(tree))
    assert user.run("ls", f"latest:{tree}").text.splitlines() == ["below", "letter.txt", "link"]
    assert user.run("ls", f"latest:{tree}/letter.txt").text.splitlines() == ["letter.txt"]
    assert [tree.parts[1]] == user.run("ls", "latest").text.splitlines()
    everything = user.run("ls", "latest", "--recursive").text.splitlines()
    for path in (tree, tree / "below", tree / "below/numbers", tree / "link"):
        assert str(path) in everything
    long = user.run("ls", f"latest:{tree}", "--long").text.splitlines()
    assert long[2].startswith("lrwxrwxrwx")
    assert long[2].endswith("link -> letter.txt")
    assert " 10 " in long[1]
    user.run("ls", "latest:/no/such", code=1)


def test_cat_gives_the_bytes(user: User, tree: Path) -> None:
    user.snapshot(str(tree))
    assert (tree / "below/numbers").read_bytes() == user.run("cat", f"latest:{tree}/below/numbers").out
    for path in (tree / "below", tree / "link", tree / "nothing"):
        user.run("cat", f"latest:{path}", code=1)


def test_a_missing_path_is_three_and_only_missing_ones_are_one(user: User, tree: Path) -> None:
    done = user.run("snapshot", "create", str(tree), "/no/such", code=3)
    assert "/no/such: No such file or directory" in done.err
    user.run("snapshot", "create", "/no/such", code=1)
    assert len(snapshots_of(user)) == 1


def test_a_dry_run_stores_nothing(user: User, tree: Path) -> None:
    summary = user.run("snapshot", "create", "--dry-run", "--json", str(tree)).events[-1]
    assert (summary["id"], summary["files_new"]) == (None, 2)
    assert snapshots_of(user) == []


def test_a_relative_path_and_its_links_are_made_absolute(user: User, tree: Path) -> None:
    (tree.parent / "short").symlink_to(tree)
    user.run("snapshot", "create", "short/below", "short", cwd=tree.parent)
    assert [str(tree.parent / "short"), str(tree / "below")] == snapshots_of(user)[0]["paths"]
    assert user.run("ls", f"latest:{tree}/below").out == b"numbers\n"


def test_exclusions(user: User, tree: Path) -> None:
    for name in ("a.o", "b.c", "c.tmp"):
        (tree / name).touch()
    (tree / "cache").mkdir()
    (tree / "cache/CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n")
    (tree / "cache/x").touch()
    (tree / "unwanted").mkdir()
    (tree / "unwanted/.nobackup").touch()
    (tree / "unwanted/x").touch()
    (tree / "patterns").write_text("# comment\n*.tmp\n")
    options = ["--exclude", "*.o", "--exclude-from", str(tree / "patterns"), "--exclude-caches"]
    user.snapshot(str(tree), *options, "--exclude-if-present", ".nobackup")
    found = user.run("ls", f"latest:{tree}", "--recursive").text.splitlines()
    assert str(tree / "b.c") in found
    for name in ("a.o", "c.tmp", "cache/x", "unwanted/x"):
        assert str(tree / name) not in found


def test_restore_brings_the_whole_path_or_what_a_path_holds(user: User, tree: Path, tmp_path: Path) -> None:
    user.snapshot(str(tree))
    whole, part, single = (tmp_path / name for name in ("whole", "part", "single"))
    user.run("restore", "latest", "--target", str(whole))
    user.run("restore", f"latest:{tree}/below", "--target", str(part), "--verify")
    user.run("restore", f"latest:{tree}/letter.txt", "--target", str(single))
    numbers = (tree / "below/numbers").read_bytes()
    assert numbers == (whole / str(tree / "below/numbers").lstrip("/")).read_bytes()
    assert numbers == (part / "numbers").read_bytes()
    assert os.listdir(single) == ["letter.txt"]


def test_restore_chooses(user: User, tree: Path, tmp_path: Path) -> None:
    user.snapshot(str(tree))
    dry, some = tmp_path / "dry", tmp_path / "some"
    user.run("restore", f"latest:{tree}", "--target", str(dry), "--dry-run")
    assert not dry.exists() or os.listdir(dry) == []
    user.run("restore", f"latest:{tree}", "--target", str(some), "--include", "*.txt")
    assert [path.name for path in some.rglob("*") if not path.is_dir()] == ["letter.txt"]
    (some / "letter.txt").write_text("mine")
    user.run("restore", f"latest:{tree}", "--target", str(some), "--overwrite", "never")
    assert (some / "letter.txt").read_text() == "mine"
    summary = user.run("restore", f"latest:{tree}", "--target", str(some), "--json").events[-1]
    assert summary["event"] == "summary"
    assert (some / "letter.txt").read_text() == "Dear all,\n"
    user.run("restore", "latest:/no/such", "--target", str(some), code=1)


def test_check_finds_nothing_where_nothing_is_wrong(user: User, tree: Path) -> None:
    user.snapshot(str(tree))
    assert "No fault was found" in user.run("check").text
    summary = user.run("check", "--read-data", "--json").events[-1]
    assert (summary["event"], summary["findings"]) == ("summary", 0)
    assert summary["packs"] == summary["packs_read"]
    user.run("check", "--read-data-subset", "50%")


def test_damage_is_thirteen_and_named(user: User, tree: Path) -> None:
    user.snapshot(str(tree))
    packs = sorted((user.home / "repository/packs").rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)
    victim = packs[-1]
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.chmod(0o600)
    victim.write_bytes(data)
    done = user.run("check", "--read-data", code=13)
    assert victim.name in done.text
    events = user.run("check", "--read-data", "--json", code=13).events
    assert any(event["event"] == "finding" and victim.name in str(event["name"]) for event in events)


def test_a_file_that_cannot_be_read_is_three(user: User, tree: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root can read everything")
    (tree / "letter.txt").chmod(0)
    done = user.run("snapshot", "create", str(tree), "--json", code=3)
    assert any(e["event"] == "problem" and e["path"] == f"{tree}/letter.txt" for e in done.events)
    assert done.events[-1]["problems"] == 1
    assert len(snapshots_of(user)) == 1


def test_stats_count(user: User, tree: Path) -> None:
    user.snapshot(str(tree))
    document = user.run("stats", "--json").document
    assert (document["snapshots"], document["files"]) == (1, 2)
    assert "snapshots" in user.run("stats").text
