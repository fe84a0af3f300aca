"""The adapter for pyfuse3 by itself: what it refuses, and what it does about time."""

from __future__ import annotations

import errno
import inspect
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from unittest.mock import Mock

import pyfuse3
import pytest
import trio

from backthen.fsmount.adapters.libfuse import CHANGING_S
from backthen.fsmount.adapters.pyfuse3 import LASTING_S, Adapter
from backthen.fsmount.view import ROOT_NUMBER, Owner, View, history_view
from backthen.repository import monotonic_ns
from tests.mount.sample import sample_history
from tests.support.history import MemoryHistory

CONTEXT = Mock(spec=pyfuse3.RequestContext)
CHANGES = frozenset(
    [
        "setattr",
        "mknod",
        "mkdir",
        "unlink",
        "rmdir",
        "symlink",
        "rename",
        "link",
        "write",
        "create",
        "setxattr",
        "removexattr",
    ]
)
ANSWERED = frozenset(
    [
        "lookup",
        "forget",
        "getattr",
        "readlink",
        "open",
        "read",
        "release",
        "opendir",
        "readdir",
        "releasedir",
        "statfs",
        "getxattr",
        "listxattr",
    ]
)
LEFT_TO_THE_KERNEL = frozenset(["access", "flush", "fsync", "fsyncdir", "init", "poll", "stacktrace"])
"""Told by ENOSYS not to be asked again, which spares the requests; reading alone needs none of them."""


def _view() -> tuple[View, MemoryHistory]:
    history, _ = sample_history()
    return history_view(history, Owner(0, 0), monotonic_ns), history


def _find(view: View, path: bytes) -> pyfuse3.InodeT:
    number = ROOT_NUMBER
    for name in path.split(b"/"):
        number = view.lookup(view.source, number, name).number
    return pyfuse3.InodeT(number)


def _kinds(view: View) -> bytes:
    return view.target(view.source, _find(view, b"latest")) + b"/kinds/"


def _run(action: Callable[[], Awaitable[object]]) -> object:
    async def main() -> object:
        return await action()

    return trio.run(main)


def test_every_operation_of_pyfuse3_is_decided_on() -> None:
    operations = {name for name, _ in inspect.getmembers(pyfuse3.Operations, inspect.isfunction)} - {"__init__"}

    assert operations == CHANGES | ANSWERED | LEFT_TO_THE_KERNEL
    assert {name for name in operations if name in vars(Adapter)} == CHANGES | ANSWERED


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_every_change_is_refused(name: str) -> None:
    adapter = Adapter(_view()[0], enable_acl=False)
    method = getattr(adapter, name)
    arguments = [Mock() for _ in inspect.signature(method).parameters]

    with pytest.raises(pyfuse3.FUSEError) as caught:
        _run(lambda: method(*arguments))

    assert caught.value.errno == errno.EROFS


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND])
def test_opening_for_change_is_refused(flags: int) -> None:
    view, _ = _view()
    adapter = Adapter(view, enable_acl=False)
    number = _find(view, _kinds(view) + b"empty")

    with pytest.raises(pyfuse3.FUSEError) as caught:
        _run(lambda: adapter.open(number, pyfuse3.FlagT(flags), CONTEXT))

    assert caught.value.errno == errno.EROFS


def test_kernel_may_keep_a_snapshot_for_ever_and_all_else_for_half_a_second() -> None:
    view, _ = _view()
    adapter = Adapter(view, enable_acl=False)
    kinds = _kinds(view)
    snapshot = kinds.split(b"/")[1]

    async def kept(path: bytes) -> tuple[float, float]:
        above, _, name = path.rpartition(b"/")
        parent = _find(view, above) if above else pyfuse3.InodeT(ROOT_NUMBER)
        found = await adapter.lookup(parent, pyfuse3.FileNameT(name), CONTEXT)
        return found.entry_timeout, found.attr_timeout

    async def ask() -> list[tuple[float, float]]:
        paths = [b"latest", b"hosts", b"snapshots/" + snapshot, kinds + b"file", kinds + b"deeper"]
        return [await kept(path) for path in [*paths, b"none", kinds + b"none"]]

    latest, hosts, top, file, deeper, none, none_in_snapshot = trio.run(ask)
    assert latest == hosts == (CHANGING_S, CHANGING_S)
    assert top == (CHANGING_S, LASTING_S)
    assert file == deeper == (LASTING_S, LASTING_S)
    assert (none[0], none_in_snapshot[0]) == (CHANGING_S, LASTING_S)


def test_name_that_is_not_there_is_answered_so_that_it_can_be_kept() -> None:
    adapter = Adapter(_view()[0], enable_acl=False)

    found = _run(lambda: adapter.lookup(pyfuse3.InodeT(ROOT_NUMBER), pyfuse3.FileNameT(b"none"), CONTEXT))

    assert isinstance(found, pyfuse3.EntryAttributes)
    assert found.st_ino == 0


def test_request_that_takes_too_long_fails_and_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    view, history = _view()
    adapter = Adapter(view, enable_acl=False, request_deadline_s=0.05)
    kinds = _kinds(view)
    big, file = _find(view, kinds + b"big"), _find(view, kinds + b"file")
    node = view.open_file(view.source, big).node
    assert node is not None
    page = node.entry.page
    assert page is not None
    gate = history.blobs.gates[page.id] = threading.Event()

    async def ask() -> bytes:
        slow = await adapter.open(big, pyfuse3.FlagT(os.O_RDONLY), CONTEXT)
        fast = await adapter.open(file, pyfuse3.FlagT(os.O_RDONLY), CONTEXT)
        with pytest.raises(pyfuse3.FUSEError) as caught:
            await adapter.read(slow.fh, 0, 10)
        assert caught.value.errno == errno.EIO
        return bytes(await adapter.read(fast.fh, 0, 10))

    try:
        assert trio.run(ask) == b"hello\n"
    finally:
        gate.set()
    assert "was not answered by the storage in time" in caplog.text
    assert view.activity.given_up == 1


def test_what_is_in_memory_is_answered_without_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    view, _ = _view()
    adapter = Adapter(view, enable_acl=False)
    number = _find(view, _kinds(view) + b"file")
    asked: list[object] = []
    monkeypatch.setattr(trio.to_thread, "run_sync", asked.append)

    async def ask() -> bytes:
        opened = await adapter.open(number, pyfuse3.FlagT(os.O_RDONLY), CONTEXT)
        return bytes(await adapter.read(opened.fh, 0, 10))

    assert trio.run(ask) == b"hello\n"
    assert asked == []


def test_bug_in_the_view_is_logged_and_answered(caplog: pytest.LogCaptureFixture) -> None:
    view = Mock(spec=View, near=None, source=None)
    view.attributes.side_effect = ZeroDivisionError("oh")
    adapter = Adapter(view, enable_acl=False)

    with pytest.raises(pyfuse3.FUSEError) as caught, caplog.at_level(logging.ERROR):
        _run(lambda: adapter.getattr(pyfuse3.InodeT(5), CONTEXT))

    assert caught.value.errno == errno.EIO
    assert "ZeroDivisionError" in caplog.text


def test_others_are_held_to_the_acls_in_the_snapshot() -> None:
    assert Adapter(_view()[0], enable_acl=True).enable_acl
    assert not Adapter(_view()[0], enable_acl=False).enable_acl
