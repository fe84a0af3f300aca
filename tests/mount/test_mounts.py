"""How real mounts come, behave under trouble, and go; as root and as an ordinary user."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from backthen.fsmount import MountBusy, NotMounted, UnusableMountpoint
from tests.mount.sample import BIG, SPARSE
from tests.mount.test_behaviour import refusal
from tests.mount.worlds import Agent, MountWorld


@pytest.fixture
def mount(agent: Agent, binding: str) -> Iterator[MountWorld]:
    """A mount that the test may do anything with."""
    mount = MountWorld(agent, binding)
    yield mount
    if agent.ask("mount_state", mount.mountpoint) != "FREE":
        agent.ask("unmount", mount.mountpoint, True)
        agent.ask("wait", mount.server)
    agent.ask("rmdir", mount.mountpoint)


def test_mount_is_read_only_without_suid_and_devices(mount: MountWorld) -> None:
    options = mount.agent.ask("mount_options", mount.mountpoint)

    assert isinstance(options, frozenset)
    assert {"ro", "nosuid", "nodev"} <= options


def test_live_mount_is_known_as_such(mount: MountWorld) -> None:
    assert mount.agent.ask("mount_state", mount.mountpoint) == "LIVE"


def test_size_is_what_is_stored_and_nothing_is_free(mount: MountWorld) -> None:
    found = mount.agent.ask("statvfs", mount.mountpoint)

    assert isinstance(found, os.statvfs_result)
    assert found.f_namemax == 255
    assert found.f_blocks > 0
    assert found.f_files > 3000
    assert (found.f_bfree, found.f_bavail, found.f_ffree) == (0, 0, 0)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("attempt_open", (b"latest/kinds/empty", os.O_WRONLY)),
        ("attempt_open", (b"latest/kinds/empty", os.O_RDWR)),
        ("attempt_open", (b"latest/new", os.O_RDWR | os.O_CREAT)),
        ("chmod", (b"latest/kinds/empty", 0o600)),
        ("chown", (b"latest/kinds/empty", 1, 1)),
        ("mkdir", (b"latest/new",)),
        ("mkfifo", (b"latest/new",)),
        ("removexattr", (b"latest/kinds/attributed", b"user.small")),
        ("rmdir", (b"latest/kinds/nothing",)),
        ("setxattr", (b"latest/kinds/empty", b"user.new", b"1")),
        ("truncate", (b"latest/kinds/empty", 0)),
        ("unlink", (b"latest",)),
        ("utime", (b"latest/kinds/empty", (1, 1))),
    ],
)
def test_every_change_is_refused(mount: MountWorld, function: str, arguments: tuple[object, ...]) -> None:
    path, *rest = arguments
    assert isinstance(path, bytes)

    with refusal(errno.EROFS):
        mount.agent.ask(function, mount.path(path), *rest)


@pytest.mark.parametrize("function", ["link", "rename"])
def test_every_change_of_two_names_is_refused(mount: MountWorld, function: str) -> None:
    with refusal(errno.EROFS):
        mount.agent.ask(function, mount.path(b"latest/kinds/empty"), mount.path(b"latest/kinds/new"))


def test_holes_are_told_where_the_binding_can_and_are_data_elsewhere(mount: MountWorld, binding: str) -> None:
    end = len(SPARSE)
    expected = [(0, 5000), (end - 100, end)] if binding == "libfuse3" else [(0, end)]

    assert mount.agent.ask("stretches", mount.path(b"latest/kinds/sparse")) == expected
    assert mount.agent.ask("stretches", mount.path(b"latest/kinds/big")) == [(0, len(BIG))]


def test_numbers_are_the_same_at_every_mount(agent: Agent, binding: str) -> None:
    paths = (b"", b"latest", b"snapshots", b"latest/kinds/file", b"latest/kinds/first", b"latest/many/01234")
    numbers = []
    for _ in range(2):
        mount = MountWorld(agent, binding)
        numbers.append([mount.lstat(path).ino for path in paths])
        mount.close()

    assert numbers[0] == numbers[1]


def test_new_snapshot_appears_within_two_seconds(mount: MountWorld) -> None:
    mount.agent.ask("order", mount.server, "add")

    assert mount.agent.ask("wait_for", mount.path(b"snapshots"), 4, 2) == 4


def test_latest_follows_within_two_seconds(mount: MountWorld) -> None:
    before = mount.target(b"latest")
    assert mount.read(b"latest/kinds/file", 0, 100) == b"hello\n"
    mount.agent.ask("order", mount.server, "add")

    target = mount.agent.ask("wait_for_target", mount.path(b"latest"), before, 2)

    assert isinstance(target, bytes)
    assert b"_new_" in target
    assert mount.names(b"latest") == []


def test_forgotten_snapshot_goes(mount: MountWorld) -> None:
    oldest = mount.names(b"hosts/one")[0]
    assert mount.names(b"hosts/one/" + oldest) == [b"home"]
    mount.agent.ask("order", mount.server, "forget")

    assert mount.agent.ask("wait_for", mount.path(b"snapshots"), 2, 2) == 2
    assert mount.read(b"latest/kinds/file", 0, 100) == b"hello\n"


@pytest.mark.parametrize("trouble", ["fail", "hang"])
def test_snapshots_stay_when_the_list_cannot_be_read(mount: MountWorld, trouble: str) -> None:
    names = mount.names(b"snapshots")
    mount.agent.ask("order", mount.server, trouble)

    assert mount.agent.ask("wait_for", mount.path(b"snapshots"), 0, 1.5) == len(names)
    assert mount.read(b"latest/kinds/file", 0, 100) == b"hello\n"


def test_failing_list_is_logged_once(mount: MountWorld) -> None:
    mount.agent.ask("order", mount.server, "fail")
    mount.agent.ask("wait_for", mount.path(b"snapshots"), 0, 2.5)

    assert mount.agent.text("log", mount.server).count("the disk is gone") == 1


def test_damaged_object_is_named_once_in_the_log(mount: MountWorld) -> None:
    for _ in range(2):
        with refusal(errno.EIO):
            mount.read(b"latest/kinds/damaged", 0, 2000)

    assert mount.agent.text("log", mount.server).count("packs/12/1234") == 1


def test_bug_below_fails_the_request_and_not_the_mount(mount: MountWorld) -> None:
    mount.agent.ask("order", mount.server, "add")
    mount.agent.ask("order", mount.server, "break")

    assert mount.agent.ask("wait_for", mount.path(b"snapshots"), 4, 1.5) == 3
    assert mount.read(b"latest/kinds/file", 0, 100) == b"hello\n"


def test_reads_are_answered_while_a_slow_one_waits(mount: MountWorld) -> None:
    mount.agent.ask("order", mount.server, "close gate")
    slow, fast = mount.path(b"latest/kinds/big"), mount.path(b"latest/kinds/file")

    assert mount.agent.ask("read_during", slow, fast, mount.server) == (b"hello\n", True, 100_000)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_unmounts_and_ends_well(mount: MountWorld, number: signal.Signals) -> None:
    mount.agent.ask("kill", mount.server, number)

    assert mount.agent.ask("wait", mount.server) == 0
    assert mount.agent.ask("mount_state", mount.mountpoint) == "FREE"


def test_signal_is_not_held_up_by_a_request_that_waits(mount: MountWorld) -> None:
    mount.agent.ask("order", mount.server, "hang")
    mount.agent.ask("kill", mount.server, signal.SIGTERM)

    assert mount.agent.ask("wait", mount.server) == 0


def test_signal_is_not_held_up_by_a_read_that_waits_and_the_read_fails(mount: MountWorld) -> None:
    mount.agent.ask("order", mount.server, "close gate")
    result = mount.agent.ask("stop_during_read", mount.path(b"latest/kinds/big"), mount.server)

    assert isinstance(result, tuple)
    ended, told = result
    assert ended == 0
    assert told.errno in (errno.ECONNABORTED, errno.ENOTCONN)
    assert mount.agent.ask("mount_state", mount.mountpoint) == "FREE"


def test_unmount_ends_the_server_well(mount: MountWorld) -> None:
    mount.agent.ask("unmount", mount.mountpoint, False)

    assert mount.agent.ask("wait", mount.server) == 0
    assert mount.agent.ask("mount_state", mount.mountpoint) == "FREE"


def test_busy_mount_is_said_to_be_busy_and_stays(mount: MountWorld) -> None:
    with pytest.raises(MountBusy, match="is busy"):
        mount.agent.ask("busy_unmount", mount.mountpoint)
    assert mount.agent.ask("mount_state", mount.mountpoint) == "LIVE"


@pytest.mark.parametrize("path", [b"", b"latest", b"latest/kinds/file"])
def test_killed_mount_answers_enotconn_until_cleaned(mount: MountWorld, path: bytes) -> None:
    mount.lstat(path)
    mount.agent.ask("kill", mount.server, signal.SIGKILL)
    assert mount.agent.ask("wait", mount.server) == -signal.SIGKILL

    with refusal(errno.ENOTCONN):
        mount.names(b"")
    assert mount.agent.ask("mount_state", mount.mountpoint) == "STALE"
    assert mount.agent.ask("clean_stale", mount.mountpoint) is True
    assert mount.agent.ask("mount_state", mount.mountpoint) == "FREE"
    assert mount.agent.ask("clean_stale", mount.mountpoint) is False


@pytest.mark.parametrize("only", [None, (2, b"kinds")])
def test_killed_mount_is_cleaned_by_unmount(agent: Agent, binding: str, only: tuple[int, bytes] | None) -> None:
    mount = MountWorld(agent, binding, only=only)
    mount.lstat(b"")
    agent.ask("kill", mount.server, signal.SIGKILL)
    agent.ask("wait", mount.server)

    agent.ask("unmount", mount.mountpoint, False)

    assert agent.ask("mount_state", mount.mountpoint) == "FREE"
    agent.ask("rmdir", mount.mountpoint)


def test_killed_mount_is_cleaned_by_the_next_mount(mount: MountWorld, binding: str) -> None:
    mount.agent.ask("kill", mount.server, signal.SIGKILL)
    mount.agent.ask("wait", mount.server)

    mount.server = mount.agent.number("start", mount.mountpoint, None, False, False, binding)

    assert mount.agent.ask("mount_state", mount.mountpoint) == "LIVE"


def test_path_that_is_not_mounted_cannot_be_unmounted(agent: Agent) -> None:
    with pytest.raises(NotMounted, match="nothing is mounted"):
        agent.ask("unmount", "/usr", False)
    with pytest.raises(NotMounted, match="is not Backthen's"):
        agent.ask("unmount", "/proc", False)


def test_one_directory_of_a_snapshot_is_shown_alone(agent: Agent, binding: str) -> None:
    mount = MountWorld(agent, binding, only=(2, b"/kinds"))

    assert mount.lstat(b"").ino == 1
    assert b"file" in mount.names(b"")
    assert not {b"snapshots", b"latest"} & set(mount.names(b""))
    assert mount.lstat(b"first").ino == mount.lstat(b"deeper/third").ino
    assert mount.read(b"file", 0, 100) == b"hello\n"
    mount.close()


@pytest.mark.parametrize(
    ("only", "message"), [((2, b"/kinds/file"), "only a folder can be mounted"), ((2, b"/none"), "has no '/none'")]
)
def test_what_is_no_directory_cannot_be_shown_alone(
    agent: Agent, binding: str, only: tuple[int, bytes], message: str
) -> None:
    folder = agent.text("make_folder")

    with pytest.raises(RuntimeError, match=message):
        agent.ask("start", folder, only, False, False, binding)

    assert agent.ask("mount_state", folder) == "FREE"
    agent.ask("rmdir", folder)


def test_taken_mountpoint_is_refused(mount: MountWorld) -> None:
    with pytest.raises(UnusableMountpoint, match="is taken"):
        mount.agent.ask("prepare", mount.mountpoint, None)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/usr", "is not empty"),
        ("/usr/none", "does not exist"),
        ("/etc/passwd", "is not a folder"),
        ("/proc", "is taken"),
    ],
)
def test_unusable_mountpoint_is_refused(agent: Agent, path: str, message: str) -> None:
    with pytest.raises(UnusableMountpoint, match=message):
        agent.ask("prepare", path, None)


def test_mountpoint_inside_the_repository_is_refused(agent: Agent) -> None:
    folder = agent.text("make_folder")
    inside = os.path.join(folder, "tmp")
    agent.ask("mkdir", inside)

    with pytest.raises(UnusableMountpoint, match="inside the repository"):
        agent.ask("prepare", inside, folder)

    assert agent.ask("prepare", inside, folder + "-other") == Path(inside)
    agent.ask("rmdir", inside)
    agent.ask("rmdir", folder)


def test_others_are_let_in_only_when_told_so_and_then_held_to_the_saved_rights(root_agent: Agent, binding: str) -> None:
    mount = MountWorld(root_agent, binding, allow_other=True)
    kinds = mount.path(b"latest/kinds/")

    options = root_agent.ask("super_options", mount.mountpoint)
    assert isinstance(options, frozenset)
    assert {"allow_other", "default_permissions"} <= options
    assert root_agent.ask("read_as_nobody", kinds + b"attributed") == b"x"
    for name in (b"first", b"file", b"denied"):
        with refusal(errno.EACCES):
            root_agent.ask("read_as_nobody", kinds + name)

    mount.close()


def test_others_are_kept_out_otherwise(root_agent: Agent, binding: str) -> None:
    mount = MountWorld(root_agent, binding)

    with refusal(errno.EACCES):
        root_agent.ask("read_as_nobody", mount.path(b"latest/kinds/attributed"))

    mount.close()


def test_mount_for_its_owner_alone_needs_no_permission_checks(mount: MountWorld) -> None:
    options = mount.agent.ask("super_options", mount.mountpoint)

    assert isinstance(options, frozenset)
    assert not {"allow_other", "default_permissions"} & options
