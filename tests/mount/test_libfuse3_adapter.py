"""The adapter for libfuse 3 by itself; a socket stands for the kernel's end of the connection."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest

from backthen.fsmount.adapters import fuse_protocol as protocol
from backthen.fsmount.adapters import libfuse3_session
from backthen.fsmount.adapters.fuse_connection import Connection, Refusal, joined
from backthen.fsmount.adapters.fuse_protocol import Opcode, UnknownProtocol
from backthen.fsmount.adapters.libfuse import CHANGING_S
from backthen.fsmount.adapters.libfuse3 import CHANGES, Adapter
from backthen.fsmount.adapters.waiting import WAITING_MAX, WORKERS_MAX, Answer, Waiting
from backthen.fsmount.drivers import Driver, load_driver
from backthen.fsmount.errors import MountRefused
from backthen.fsmount.view import ROOT_NUMBER, Owner, View, history_view
from backthen.repository import BlobSource, NotInMemory, monotonic_ns
from tests.mount.sample import MANY, sample_history
from tests.support.history import Folder, MemoryHistory

WAIT_S = 20
LEFT_TO_THE_KERNEL = (20, 25, 28, 30, 31, 32, 33, 34, 36, 37, 39, 40, 52, 4000)
"""fsync, flush, plain listings, locks, access, interrupts, bmap, ioctl, poll, statx, and what there may be."""
POSIX_ACL, READDIRPLUS_AUTO, CACHE_SYMLINKS = 1 << 20, 1 << 14, 1 << 23


def _view() -> tuple[View, MemoryHistory]:
    history, _ = sample_history()
    return history_view(history, Owner(0, 0), monotonic_ns), history


def _adapter(view: View, *, enable_acl: bool = False) -> Adapter:
    return Adapter(view, enable_acl=enable_acl, initialised=lambda: None)


def _ask(adapter: Adapter, source: BlobSource, opcode: int, number: int, body: bytes) -> bytes:
    return joined(adapter.answer(source, opcode, number, body))


def _find(view: View, path: bytes) -> int:
    number = ROOT_NUMBER
    for name in path.split(b"/"):
        number = view.lookup(view.source, number, name).number
    return number


def _kinds(view: View) -> bytes:
    return view.target(view.source, _find(view, b"latest")) + b"/kinds/"


def _offer(flags: int, minor: int = 38) -> bytes:
    return struct.pack("=IIII48x", 7, minor, 1 << 17, flags)


class Kernel:
    """The other end of a connection."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self.end.settimeout(WAIT_S)

    def request(self, unique: int, opcode: int, number: int, body: bytes = b"") -> None:
        self.end.send(struct.pack("=IIQQIIIHH", 40 + len(body), opcode, unique, number, 0, 0, 0, 0, 0) + body)

    def reply(self) -> tuple[int, int, bytes]:
        """Number of the request, error, payload."""
        data = self.end.recv(1 << 21)
        length, error, unique = struct.unpack_from("=IiQ", data)
        assert length == len(data)
        return unique, -error, data[16:]

    def ask(self, opcode: int, number: int, body: bytes = b"") -> bytes:
        self.request(1, opcode, number, body)
        unique, error, payload = self.reply()
        assert unique == 1
        if error:
            raise OSError(error, "refused")
        return payload


@contextmanager
def _kernel(view: View, adapter: Adapter, deadline_s: float = WAIT_S) -> Iterator[Kernel]:
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection = Connection(ours.fileno(), view, adapter.answer, adapter.prepare, deadline_s=deadline_s)
    serving = threading.Thread(target=connection.serve)
    serving.start()
    try:
        yield Kernel(theirs)
    finally:
        theirs.close()
        serving.join()
        ours.close()


def test_every_request_is_decided_on() -> None:
    answered = set(_adapter(_view()[0]).operations)

    assert answered | {Opcode.FORGET, Opcode.BATCH_FORGET} == set(Opcode)
    assert not answered & set(LEFT_TO_THE_KERNEL)


@pytest.mark.parametrize("opcode", CHANGES)
def test_every_change_is_refused(opcode: Opcode) -> None:
    view, _ = _view()

    with pytest.raises(Refusal) as caught:
        _adapter(view).answer(view.near, opcode, ROOT_NUMBER, bytes(64))

    assert caught.value.number == errno.EROFS


@pytest.mark.parametrize("opcode", LEFT_TO_THE_KERNEL)
def test_what_is_not_answered_is_left_to_the_kernel(opcode: int) -> None:
    view, _ = _view()

    with pytest.raises(Refusal) as caught:
        _adapter(view).answer(view.near, opcode, ROOT_NUMBER, bytes(64))

    assert caught.value.number == errno.ENOSYS


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND])
def test_opening_for_change_is_refused(flags: int) -> None:
    view, _ = _view()
    number = _find(view, _kinds(view) + b"empty")

    with pytest.raises(Refusal) as caught:
        _adapter(view).answer(view.near, Opcode.OPEN, number, struct.pack("=II", flags, 0))

    assert caught.value.number == errno.EROFS


def test_kernel_may_keep_a_snapshot_for_ever_and_all_else_for_half_a_second() -> None:
    view, _ = _view()
    adapter = _adapter(view)
    kinds = _kinds(view)

    def kept(path: bytes) -> tuple[float, float]:
        above, _, name = path.rpartition(b"/")
        parent = _find(view, above) if above else ROOT_NUMBER
        found = _ask(adapter, view.near, Opcode.LOOKUP, parent, name + b"\0")
        _, _, entry, attributes, entry_ns, attributes_ns = struct.unpack_from("=QQQQII", found)
        return entry + entry_ns / 1e9, attributes + attributes_ns / 1e9

    lasting = protocol.LASTING.seconds
    assert kept(b"latest") == kept(b"hosts") == (CHANGING_S, CHANGING_S)
    assert kept(kinds[:-7]) == (CHANGING_S, lasting)
    assert kept(kinds + b"file") == kept(kinds + b"deeper") == (lasting, lasting)
    assert kept(kinds + b"none") == (lasting, 0)
    assert kept(b"none") == (CHANGING_S, 0)


def test_kernel_may_keep_the_listings_of_snapshots_alone() -> None:
    view, _ = _view()
    adapter = _adapter(view)

    def flags(number: int) -> int:
        _, flags, _ = struct.unpack("=QII", _ask(adapter, view.near, Opcode.OPENDIR, number, bytes(8)))
        assert isinstance(flags, int)
        return flags

    assert flags(_find(view, _kinds(view)[:-1])) == protocol.KEEP_CACHE | protocol.CACHE_LISTING
    assert flags(ROOT_NUMBER) == flags(_find(view, b"snapshots")) == 0


def test_listing_in_small_pieces_has_everything_once() -> None:
    view, _ = _view()
    adapter = _adapter(view)
    number = _find(view, _kinds(view)[:-6] + b"many")
    handle, _, _ = struct.unpack("=QII", _ask(adapter, view.near, Opcode.OPENDIR, number, bytes(8)))
    names: list[bytes] = []
    after = 0
    while payload := _ask(adapter, view.near, Opcode.READDIRPLUS, number, struct.pack("=QQI20x", handle, after, 1000)):
        assert len(payload) <= 1000
        at = 0
        while at < len(payload):
            listed, after, length, _ = struct.unpack_from("=QQII", payload, at + 128)
            name = bytes(payload[at + 152 : at + 152 + length])
            assert struct.unpack_from("=Q", payload, at) == (0 if name in (b".", b"..") else listed,)
            names.append(name)
            at += -(-(152 + length) // 8) * 8

    assert names[:2] == [b".", b".."]
    assert len(names) == len(set(names)) == MANY + 2


def _listed(source: BlobSource, adapter: Adapter, number: int) -> list[tuple[int, bytes]]:
    """List a directory; numbers and names."""
    (handle,) = struct.unpack_from("=Q", _ask(adapter, source, Opcode.OPENDIR, number, bytes(8)))
    found, after = [], 0
    while payload := _ask(adapter, source, Opcode.READDIRPLUS, number, struct.pack("=QQI20x", handle, after, 32 << 10)):
        at = 0
        while at < len(payload):
            listed, after, length, _ = struct.unpack_from("=QQII", payload, at + 128)
            found.append((listed, bytes(payload[at + 152 : at + 152 + length])))
            at += -(-(152 + length) // 8) * 8
    return found


@pytest.mark.parametrize("kind", ["near", "source"])
def test_folders_that_were_made_ready_are_listed_as_if_they_were_not(kind: str) -> None:
    view, _ = _view()
    source = view.near if kind == "near" else view.source
    top = _find(view, view.target(view.source, _find(view, b"latest")))
    plain, ready = _adapter(view), _adapter(view)
    expected = {number: _listed(view.near, plain, number) for number, _ in _listed(view.near, plain, top)[2:]}

    folders = _listed(source, ready, top)[2:]
    made = 0
    while ready.prepare():
        made += 1

    # Each is read, and then put into words.
    assert made == 2 * len(folders) == 2 * len(expected)
    asked = view.activity.from_memory
    for number, _ in reversed(folders):
        assert _listed(view.near, ready, number) == expected[number]
    # All that was left are the ends of the listings, and what did not fit into the first answer.
    assert view.activity.from_memory - asked < 2 * len(folders) + MANY // 100


def test_folder_that_was_made_ready_goes_with_its_snapshot() -> None:
    view, history = _view()
    newest = history.snapshots()[-1]
    top = _find(view, view.target(view.source, _find(view, b"latest")))
    adapter = _adapter(view)
    folders = _listed(view.near, adapter, top)[2:]
    while adapter.prepare():
        pass
    history.forget(newest)
    forgetting = history_view(history, Owner(0, 0), monotonic_ns)
    view._layouts = forgetting._layouts

    with pytest.raises(Refusal) as caught:
        adapter.answer(view.near, Opcode.OPENDIR, folders[0][0], bytes(8))

    assert caught.value.number == errno.ESTALE


def test_bug_while_something_is_made_ready_is_logged_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    view, _ = _view()
    adapter = _adapter(view)
    _listed(view.near, adapter, _find(view, view.target(view.source, _find(view, b"latest"))))
    broken = Mock(side_effect=ZeroDivisionError("oh"))
    view.open_directory = broken  # type: ignore[method-assign]

    with caplog.at_level(logging.ERROR):
        for _ in range(20):
            assert not adapter.prepare()

    assert broken.call_count == 3
    assert "ZeroDivisionError" in caplog.text


def test_kernel_enforces_acls_where_others_are_let_in() -> None:
    offered = POSIX_ACL | READDIRPLUS_AUTO | CACHE_SYMLINKS

    def agreed(*, enable_acl: bool) -> int:
        (flags,) = struct.unpack_from("=12xI", protocol.opened_connection(_offer(offered), enable_acl=enable_acl))
        assert isinstance(flags, int)
        return flags

    assert agreed(enable_acl=True) == POSIX_ACL | CACHE_SYMLINKS
    assert agreed(enable_acl=False) == CACHE_SYMLINKS


def test_kernel_that_is_too_old_is_refused() -> None:
    view, _ = _view()

    with pytest.raises(UnknownProtocol, match=r"speaks FUSE 7\.27, needed is 7\.28 or later"):
        _adapter(view).answer(view.near, Opcode.INIT, 0, _offer(0, minor=27))


def test_xattr_that_does_not_fit_is_refused() -> None:
    view, _ = _view()
    number = _find(view, _kinds(view) + b"attributed-much")
    body = struct.pack("=II", 1, 0)

    for opcode, asked in ((Opcode.GETXATTR, body + b"user.large\0"), (Opcode.LISTXATTR, body)):
        with pytest.raises(Refusal) as caught:
            _adapter(view).answer(view.near, opcode, number, asked)
        assert caught.value.number == errno.ERANGE


def test_bug_in_the_view_is_logged_and_answered(caplog: pytest.LogCaptureFixture) -> None:
    view = Mock(spec=View, near=None, source=None)
    view.attributes.side_effect = ZeroDivisionError("oh")

    with _kernel(view, _adapter(view)) as kernel, caplog.at_level(logging.ERROR):
        for _ in range(2):
            with pytest.raises(OSError) as caught:
                kernel.ask(Opcode.GETATTR, 5)
            assert caught.value.errno == errno.EIO

    assert "ZeroDivisionError" in caplog.text


def test_malformed_request_is_answered() -> None:
    view, _ = _view()

    with _kernel(view, _adapter(view)) as kernel, pytest.raises(OSError) as caught:
        kernel.ask(Opcode.READ, 5, b"short")

    assert caught.value.errno == errno.EIO


def test_forgetting_is_not_answered() -> None:
    view, _ = _view()

    with _kernel(view, _adapter(view)) as kernel:
        kernel.request(7, Opcode.FORGET, 5, bytes(8))
        kernel.request(8, Opcode.BATCH_FORGET, 0, bytes(24))
        kernel.request(9, Opcode.STATFS, ROOT_NUMBER)

        assert kernel.reply()[:2] == (9, 0)


def test_content_in_very_many_pieces_is_answered() -> None:
    history = MemoryHistory()
    pieces = [number.to_bytes(2, "big") for number in range(3000)]
    history.add(Folder({b"pieces": history.writer.file(pieces)}), host="one", started_ns=0)
    view = history_view(history, Owner(0, 0), monotonic_ns)
    number = _find(view, view.target(view.source, _find(view, b"latest")) + b"/pieces")

    with _kernel(view, _adapter(view)) as kernel:
        handle = kernel.ask(Opcode.OPEN, number, bytes(8))[:8]

        assert kernel.ask(Opcode.READ, number, handle + struct.pack("=QI20x", 1, 5000)) == b"".join(pieces)[1:5001]
        assert kernel.ask(Opcode.READ, number, handle + struct.pack("=QI20x", 5996, 10)) == b"\x0b\xb6\x0b\xb7"


def test_request_that_takes_too_long_fails_once_and_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    view, history = _view()
    kinds = _kinds(view)
    big, file = _find(view, kinds + b"big"), _find(view, kinds + b"file")
    node = view.open_file(view.source, big).node
    assert node is not None and node.entry.page is not None
    page = node.entry.page
    gate = history.blobs.gates[page.id] = threading.Event()

    def reading(handle: bytes) -> bytes:
        return handle[:8] + struct.pack("=QI20x", 0, 10)

    try:
        with _kernel(view, _adapter(view), deadline_s=0.05) as kernel:
            slow, fast = (kernel.ask(Opcode.OPEN, number, bytes(8)) for number in (big, file))
            kernel.request(2, Opcode.READ, big, reading(slow))
            kernel.request(3, Opcode.READ, file, reading(fast))
            assert kernel.reply() == (3, 0, b"hello\n")
            assert kernel.reply() == (2, errno.EIO, b"")
            gate.set()
            assert kernel.ask(Opcode.READ, file, reading(fast)) == b"hello\n"
    finally:
        gate.set()
    assert "was not answered by the storage in time" in caplog.text


def test_what_is_in_memory_is_answered_by_the_thread_that_reads() -> None:
    view, _ = _view()
    adapter = _adapter(view)
    number = _find(view, _kinds(view) + b"file")

    with _kernel(view, adapter) as kernel:
        before = set(threading.enumerate())
        handle = kernel.ask(Opcode.OPEN, number, bytes(8))
        kernel.ask(Opcode.READ, number, handle[:8] + struct.pack("=QI20x", 0, 10))
        assert set(threading.enumerate()) <= before


def test_no_more_threads_wait_than_there_may() -> None:
    given_up: list[int] = []
    gate, begun, done = threading.Event(), threading.Semaphore(0), threading.Semaphore(0)
    waiting = Waiting(given_up.append, lambda: WAIT_S)
    before = set(threading.enumerate())

    def ask() -> Answer:
        begun.release()
        gate.wait()
        return lambda: done.release()

    try:
        for request in range(WORKERS_MAX + 5):
            waiting.add(request, ask)
        for _ in range(WORKERS_MAX):
            assert begun.acquire(timeout=WAIT_S)
        assert len(set(threading.enumerate()) - before) == WORKERS_MAX
    finally:
        gate.set()
    for _ in range(WORKERS_MAX + 5):
        assert done.acquire(timeout=WAIT_S)
    waiting.close()
    assert given_up == []


def test_requests_above_the_bound_wait_for_the_deadlines_of_others() -> None:
    given_up: list[int] = []
    gate = threading.Event()
    waiting = Waiting(given_up.append, lambda: 0.2)

    def ask() -> Answer:
        gate.wait()
        return lambda: None

    try:
        for request in range(WAITING_MAX + 1):
            waiting.add(request, ask)
        assert given_up[:1] == [0]
    finally:
        gate.set()
        waiting.close()


def _other_libfuse(monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    library = Mock(fuse_version=Mock(return_value=version))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)


@pytest.mark.parametrize("version", [309, 400])
def test_libfuse_that_is_not_known_is_refused_and_pyfuse3_taken(monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    from backthen.fsmount.adapters import pyfuse3

    _other_libfuse(monkeypatch, version)

    with pytest.raises(
        MountRefused, match=rf"libfuse3 is of version {version // 100}\.{version % 100}, needed is 3.10"
    ):
        load_driver(Driver.LIBFUSE3)
    assert load_driver(None) is pyfuse3.serve_view


@pytest.mark.parametrize("version", [310, 312, 314, 316, 317, 318])
def test_libfuse_of_every_known_version_is_taken(monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    _other_libfuse(monkeypatch, version)

    assert libfuse3_session.load_library().fuse_version() == version


def test_system_without_libfuse_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from backthen.fsmount.adapters import pyfuse3

    monkeypatch.setattr(libfuse3_session, "_NAMES", ("libnone.so.4", "libnone.so.3"))

    assert load_driver(None) is pyfuse3.serve_view
    with pytest.raises(MountRefused, match="libnone"):
        load_driver(Driver.LIBFUSE3)


def test_layouts_are_those_of_the_kernel() -> None:
    header = Path("/usr/include/linux/fuse.h")
    if not header.exists():
        pytest.skip("the kernel's headers are not installed")
    source = header.read_text()

    values = {name: int(value) for name, value in re.findall(r"^\tFUSE_(\w+)\s*= (\d+),", source, re.MULTILINE)}
    assert {opcode.name: int(opcode) for opcode in Opcode}.items() <= values.items()
    sizes = [len(protocol.no_entry(protocol.LASTING)), len(protocol.opened(1, 0)), protocol.REQUEST.size]
    assert sizes == [128, 16, 40]
    assert len(protocol.opened_connection(_offer(0), enable_acl=False)) == 64


def test_near_source_is_asked_first() -> None:
    view, _ = _view()
    asked: list[object] = []

    def answer(source: object, opcode: int, number: int, body: bytes) -> bytes:
        asked.append(source)
        if source is view.near:
            raise NotInMemory
        return b"late"

    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    serving = threading.Thread(target=Connection(ours.fileno(), view, answer, lambda: False).serve)
    serving.start()
    assert Kernel(theirs).ask(Opcode.STATFS, 1) == b"late"
    theirs.close()
    serving.join()
    ours.close()
    assert asked == [view.near, view.source]
