"""The adapter for refuse and mfusepy by itself: what it refuses, how it names files, and what it does about time."""

from __future__ import annotations

import errno
import logging
import os
import threading
from pathlib import Path
from unittest.mock import Mock

import mfusepy
import pytest
import refuse.high

from backthen.fsmount import MountRefused
from backthen.fsmount.adapters.refuse import Adapter, serve_view
from backthen.fsmount.view import Owner, View, history_view
from backthen.repository import monotonic_ns
from tests.mount.sample import ODD_NAMES, sample_history
from tests.mount.test_behaviour import refusal
from tests.mount.worlds import Agent, MountWorld

CHANGES = {
    "chmod", "chown", "create", "link", "mkdir", "mknod", "removexattr", "rename", "rmdir", "setxattr", "symlink",
    "truncate", "unlink", "utimens", "write",
}  # fmt: skip
ANSWERED = {
    "getattr", "getxattr", "init", "listxattr", "open", "opendir", "read", "readdir", "readlink", "release",
    "releasedir", "statfs",
}  # fmt: skip
LEFT_TO_LIBFUSE = {"access", "bmap", "destroy", "flush", "fsync", "fsyncdir", "ioctl", "lock"}
"""Told by ENOSYS not to be asked again; reading alone needs none of them."""
ONLY_OF_MFUSEPY = {
    "fallocate", "flock", "init_with_config", "poll", "read_buf", "readdir_with_offset", "write_buf"
}  # fmt: skip


def _adapter(*, allow_other: bool = False, request_deadline_s: float = 30) -> Adapter:
    view = history_view(sample_history()[0], Owner(0, 0), monotonic_ns)
    return Adapter(view, allow_other=allow_other, initialised=lambda: None, request_deadline_s=request_deadline_s)


def _kinds(adapter: Adapter) -> str:
    return "/" + adapter.readlink("/latest") + "/kinds/"


def _operations(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


def test_every_operation_of_both_libraries_is_decided_on() -> None:
    assert _operations(refuse.high.Operations) == CHANGES | ANSWERED | LEFT_TO_LIBFUSE
    assert _operations(mfusepy.Operations) == CHANGES | ANSWERED | LEFT_TO_LIBFUSE | ONLY_OF_MFUSEPY
    assert _operations(Adapter) == CHANGES | ANSWERED | {"use_ns"}


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_every_change_is_refused(name: str) -> None:
    with refusal(errno.EROFS):
        getattr(_adapter(), name)("/latest", 1, 2, 3)


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND])
def test_opening_for_change_is_refused(flags: int) -> None:
    adapter = _adapter()

    with refusal(errno.EROFS):
        adapter.open(_kinds(adapter) + "empty", flags)


def test_any_byte_of_a_name_has_its_character() -> None:
    adapter = _adapter()
    folder = "/" + adapter.readlink("/latest") + "/odd"

    names = {name for name, _, offset in adapter.readdir(folder, adapter.opendir(folder)) if offset == 0}

    assert {name.encode("latin-1") for name in names} == set(ODD_NAMES)
    assert {adapter.getattr(f"{folder}/{name}")["st_size"] for name in names} == {len(name) for name in ODD_NAMES}


def test_request_that_takes_too_long_fails_and_others_go_on() -> None:
    history, _ = sample_history()
    view = history_view(history, Owner(0, 0), monotonic_ns)
    adapter = Adapter(view, allow_other=False, initialised=lambda: None, request_deadline_s=0.05)
    kinds = _kinds(adapter)
    slow, fast = adapter.open(kinds + "big", os.O_RDONLY), adapter.open(kinds + "file", os.O_RDONLY)
    node = adapter._files.get(slow).node
    assert node is not None and node.entry.page is not None
    page = node.entry.page
    gate = history.blobs.gates[page.id] = threading.Event()

    with refusal(errno.EIO):
        adapter.read(kinds + "big", 10, 0, slow)
    assert adapter.read(kinds + "file", 10, 0, fast) == b"hello\n"
    gate.set()
    assert adapter.read(kinds + "big", 10, 0, slow) == bytes(10)


def test_bug_in_the_view_is_logged_and_answered(caplog: pytest.LogCaptureFixture) -> None:
    view = Mock(spec=View, near=None, source=None)
    view.attributes.side_effect = ZeroDivisionError("oh")
    adapter = Adapter(view, allow_other=False, initialised=lambda: None)

    with refusal(errno.EIO), caplog.at_level(logging.ERROR):
        adapter.getattr("/")

    assert "ZeroDivisionError" in caplog.text


def test_what_was_opened_is_let_go() -> None:
    adapter = _adapter()
    path = _kinds(adapter) + "file"

    adapter.release(path, adapter.open(path, os.O_RDONLY))
    adapter.releasedir("/", adapter.opendir("/"))

    assert not adapter._files._open
    assert not adapter._listings._open


@pytest.mark.parametrize(("allow_other", "mode"), [(False, 0o100644), (True, 0o100600)])
def test_what_an_acl_might_deny_is_shown_to_be_the_owners_alone_where_others_are_let_in(
    allow_other: bool, mode: int
) -> None:
    adapter = _adapter(allow_other=allow_other)

    assert adapter.getattr(_kinds(adapter) + "denied")["st_mode"] == mode
    assert adapter.getattr(_kinds(adapter) + "attributed")["st_mode"] == 0o100644


@pytest.mark.parametrize(("binding", "library"), [("mfusepy", "mfusepy"), ("refuse", "refuse.high")])
def test_the_maintained_library_is_taken_if_it_is_installed_else_the_other(
    agent: Agent, binding: str, library: str
) -> None:
    mount = MountWorld(agent, binding)

    assert f"mounting with {library}" in mount.agent.text("log", mount.server)

    mount.close()


def test_refused_mount_says_why(tmp_path: Path) -> None:
    view = history_view(sample_history()[0], Owner(0, 0), monotonic_ns)

    with pytest.raises(MountRefused, match=r"cannot mount at .*none"):
        serve_view(
            view, tmp_path / "none", allow_other=False, request_deadline_s=30, mounted=lambda: None, ready=lambda: None
        )


def test_mount_that_is_not_as_asked_is_taken_away_before_it_is_announced(tmp_path: Path) -> None:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("this user may not open /dev/fuse")
    view = history_view(sample_history()[0], Owner(0, 0), monotonic_ns)
    announced: list[str] = []

    def mounted() -> None:
        raise MountRefused("not read-only")

    with pytest.raises(MountRefused, match="not read-only"):
        serve_view(
            view,
            tmp_path,
            allow_other=False,
            request_deadline_s=30,
            mounted=mounted,
            ready=lambda: announced.append("ready"),
        )

    assert announced == []
    assert os.listdir(tmp_path) == []
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


def test_mount_that_libfuse_gives_up_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(operations: Adapter, mountpoint: str, **options: object) -> None:
        operations.init("/")
        raise RuntimeError(1)

    monkeypatch.setattr(mfusepy, "FUSE", give_up)
    view = history_view(sample_history()[0], Owner(0, 0), monotonic_ns)

    with pytest.raises(MountRefused, match="gave up serving"):
        serve_view(view, tmp_path, allow_other=False, request_deadline_s=30, mounted=lambda: None, ready=lambda: None)
