"""What the adapters share: asking in time, finding by path, saying once what is broken, numbers of what is open."""

from __future__ import annotations

import logging
import threading

import pytest

from backthen.fsmount import adapters
from backthen.fsmount.adapters.asking import WAITING_MAX, Asking
from backthen.fsmount.adapters.libfuse import REFUSALS, Handles, mount_options
from backthen.fsmount.adapters.paths import REMEMBERED_MAX, Paths
from backthen.fsmount.adapters.reports import Reports
from backthen.fsmount.drivers import Driver, platform_drivers
from backthen.fsmount.view import (
    DamagedContent,
    NotADirectory,
    NotFound,
    Owner,
    StorageUnavailable,
    View,
    ViewError,
    history_view,
)
from backthen.repository import BlobSource, NotInMemory, SnapshotInfo, monotonic_ns
from tests.mount.sample import sample_history
from tests.support.history import MemoryHistory


def _view() -> tuple[View, MemoryHistory, list[SnapshotInfo]]:
    history, infos = sample_history()
    return history_view(history, Owner(0, 0), monotonic_ns), history, infos


def _kinds(view: View, paths: Paths) -> list[bytes]:
    latest = paths.find(view.source, [b"latest"])
    return [*view.target(view.source, latest.number).split(b"/"), b"kinds"]


def meanings(kind: type[ViewError]) -> set[type[ViewError]]:
    below = kind.__subclasses__()
    return {kind} if not below else set().union(*(meanings(sub) for sub in below))


def test_table_has_every_meaning_and_nothing_else() -> None:
    assert set(REFUSALS) == meanings(ViewError)


@pytest.mark.parametrize(
    ("platform", "drivers"),
    [
        ("linux", (Driver.LIBFUSE3, Driver.PYFUSE3)),
        ("darwin", (Driver.REFUSE,)),
        ("win32", (Driver.WINFSPY,)),
    ],
)
def test_each_platform_has_its_drivers(platform: str, drivers: tuple[Driver, ...]) -> None:
    assert platform_drivers(platform) == drivers


def test_each_driver_has_its_adapter() -> None:
    (folder,) = adapters.__path__
    for driver in Driver:
        with open(f"{folder}/{driver}.py") as file:
            assert "def serve_view(" in file.read()


def test_what_is_in_memory_is_answered_in_the_callers_thread() -> None:
    view, _, _ = _view()

    assert Asking(view)(lambda source: (source is view.near, threading.current_thread())) == (
        True,
        threading.current_thread(),
    )


def test_what_is_not_in_memory_is_asked_of_the_storage_in_another_thread() -> None:
    view, _, _ = _view()

    def ask(source: BlobSource, what: str, *, times: int) -> tuple[str, threading.Thread]:
        if source is view.near:
            raise NotInMemory
        return what * times, threading.current_thread()

    answer, thread = Asking(view)(ask, "a", times=2)
    assert answer == "aa"
    assert thread is not threading.current_thread()
    assert thread.daemon


def test_what_the_storage_raises_is_raised() -> None:
    view, _, _ = _view()

    def ask(source: BlobSource) -> None:
        raise NotInMemory if source is view.near else DamagedContent("broken")

    with pytest.raises(DamagedContent, match="broken"):
        Asking(view)(ask)


def test_requests_that_take_too_long_are_given_up_and_their_places_come_back() -> None:
    view, _, _ = _view()
    asking = Asking(view, deadline_s=0.05)
    gate = threading.Event()

    def wait(source: BlobSource) -> str:
        if source is view.near:
            raise NotInMemory
        gate.wait()
        return "at last"

    # One more than can wait at a time: the last one does not get that far.
    for _ in range(WAITING_MAX + 1):
        with pytest.raises(StorageUnavailable, match="not answered by the storage in time"):
            asking(wait)
    gate.set()
    assert Asking(view)(wait) == "at last"
    for _ in range(WAITING_MAX):
        assert asking._slots.acquire(timeout=20)


def test_paths_are_found_and_refused_as_names_are() -> None:
    view, _, _ = _view()
    paths = Paths(view)
    kinds = _kinds(view, paths)

    assert paths.find(view.source, []).number == 1
    assert paths.find(view.source, [*kinds, b"file"]).size == 6
    with pytest.raises(NotFound):
        paths.find(view.source, [*kinds, b"none"])
    for path in ([*kinds, b"file", b"below"], [b"latest", b"kinds"]):
        with pytest.raises(NotADirectory):
            paths.find(view.source, path)


def test_what_was_found_in_a_snapshot_is_remembered_and_its_going_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    view, history, infos = _view()
    paths = Paths(view)
    kinds = _kinds(view, paths)
    asked: list[bytes] = []
    lookup = view.lookup

    def counted(source: BlobSource, directory: int, name: bytes) -> object:
        asked.append(name)
        return lookup(source, directory, name)

    monkeypatch.setattr(view, "lookup", counted)
    for _ in range(2):
        paths.find(view.source, [*kinds, b"file"])
    assert asked == [*kinds, b"file", *kinds[:-1]]

    history.forget(infos[-1])
    view = history_view(history, Owner(0, 0), monotonic_ns)
    monkeypatch.setattr(paths, "_view", view)
    with pytest.raises(NotFound):
        paths.find(view.source, [*kinds, b"file"])


def test_memory_of_paths_is_bounded() -> None:
    view, _, _ = _view()
    paths = Paths(view)
    assert paths._remembered.cost_max == REMEMBERED_MAX
    kinds = _kinds(view, paths)
    paths._remembered.cost_max = 3

    for name in (b"file", b"old", b"empty", b"big", b"huge"):
        paths.find(view.source, [*kinds, name])

    assert paths._remembered.cost_total == 3


def test_what_is_broken_is_said_once_and_what_is_refused_never(caplog: pytest.LogCaptureFixture) -> None:
    reports = Reports()

    with caplog.at_level(logging.DEBUG):
        for error in (DamagedContent("a is broken"), DamagedContent("a is broken"), NotFound("no b")):
            reports.report(error)

    assert caplog.messages == ["a is broken"]


def test_numbers_of_what_is_open_are_never_used_again() -> None:
    handles: Handles[str] = Handles()
    first = handles.add("a")
    handles.remove(first)
    second = handles.add("b")

    assert first != second
    assert handles.get(second) == "b"
    with pytest.raises(KeyError):
        handles.get(first)


def test_others_are_let_in_only_with_permission_checks() -> None:
    assert {"ro", "nosuid", "nodev"} <= set(mount_options(allow_other=False))
    assert {"allow_other", "default_permissions"} & set(mount_options(allow_other=False)) == set()
    assert {"ro", "nosuid", "nodev", "allow_other", "default_permissions"} <= set(mount_options(allow_other=True))
