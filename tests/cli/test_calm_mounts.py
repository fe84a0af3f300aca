"""What keeps a mount from being in anybody's way: who may read it, who keeps it busy, what it says of itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import User, program
from tests.support.onlooker import PATIENCE_S, Onlooker, is_running, onlooker, wait_until

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
LOOP = "while :; do cat {0}/snapshots/*{1}/* >{2}/copy && ls -laR {0} >{2}/list || exit 1; done"
STRANGER = ("setpriv", "--reuid=1", "--regid=1", "--clear-groups", "--")


@pytest.fixture(params=["root", "user"])
def who(request: pytest.FixtureRequest) -> Iterator[Onlooker]:
    with onlooker(request.param) as made:
        yield made


def _in_namespace(who: Onlooker) -> tuple[str, ...]:
    """What runs a command as root, and sees the mounts of somebody."""
    return who.role.prefix[: who.role.prefix.index("--mount") + 1] if who.role.prefix else ()


def _options(who: Onlooker) -> set[str]:
    """The options of the mount, and of its file system."""
    table = who.role.call("cat", "/proc/self/mountinfo").decode().splitlines()
    (line,) = (line.split() for line in table if f" {who.past} " in line)
    return {*line[5].split(","), *line[-1].split(",")}


# Who may read


def test_a_mount_is_safe_and_its_owners_alone(who: Onlooker) -> None:
    who.mount()
    options = _options(who)
    assert {"ro", "nosuid", "nodev"} <= options
    assert not {"allow_other", "default_permissions"} & options
    who.user.run("umount", str(who.past))


@needs_root
def test_who_mounts_reads_all_that_is_in_it_and_nobody_else_anything() -> None:
    with onlooker("user") as who:
        hidden = who.role.folder / "hidden"
        hidden.mkdir(mode=0o700)
        (hidden / "secret").write_text("of root\n")
        (hidden / "secret").chmod(0)
        User(who.user.home, who.user.variables).snapshot(str(hidden))  # as root
        who.role.give(who.user.home)
        who.mount()
        saved = who.past / f"latest{hidden}" / "secret"

        assert who.read(saved) == b"of root\n"
        for stranger in ((), STRANGER):
            refused = subprocess.run([*_in_namespace(who), *stranger, "cat", saved], capture_output=True, check=False)
            assert b"Permission denied" in refused.stderr
        who.user.run("umount", str(who.past))


@needs_root
def test_others_are_let_in_by_a_user_only_where_the_system_allows_it_and_held_to_the_saved_rights() -> None:
    with onlooker("user") as who:
        (who.tree / "numbers").chmod(0o600)
        for folder in (who.role.folder, who.user.home):
            folder.chmod(0o755)
        who.user.snapshot(str(who.tree))
        refused = who.user.run("mount", "--allow-other", str(who.past), code=15)
        assert "user_allow_other" in refused.err

        allowing = who.role.folder / "fuse.conf"
        allowing.write_text("user_allow_other\n")
        subprocess.run([*_in_namespace(who), "mount", "--bind", allowing, "/etc/fuse.conf"], check=True)
        who.mount("--allow-other")
        assert {"allow_other", "default_permissions"} <= _options(who)
        saved = who.past / f"latest{who.tree}"
        as_stranger = [*_in_namespace(who), *STRANGER, "cat"]
        assert subprocess.run([*as_stranger, saved / "letter"], capture_output=True, check=True).stdout
        for closed in (saved / "numbers", who.past / ".backthen"):
            done = subprocess.run([*as_stranger, closed], capture_output=True, check=False)
            assert b"Permission denied" in done.stderr
        who.user.run("umount", str(who.past))


def _owners(who: Onlooker, path: Path) -> tuple[str, ...]:
    return tuple(who.role.call("stat", "--format=%u %g %a", path).decode().split())


@needs_root
def test_files_of_another_machine_can_belong_to_whoever_mounts(who: Onlooker) -> None:
    foreign = who.role.folder / "foreign"
    foreign.mkdir()
    for name in ("plain", "shared"):
        (foreign / name).write_text("x")
        (foreign / name).chmod(0o640)
        os.chown(foreign / name, 123_456, 65_432)
    subprocess.run(["setfacl", "-m", "u:2222:rw", foreign / "shared"], check=True)
    User(who.user.home, who.user.variables).snapshot(str(foreign))  # as root
    who.role.give(who.user.home)
    saved = who.past / f"latest{foreign}"

    who.mount()
    assert _owners(who, saved / "plain") == ("123456", "65432", "640")
    assert _owners(who, saved / "shared") == ("123456", "65432", "660")
    assert b"user:2222:rw-" in who.role.call("getfacl", "-n", saved / "shared")
    who.user.run("umount", str(who.past))
    for given, owner in (("me", (who.role.uid, who.role.gid)), ("4321:99", (4321, 99)), ("daemon", (1, 1))):
        who.mount("--owner", given)
        shown = tuple(str(number) for number in owner)
        assert _owners(who, saved / "plain") == (*shown, "640")
        assert _owners(who, saved) == (*shown, "755")
        assert _owners(who, saved / "shared") == (*shown, "600"), "what the ACL gave is given to nobody else"
        assert b"2222" not in who.role.call("getfacl", "-n", saved / "shared")
        assert who.read(saved / "shared") == b"x"
        who.user.run("umount", str(who.past))


@pytest.mark.parametrize("owner", ["", "nobody-of-this-name", "1:nobody-of-this-name", "-5", "1:", "4294967295:1"])
def test_an_owner_that_is_nobody_is_refused(user: User, past: Path, owner: str) -> None:
    assert "there is no " in user.run("mount", "--owner", owner, str(past), code=2).err


# Others at work


def test_snapshots_and_checks_go_on_while_mounts_are_read(who: Onlooker) -> None:
    folders = [who.past, *(who.past.with_name(name) for name in ("Second", "Third"))]
    readers = []
    for number, folder in enumerate(folders):
        copies = who.role.folder / f"copies{number}"
        for made in (folder, copies):
            made.mkdir(exist_ok=True)
            who.role.give(made)
        who.mount(past=folder)
        readers.append(who.begin("sh", "-c", LOOP.format(folder, who.tree, copies)))
    for count in (2, 3):
        subprocess.run([*who.role.prefix, "sh", "-c", f"echo {count} >{who.tree}/new"], check=True)
        who.user.run("snapshot", "create", "-q", str(who.tree))
        who.user.run("check", "--read-data", "-q")
        for folder in folders:
            wait_until(lambda folder=folder, count=count: len(who.names(folder / "snapshots")) == count)  # type: ignore[misc]
            newest, said = folder / f"latest{who.tree}/new", b"%d\n" % count
            # The kernel keeps what it knows of `latest` for a second of its own.
            wait_until(lambda newest=newest, said=said: who.read(newest) == said)  # type: ignore[misc]
    for reader, folder in zip(readers, folders, strict=True):
        assert reader.poll() is None, "it reads on"
        reader.kill()
        reader.communicate()
        who.user.run("umount", "--lazy", str(folder))


@pytest.mark.parametrize(
    ("command", "use"),
    [
        (("sh", "-c", "cd {past}; echo busy; exec sleep 1000"), "works in it"),
        (("sh", "-c", "exec 3<{saved}/letter; echo busy; exec sleep 1000"), "has a file of it open"),
        (("sh", "-c", "echo busy; exec {saved}/program 1000"), "has a file of it mapped"),
    ],
)
def test_who_keeps_a_mount_busy_is_named(who: Onlooker, command: tuple[str, ...], use: str) -> None:
    who.role.call("cp", "/bin/sleep", who.tree / "program")
    who.user.snapshot(str(who.tree))
    pid, _ = who.mount()
    saved = who.past / f"latest{who.tree}"
    holder = who.begin(*(word.replace("{past}", str(who.past)).replace("{saved}", str(saved)) for word in command))
    assert holder.stdout is not None and holder.stdout.readline() == b"busy\n"
    wait_until(lambda: Path(f"/proc/{holder.pid}/comm").read_text() != "sh\n")
    told = who.user.run("umount", str(who.past), code=15).err
    assert f"(process {holder.pid}) {use}" in told
    assert "--lazy" in told
    assert ("only root sees" in told) == (not who.role.is_root)
    assert who.read(saved / "letter") == b"Dear all,\n", "it is still there"

    holder.kill()
    holder.communicate(timeout=PATIENCE_S)
    who.user.run("umount", str(who.past))
    assert not who.is_mounted()
    wait_until(lambda: not is_running(pid))


def test_taken_away_lazily_it_is_gone_and_what_is_open_can_be_read(who: Onlooker) -> None:
    pid, _ = who.mount()
    numbers = who.past / f"latest{who.tree}/numbers"
    reader = who.begin("sh", "-c", f"exec 3<{numbers}; echo open; read go; cat <&3")
    assert reader.stdin is not None and reader.stdout is not None
    assert reader.stdout.readline() == b"open\n"
    assert "is busy" in who.user.run("umount", str(who.past), code=15).err
    who.user.run("umount", "--lazy", str(who.past))

    assert not who.is_mounted()
    assert who.names(who.past) == []
    assert is_running(pid)
    out, _ = reader.communicate(b"go\n", timeout=PATIENCE_S)
    assert out == (who.tree / "numbers").read_bytes()
    wait_until(lambda: not is_running(pid))


def test_called_from_inside_it_does_not_keep_itself_busy(who: Onlooker) -> None:
    who.mount()
    command = f'cd {who.past}/snapshots && exec "$@" umount {who.past}'
    environment = who.user.environment
    done = subprocess.run([*who.role.prefix, "sh", "-c", command, "sh", *program()], env=environment, check=False)
    assert done.returncode == 0
    assert not who.is_mounted()


# What it says of itself


def test_the_status_is_there_and_in_nobodys_way(who: Onlooker) -> None:
    pid, _ = who.mount()
    assert ".backthen" in who.names(who.past)
    assert b".backthen" not in who.role.call("ls", who.past)
    before = who.status()
    assert who.read(who.past / f"latest{who.tree}/numbers")
    after = who.status()

    assert f"process {pid}" in before["mounted"]
    assert before["repository"] == str(who.user.home / "repository")
    assert (before["snapshots"], before["storage"], before["waiting"]) == ("1", "answers", "0")
    assert int(before["requests"].split(",")[0]) < int(after["requests"].split(",")[0])
    assert after["slowest"].endswith(" ago")
    for command in (f"tar -C {who.past} -cf - .", f"grep -r storage {who.past}", f"cat {who.past}/.backthen"):
        done = subprocess.run([*who.role.prefix, *command.split()], capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
    size = int(who.role.call("stat", "--format=%s", who.past / ".backthen"))
    assert size == len(who.read(who.past / ".backthen"))
    who.user.run("umount", str(who.past))


def test_in_a_folder_shown_alone_the_status_is_not_listed(who: Onlooker) -> None:
    who.mount("--snapshot", f"latest:{who.tree}")
    assert who.names(who.past) == ["letter", "numbers"]
    assert who.status()["storage"] == "answers"
    who.user.run("umount", str(who.past))

    subprocess.run([*who.role.prefix, "sh", "-c", f"echo mine >{who.tree}/.backthen"], check=True)
    who.user.snapshot(str(who.tree))
    who.mount("--snapshot", f"latest:{who.tree}")
    assert who.names(who.past) == [".backthen", "letter", "numbers"]
    assert who.read(who.past / ".backthen") == b"mine\n"
    who.user.run("umount", str(who.past))


def test_the_caches_hold_what_they_are_told_to(who: Onlooker) -> None:
    def bounds() -> list[bytes]:
        lines = who.read(who.past / ".backthen").splitlines()
        return sorted(line.split(b" of ")[1].strip() for line in lines if line.startswith(b"memory"))

    who.mount("--cache-size", "8M")
    assert who.read(who.past / f"latest{who.tree}/numbers") == (who.tree / "numbers").read_bytes()
    sizes = [float(bound.removesuffix(b" MiB")) for bound in bounds()]
    assert 7.8 < sum(sizes) < 8.2
    who.user.run("umount", str(who.past))
    for wrong in ("", "7M", "many", "-5", "200 MB of it"):
        assert "--cache-size" in who.user.run("mount", "--cache-size", wrong, str(who.past), code=2).err
    assert "2" in who.user.run("mount", "--timeout", "1", str(who.past), code=2).err


# Bookmarks


def test_a_bookmark_is_made_once_and_taken_away_and_others_stay(user: User, tree: Path, past: Path) -> None:
    user.snapshot(str(tree))
    bookmarks = user.home / "config" / "gtk-3.0" / "bookmarks"
    user.run("mount", str(past))
    assert not bookmarks.exists(), "nobody asked for it"
    user.run("umount", str(past))

    bookmarks.parent.mkdir(parents=True)
    others = b"file:///home/me/Music\nsftp://host/ Host\xff\n"
    bookmarks.write_bytes(others)
    for _ in range(2):
        user.run("mount", "--bookmark", str(past))
        assert bookmarks.read_bytes() == others + f"file://{past} Past\n".encode()
        user.run("umount", str(past))
    user.run("mount", str(past))
    user.run("umount", "--remove-bookmark", str(past))
    assert bookmarks.read_bytes() == others


def test_a_bookmark_that_cannot_be_written_is_no_reason_not_to_mount(user: User, tree: Path, past: Path) -> None:
    user.snapshot(str(tree))
    (user.home / "config").mkdir()
    (user.home / "config" / "gtk-3.0").write_bytes(b"")
    done = user.run("mount", "--bookmark", str(past))

    assert "bookmark could not be written" in done.err
    assert "latest" in os.listdir(past)
    user.run("umount", str(past))
