"""What a view counts, how long it lets others wait for the storage, and what it logs about it."""

from __future__ import annotations

import pytest

from backthen.fsmount.view import DamagedContent, Owner, Serving, Showing, StorageUnavailable, history_view
from backthen.fsmount.view.activity import SLOWEST_MAX, Activity
from backthen.fsmount.view.status import STATUS_NAME
from backthen.repository import NotInMemory, StorageState
from tests.support.history import NS, Folder, MemoryHistory

WELL = StorageState(7, 1 << 20, 0, None, None, "")


class Scene:
    """A clock that is moved by hand, a storage that is said to be so or so, and what is counted of it."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.storage = WELL
        self.activity = Activity(lambda: self.storage, lambda: self.now_ns)

    def wait(self, request: str, duration_ns: int) -> None:
        """Ask for something that takes so long."""
        with self.activity.waiting(request):
            self.now_ns += duration_ns

    def be_silent(self, since_ns: int) -> None:
        self.storage = WELL._replace(waiting=1, silent_since_ns=since_ns)

    def be_failing(self) -> None:
        self.storage = WELL._replace(failing_since_ns=self.now_ns, failure="unplugged")


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_the_slowest_are_kept_and_no_others(scene: Scene) -> None:
    for number in (3, 9, 1, 7, 2, 8, 5):
        scene.wait(f"read {number}", number * NS)

    assert [f"read {number}" for number in (9, 8, 7, 5, 3)] == [answer.request for answer in scene.activity.slowest()]
    assert len(scene.activity.slowest()) == SLOWEST_MAX
    assert scene.activity.waited == 7


def test_what_is_not_answered_yet_is_known(scene: Scene) -> None:
    with scene.activity.waiting("read"):
        scene.now_ns = 5
        with scene.activity.waiting("lookup"):
            assert scene.activity.waiting_since() == [0, 5]
    assert scene.activity.waiting_since() == []


def test_a_storage_that_answers_is_waited_for(scene: Scene) -> None:
    assert scene.activity.patience_s(30) == 30
    scene.now_ns = 100 * NS
    scene.be_silent(since_ns=71 * NS)
    assert scene.activity.patience_s(30) == 30


def test_a_storage_that_let_others_wait_in_vain_is_waited_for_a_moment_only(scene: Scene) -> None:
    scene.now_ns = 100 * NS
    scene.be_silent(since_ns=70 * NS)
    assert scene.activity.patience_s(30) < 1
    scene.storage = WELL
    assert scene.activity.patience_s(30) == 30


def test_silence_and_its_end_are_logged_once(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.now_ns = 100 * NS
    scene.be_silent(since_ns=60 * NS)
    for _ in range(3):
        scene.activity.give_up()
        scene.now_ns += 10 * NS
    assert scene.activity.given_up == 3
    assert ["the storage has not answered for 40 s; what needs it fails until it answers again"] == caplog.messages

    scene.storage = WELL
    caplog.clear()
    scene.wait("read", 1)
    scene.wait("read", 1)
    assert ["the storage answers again, after 30 s"] == caplog.messages


def test_a_storage_that_fails_now_and_then_does_not_fill_the_log(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(10):
        scene.be_failing()
        scene.wait("read", NS)
        scene.storage = WELL
        scene.wait("read", NS)
    assert len(caplog.messages) == 2

    scene.now_ns += 60 * NS
    scene.be_failing()
    scene.wait("read", NS)
    assert len(caplog.messages) == 3
    assert "unplugged" in caplog.messages[2]


def test_the_view_counts_what_it_is_asked() -> None:
    history = MemoryHistory()
    write = history.writer
    info = history.add(Folder({b"file": write.file(b"x" * 10), b"hurt": write.file([b"d" * 10])}), started_ns=NS)
    view = history_view(history, Owner(1, 2), lambda: 0)
    name = b"1970-01-01T00.00.01Z_host_" + info.id.hex()[:8].encode()
    top = view.lookup(view.near, view.lookup(view.near, 1, b"snapshots").number, name)
    assert (view.activity.from_memory, view.activity.waited, view.activity.failed) == (2, 0, 0)

    numbers = [view.lookup(view.source, top.number, name).number for name in (b"file", b"hurt")]
    file, hurt = [view.open_file(view.source, number) for number in numbers]
    history.blobs.distant = None
    with pytest.raises(NotInMemory):
        view.read(view.near, file, 0, 10)
    assert view.read(view.source, file, 0, 10) == b"x" * 10
    assert (view.activity.from_memory, view.activity.waited, view.activity.failed) == (2, 5, 0)

    history.blobs.damaged = history.blobs.ids()
    with pytest.raises(DamagedContent):
        view.read(view.source, hurt, 0, 10)
    assert view.activity.failed == 1
    assert isinstance(view.give_up(), StorageUnavailable)
    assert view.activity.given_up == 1


def test_the_text_keeps_its_length_whatever_it_says() -> None:
    history = MemoryHistory()
    history.location = "/a/very/long/\udcff\n\x1b[2J" + "way/" * 50 + "schön"
    now_ns = 0
    view = history_view(history, Owner(1, 2), lambda: now_ns, showing=Showing(serving=Serving(42, 1_795_472_405 * NS)))
    status = view.lookup(view.near, 1, STATUS_NAME)
    texts = []
    for _ in range(2):
        file = view.open_file(view.near, status.number)
        texts.append(bytes(view.read(view.near, file, 0, 1 << 20)))
        history.storage_state = StorageState(10**12, 10**15, 10**6, 0, 0, "it says\nso " + "much\x1b " * 100)
        view.activity.from_memory = 10**12
        for number in range(9):
            with view.activity.waiting("read"):
                now_ns += number * NS * 10**6
    quiet, busy = texts

    assert quiet != busy
    assert len(quiet) == len(busy) == status.size < 4096
    for text in texts:
        lines = text.decode().splitlines()
        assert {80} == {len(line) + 1 for line in text.split(b"\n")[:-1]}
        assert all(line.isprintable() for line in lines)
    assert b"2026-11-23T22:20:05Z, process 42" in quiet
    assert b"storage:        answers " in quiet
    assert b"way/way/sch\xc3\xb6n" in quiet
    assert b"storage says:" in busy


def test_the_status_is_its_owners_alone_and_as_old_as_its_text() -> None:
    view = history_view(MemoryHistory(), Owner(1, 2), lambda: 0, now_ns=lambda: 7)
    found = view.lookup(view.near, 1, STATUS_NAME)

    assert (oct(found.mode), found.uid, found.gid, found.mtime_ns, found.ctime_ns) == ("0o100400", 1, 2, 7, 7)
    assert not view.is_lasting(found.number)
    assert found == view.attributes(view.near, found.number)
    assert [] == view.xattr_names(view.near, found.number)
