"""What is tried again, how often, and what is not."""

from __future__ import annotations

import logging
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from backthen.repository.errors import ObjectExists, ObjectMissing, StorageError
from backthen.repository.ids import ObjectId, PackId
from backthen.repository.storage import CONFIG_NAME, RetryingStorage, index_name, pack_name
from backthen.repository.storage.wrappers.retrying import FIRST_ANSWER_FOR_S, PAUSE_MAX_S, TRIES_MAX
from tests.support.flaky_storage import FlakyStorage
from tests.support.memory_storage import MemoryStorage

NAME = index_name(ObjectId(bytes(32)))
RETRY_FOR_S = 300.0


class Scene:
    """A flaky storage, one that tries again over it, and a clock that moves by pauses alone."""

    def __init__(self, *, retry_for_s: float = RETRY_FOR_S, fraction: float = 1.0) -> None:
        self.memory = MemoryStorage()
        self.flaky = FlakyStorage(self.memory)
        self.pauses: list[float] = []
        self.storage = RetryingStorage(
            self.flaky,
            retry_for_s=retry_for_s,
            monotonic_ns=lambda: round(sum(self.pauses) * 1e9),
            wait=self._wait,
            random_fraction=lambda: fraction,
        )

    def answer_once(self) -> Scene:
        assert [] == list(self.storage.list("marks"))
        self.flaky.calls.clear()
        return self

    def _wait(self, closed: threading.Event, seconds: float) -> bool:
        self.pauses.append(seconds)
        return closed.is_set()


@pytest.fixture
def scene() -> Scene:
    return Scene().answer_once()


def test_what_fails_now_and_then_is_tried_until_it_is_answered(scene: Scene) -> None:
    scene.flaky.fail(3)
    scene.storage.put(NAME, b"content")
    scene.flaky.fail(2)
    assert b"tent" == scene.storage.get(NAME, 3)
    assert [0.5, 1.0, 2.0, 0.5, 1.0] == scene.pauses


def test_what_will_not_succeed_later_is_not_tried_again(scene: Scene) -> None:
    scene.flaky.fail(error=StorageError("permission denied"))
    with pytest.raises(StorageError, match="permission denied"):
        scene.storage.put(NAME, b"content")
    with pytest.raises(ObjectMissing):
        scene.storage.get(NAME)
    assert [f"put {NAME}", f"get {NAME}"] == scene.flaky.calls


def test_pauses_have_a_random_part() -> None:
    scene = Scene(fraction=0.0).answer_once()
    scene.flaky.fail(2)
    scene.storage.put(NAME, b"content")
    assert [0.25, 0.5] == scene.pauses


def test_pauses_and_tries_are_bounded() -> None:
    scene = Scene(retry_for_s=1e9).answer_once()
    scene.flaky.fail(TRIES_MAX)
    with pytest.raises(StorageError, match="the connection broke"):
        scene.storage.get(NAME)
    assert TRIES_MAX == len(scene.flaky.calls)
    assert max(scene.pauses) == PAUSE_MAX_S
    assert all(later >= earlier for earlier, later in pairwise(scene.pauses))


def test_the_time_of_all_tries_is_bounded(scene: Scene) -> None:
    scene.flaky.fail(TRIES_MAX)
    with pytest.raises(StorageError):
        scene.storage.get(NAME)
    assert RETRY_FOR_S - PAUSE_MAX_S <= sum(scene.pauses) <= RETRY_FOR_S


def test_a_storage_that_never_answered_is_given_up_soon() -> None:
    scene = Scene()
    scene.flaky.fail(TRIES_MAX)
    with pytest.raises(StorageError):
        scene.storage.get(NAME)
    assert sum(scene.pauses) <= FIRST_ANSWER_FOR_S


def test_after_giving_up_each_call_is_tried_once_until_one_is_answered(scene: Scene) -> None:
    scene.flaky.fail(TRIES_MAX)
    with pytest.raises(StorageError):
        scene.storage.get(NAME)
    scene.flaky.calls.clear()
    for _ in range(3):
        with pytest.raises(StorageError, match="the connection broke"):
            scene.storage.get(NAME)
    assert [f"get {NAME}"] * 3 == scene.flaky.calls
    scene.flaky.recover()
    with pytest.raises(ObjectMissing):
        scene.storage.get(NAME)
    scene.flaky.fail()
    scene.storage.put(NAME, b"content")


def test_a_put_whose_answer_was_lost_is_done(scene: Scene) -> None:
    scene.flaky.fail(2, is_late=True)
    scene.storage.put(NAME, b"content")
    assert b"content" == scene.memory.get(NAME)


def test_a_file_whose_answer_was_lost_is_put_and_gone(scene: Scene, tmp_path: Path) -> None:
    file = tmp_path / "pack"
    file.write_bytes(b"content")
    scene.flaky.fail(is_late=True)
    scene.storage.put_file(pack_name(PackId(ObjectId(bytes(32)))), file)
    assert not file.exists()


@pytest.mark.parametrize("failures", [0, 1])
def test_a_config_of_another_is_never_taken_for_ones_own(scene: Scene, failures: int) -> None:
    scene.memory.put(CONFIG_NAME, b"theirs")
    scene.flaky.fail(failures)
    with pytest.raises(ObjectExists):
        scene.storage.put(CONFIG_NAME, b"mine")


def test_ones_own_config_is_known_by_its_bytes(scene: Scene) -> None:
    scene.flaky.fail(is_late=True)
    scene.storage.put(CONFIG_NAME, b"mine")


def test_an_object_that_was_there_before_the_first_try_is_not_ones_own(scene: Scene) -> None:
    scene.memory.put(NAME, b"content")
    with pytest.raises(ObjectExists):
        scene.storage.put(NAME, b"content")


@pytest.mark.parametrize("shown", [0, 2, 5])
def test_a_listing_that_breaks_off_shows_each_object_once(scene: Scene, shown: int) -> None:
    for number in range(5):
        scene.memory.put(index_name(ObjectId(bytes([number]) * 32)), b"x" * number)
    scene.flaky.fail(2, shown=shown)
    assert sorted(scene.memory.list("index")) == sorted(scene.storage.list("index"))


def test_each_try_is_logged(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.flaky.fail(2)
    with caplog.at_level(logging.WARNING):
        scene.storage.put(NAME, b"content")
    assert [
        "the connection broke; trying again in 0.5 s",
        "the connection broke; trying again in 1.0 s",
    ] == caplog.messages


def test_closing_ends_pauses_and_what_was_begun_is_not_tried_again(scene: Scene) -> None:
    scene.flaky.on_call = lambda what: scene.storage.close() if what.startswith("get") else None
    scene.flaky.fail(1)
    with pytest.raises(StorageError, match="the connection broke"):
        scene.storage.get(NAME)
    assert [] == scene.pauses


def test_who_pauses_is_woken_by_closing() -> None:
    flaky = FlakyStorage(MemoryStorage())
    pausing = threading.Event()

    def wait(closed: threading.Event, _: float) -> bool:
        pausing.set()
        return closed.wait()

    storage = RetryingStorage(flaky, wait=wait)
    flaky.fail()
    failures: list[StorageError] = []

    def get() -> None:
        try:
            storage.get(NAME)
        except StorageError as error:
            failures.append(error)

    thread = threading.Thread(target=get)
    thread.start()
    pausing.wait()
    storage.close()
    thread.join()
    assert ["the connection broke"] == [str(error) for error in failures]


def test_a_closed_storage_tries_again_in_later_calls(scene: Scene) -> None:
    scene.storage.close()
    scene.flaky.fail()
    scene.storage.put(NAME, b"content")
    assert [0.5] == scene.pauses
