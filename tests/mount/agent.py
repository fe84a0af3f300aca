"""A process that looks at mounts on behalf of a test, as root or as an ordinary user, in a mount namespace of its own.

Reads pickled `(function, arguments)` from stdin and writes pickled `(is_error, result)` to stdout. Servers are its
forked children, as those of the command line are.

Usage: python -m tests.mount.agent root|user
"""

from __future__ import annotations

import errno
import importlib
import logging
import os
import pickle
import pwd
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from backthen.fsmount import Driver, MountOptions, clean_stale, mount_state, prepare_mountpoint, serve, unmount
from backthen.fsmount.mounting import mounted_at
from backthen.repository import StorageError
from tests.mount.sample import sample_history
from tests.support.history import NS, Folder

WAIT_S = 20
NEEDED_BY_DRIVERS = (
    "backthen.fsmount.adapters.libfuse3",
    "backthen.fsmount.adapters.pyfuse3",
    "backthen.fsmount.adapters.refuse",
    "mfusepy",
    "refuse.high",
)
_logs = [""]


def main(role: str) -> None:
    """Become the role, then do what is asked until stdin ends."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # The role need not be allowed to read them.
    for name in NEEDED_BY_DRIVERS:
        importlib.import_module(name)
    if role == "user" and os.geteuid() == 0:
        _open_fuse_to_users()
        _become_nobody()
    with tempfile.TemporaryDirectory() as _logs[0]:
        while _answer(sys.stdin.buffer, replies):
            pass


def _answer(requests: BinaryIO, replies: BinaryIO) -> bool:
    try:
        name, arguments = pickle.load(requests)
    except EOFError:
        return False
    try:
        reply = (False, FUNCTIONS[name](*arguments))
    except Exception as error:  # noqa: BLE001 - whatever it is, the test is to see it
        reply = (True, error)
    pickle.dump(reply, replies)
    replies.flush()
    return True


def _become_nobody() -> None:
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setresgid(nobody.pw_gid, nobody.pw_gid, nobody.pw_gid)
    os.setresuid(nobody.pw_uid, nobody.pw_uid, nobody.pw_uid)


def _open_fuse_to_users() -> None:
    """Put a node that everybody may open over /dev/fuse. The namespace is the agent's own, so nobody else sees it."""
    subprocess.run(["mount", "-t", "tmpfs", "none", "/mnt"], check=True)
    node = "/mnt/fuse"
    os.mknod(node, 0o020666, os.makedev(10, 229))
    os.chmod(node, 0o666)
    subprocess.run(["mount", "--bind", node, "/dev/fuse"], check=True)


class Server:
    """A serving child and the pipes to it."""

    def __init__(self, process: int, orders: BinaryIO, answers: BinaryIO, log: str) -> None:
        self.process = process
        self.orders = orders
        self.answers = answers
        self.log = log

    def order(self, *order: object) -> object:
        """Have the server's history changed."""
        pickle.dump(order, self.orders)
        self.orders.flush()
        return pickle.load(self.answers)


_servers: dict[int, Server] = {}


def start(mountpoint: str, only: tuple[int, bytes] | None, is_distant: bool, allow_other: bool, binding: str) -> int:
    """Fork a server of the sample history; returns its process id once it is ready."""
    log = os.path.join(_logs[0], str(len(os.listdir(_logs[0]))))
    orders_out, orders_in = os.pipe()
    answers_out, answers_in = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(orders_in)
        os.close(answers_out)
        _leave_one_binding(binding)
        driver = Driver.REFUSE if binding in ("mfusepy", "refuse") else Driver(binding)
        options = MountOptions(allow_other=allow_other, driver=driver)
        _serve(mountpoint, only, is_distant, options, log, os.fdopen(orders_out, "rb"), os.fdopen(answers_in, "wb"))
    os.close(orders_out)
    os.close(answers_in)
    server = Server(process, os.fdopen(orders_in, "wb"), os.fdopen(answers_out, "rb"), log)
    try:
        ready = pickle.load(server.answers)
    except EOFError:
        os.waitpid(process, 0)
        raise RuntimeError(Path(log).read_text()) from None
    assert ready == "ready"
    _servers[process] = server
    return process


def _leave_one_binding(binding: str) -> None:
    """The driver `refuse` takes mfusepy where it can be imported."""
    if binding == "refuse":
        sys.modules["mfusepy"] = None  # type: ignore[assignment]


class _Gate(threading.Event):
    """An event that says, too, when somebody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.reached.set()
        return super().wait(timeout)


def _serve(
    mountpoint: str,
    only: tuple[int, bytes] | None,
    is_distant: bool,
    options: MountOptions,
    log: str,
    orders: BinaryIO,
    answers: BinaryIO,
) -> None:
    status = 1
    try:
        logging.basicConfig(filename=log, level=logging.INFO)
        history, infos = sample_history()
        if is_distant:
            history.blobs.distant = None

        def answer(value: object) -> None:
            pickle.dump(value, answers)
            answers.flush()

        def obey() -> None:
            gate = _Gate()
            while True:
                try:
                    order, *_ = pickle.load(orders)
                except EOFError:
                    return
                if order == "add":
                    history.add(Folder({}), host="new", started_ns=2_000_000_000 * NS)
                elif order == "forget":
                    history.forget(infos[0])
                elif order == "fail":
                    history.failure = StorageError("the disk is gone")
                elif order == "hang":
                    history.gate = threading.Event()
                elif order == "close gate":
                    node = history.tree(infos[2]).resolve(history.blobs.source, b"kinds/big")
                    assert node.entry.page is not None
                    history.blobs.gates[node.entry.page.id] = gate
                elif order == "await gate":
                    gate.reached.wait()
                elif order == "open gate":
                    gate.set()
                elif order == "break":
                    history.tree = None  # type: ignore[assignment,method-assign]
                answer(order)

        threading.Thread(target=obey, daemon=True).start()
        snapshot = None if only is None else (infos[only[0]], only[1])
        serve(history, Path(mountpoint), replace(options, snapshot=snapshot), lambda: answer("ready"))
        status = 0
    except BaseException:
        logging.exception("the server failed")
    finally:
        os._exit(status)


def wait(process: int) -> int:
    """Wait for a server's end; its exit status, negative for a signal."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    raise TimeoutError("the server does not end")


def read_at(path: bytes, offset: int, length: int) -> bytes:
    """Bytes of a file, not from the page cache's read-ahead alone."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)


def stretches(path: bytes) -> list[tuple[int, int]]:
    """Where a file has data, as it says itself: beginnings and ends."""
    found: list[tuple[int, int]] = []
    descriptor = os.open(path, os.O_RDONLY)
    try:
        end, size = 0, os.fstat(descriptor).st_size
        while end < size:
            try:
                begin = os.lseek(descriptor, end, os.SEEK_DATA)
            except OSError as error:
                assert error.errno == errno.ENXIO
                break
            end = os.lseek(descriptor, begin, os.SEEK_HOLE)
            found.append((begin, end))
        return found
    finally:
        os.close(descriptor)


def read_during(slow: bytes, fast: bytes, server: int) -> tuple[bytes, bool, int]:
    """Read one file while a read of another waits for its gate.

    Returns:
        The content of the fast one, whether the slow one still waited then, how much it gave at last.
    """
    lengths: list[int] = []
    thread = threading.Thread(target=lambda: lengths.append(len(read_at(slow, 0, 100_000))))
    thread.start()
    content = read_at(fast, 0, 100)
    is_waiting = thread.is_alive() and not lengths
    _servers[server].order("open gate")
    thread.join(WAIT_S)
    return content, is_waiting, lengths[0]


def stop_during_read(slow: bytes, server: int) -> tuple[int, OSError | None]:
    """Tell a server to stop while a read waits for its gate: how the server ended, and what the reader was told."""
    told: list[OSError] = []

    def read() -> None:
        try:
            read_at(slow, 0, 100)
        except OSError as error:
            told.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    _servers[server].order("await gate")
    os.kill(server, signal.SIGTERM)
    status = wait(server)
    thread.join(WAIT_S)
    return status, told[0] if told else None


def wait_for(path: bytes, count: int, limit_s: float) -> int:
    """List a folder until it has so many entries, at most `limit_s` seconds; how many it had at last."""
    deadline = time.monotonic() + limit_s
    while len(os.listdir(path)) != count and time.monotonic() < deadline:
        time.sleep(0.02)
    return len(os.listdir(path))


def wait_for_target(path: bytes, before: bytes, limit_s: float) -> bytes:
    """Read a symlink until it does not lead where it did, at most `limit_s` seconds; where it led at last."""
    deadline = time.monotonic() + limit_s
    while os.readlink(path) == before and time.monotonic() < deadline:
        time.sleep(0.02)
    return os.readlink(path)


def busy_unmount(path: str) -> None:
    """Unmount while a directory in it is open."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        unmount(Path(path))
    finally:
        os.close(descriptor)


def read_as_nobody(path: bytes) -> bytes:
    """The beginning of a file as another user reads it."""
    out, into = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            _become_nobody()
            result: bytes | OSError = read_at(path, 0, 1000)
        except OSError as error:
            result = error
        os.write(into, pickle.dumps(result))
        os._exit(0)
    os.close(into)
    with os.fdopen(out, "rb") as answer:
        found = pickle.load(answer)
    os.waitpid(process, 0)
    if isinstance(found, OSError):
        raise found
    assert isinstance(found, bytes)
    return found


def attempt_open(path: bytes, flags: int) -> None:
    """Open and close."""
    os.close(os.open(path, flags))


def make_folder() -> str:
    """A new empty folder that every user may look into."""
    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o755)
    return folder


FUNCTIONS: dict[str, Callable[..., object]] = {
    **{
        name: getattr(os, name)
        for name in (
            "chmod", "chown", "getxattr", "kill", "link", "listdir", "listxattr", "lstat", "mkdir", "mkfifo",
            "readlink", "removexattr", "rename", "rmdir", "setxattr", "statvfs", "truncate", "unlink", "utime",
        )
    },
    "attempt_open": attempt_open,
    "busy_unmount": busy_unmount,
    "clean_stale": lambda path: clean_stale(Path(path)),
    "log": lambda process: Path(_servers[process].log).read_text(),
    "make_folder": make_folder,
    "mount_options": lambda path: (line := mounted_at(Path(path))) and line.options,
    "super_options": lambda path: (line := mounted_at(Path(path))) and line.file_system_options,
    "mount_state": lambda path: mount_state(Path(path)).name,
    "order": lambda process, *order: _servers[process].order(*order),
    "prepare": lambda path, folder: prepare_mountpoint(Path(path), repository_folder=folder and Path(folder)),
    "read_as_nobody": read_as_nobody,
    "read_at": read_at,
    "read_during": read_during,
    "start": start,
    "stop_during_read": stop_during_read,
    "stretches": stretches,
    "unmount": lambda path, lazy: unmount(Path(path), lazy=lazy),
    "wait": wait,
    "wait_for": wait_for,
    "wait_for_target": wait_for_target,
}  # fmt: skip

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main(sys.argv[1])
