"""What a client remembers: counters that never repeat, pins that are not lost, copies that are noticed."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from backthen.repository.catalog import Authorship, ClientState, VolatileClient
from backthen.repository.catalog.client import CLIENT_BYTES
from backthen.repository.errors import CacheError
from backthen.repository.ids import ObjectId, SnapshotId
from backthen.repository.storage import log_name

HEADS = [log_name(SnapshotId(ObjectId(bytes([number]) * 32)), ObjectId(bytes(32))) for number in range(4)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "repository"


def test_counters_rise_from_one_and_outlive_the_program(folder: Path) -> None:
    first = ClientState(folder).draw({})
    assert (len(first.client), first.counter) == (CLIENT_BYTES, 1)
    assert ClientState(folder).draw({}) == Authorship(first.client, 2)
    assert ClientState(folder).draw({first.client: 2}) == Authorship(first.client, 3)


def _draw_many(folder: Path) -> list[Authorship]:
    return [ClientState(folder).draw({}) for _ in range(25)]


def test_no_two_processes_draw_the_same_counter(folder: Path) -> None:
    with ProcessPoolExecutor(4, get_context("spawn")) as pool:
        drawn = [author for authors in pool.map(_draw_many, [folder] * 4) for author in authors]
    assert len({author.client for author in drawn}) == 1
    assert sorted(author.counter for author in drawn) == list(range(1, 101))


def test_pins_replace_what_they_stand_on_and_keep_what_is_unknown(folder: Path) -> None:
    state = ClientState(folder)
    assert state.pinned() == frozenset()
    state.pin({HEADS[0], HEADS[1]}, superseded=set())
    ClientState(folder).pin({HEADS[2]}, superseded={HEADS[0]})
    assert state.pinned() == {HEADS[1], HEADS[2]}


def test_what_is_pinned_already_is_not_written_again(folder: Path) -> None:
    state = ClientState(folder)
    state.pin({HEADS[0]}, superseded=set())
    before = Path(state.place).stat().st_ino
    state.pin({HEADS[0]}, superseded={HEADS[3]})
    assert Path(state.place).stat().st_ino == before


def test_the_state_is_private(folder: Path) -> None:
    ClientState(folder).draw({})
    assert {path.name: path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())} == {
        "repository": 0o700,
        "client.json": 0o600,
        "lock": 0o600,
    }


def test_a_copied_folder_is_another_client_that_has_seen_the_same(folder: Path) -> None:
    state = ClientState(folder)
    author = state.draw({})
    state.pin({HEADS[0]}, superseded=set())
    copy = folder.parent / "copy"
    shutil.copytree(folder, copy)
    copied = ClientState(copy)
    assert copied.pinned() == {HEADS[0]}
    other = copied.draw({})
    assert other.client != author.client
    assert copied.draw({}) == Authorship(other.client, 2)
    assert state.draw({}) == Authorship(author.client, 2)


def test_a_state_put_back_from_a_backup_is_another_client(folder: Path) -> None:
    """The log knows entries of this client that it does not remember: in place, even on the same machine."""
    state = ClientState(folder)
    author = state.draw({})
    old = Path(state.place).read_bytes()
    state.draw({})
    Path(state.place).write_bytes(old)
    other = ClientState(folder).draw({author.client: 2})
    assert (other.client != author.client, other.counter) == (True, 1)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b'{"client": "zz", "counter": 0, "heads": [], "home": ""}',
     b'{"client": "00", "counter": 0, "heads": [], "home": ""}',
     b'{"client": "%s", "counter": -1, "heads": [], "home": ""}' % (b"00" * 16),
     b'{"client": "%s", "counter": 1, "heads": ["roots/1"], "home": ""}' % (b"00" * 16)],
)  # fmt: skip
def test_a_damaged_state_is_told_and_not_forgotten(folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True)
    (folder / "client.json").write_bytes(content)
    state = ClientState(folder)
    for action in (state.pinned, lambda: state.draw({}), lambda: state.pin({HEADS[0]}, superseded=set())):
        with pytest.raises(CacheError) as caught:
            action()
        assert state.place in str(caught.value)
        assert caught.value.hint
    assert (folder / "client.json").read_bytes() == content


READ_ONLY = """
import logging, sys
from pathlib import Path
from backthen.repository.catalog import ClientState
logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stdout)
state = ClientState(Path(sys.argv[1]))
first, second = state.draw({}), state.draw({})
print(first.client == second.client, first.client.hex() == sys.argv[2], first.counter, second.counter)
state.pin({sys.argv[3]}, superseded=state.pinned())
print(sorted(state.pinned()) == [sys.argv[3]])
"""


def test_a_state_that_cannot_be_written_gives_a_client_of_this_process(folder: Path) -> None:
    state = ClientState(folder)
    author = state.draw({})
    state.pin({HEADS[0]}, superseded=set())
    before = Path(state.place).read_bytes()
    script = f'mount --bind "{folder}" "{folder}" && mount -o remount,ro,bind "{folder}" && exec "$@"'
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", sys.executable, "-c", READ_ONLY,
         str(folder), author.client.hex(), HEADS[1]],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    warning, *lines = done.stdout.splitlines()
    assert warning.startswith("WARNING"), done.stderr
    assert "cannot be written" in warning
    assert lines == ["True False 1 2", "True"]
    assert Path(state.place).read_bytes() == before


def test_a_folder_that_cannot_be_made_warns_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    state = ClientState(Path("/proc/nowhere/state"))
    state.pin({HEADS[0]}, superseded=set())
    author = state.draw({})
    assert state.draw({}) == Authorship(author.client, 2)
    assert state.pinned() == {HEADS[0]}
    assert len(caplog.records) == 1


def test_a_kill_while_writing_loses_nothing(folder: Path) -> None:
    state = ClientState(folder)
    author = state.draw({})
    state.pin({HEADS[0]}, superseded=set())
    script = "import sys; from pathlib import Path; from backthen.repository.catalog import ClientState; "
    script += "ClientState(Path(sys.argv[1])).draw({})"
    drawn = 1
    for call in ("flock", "write", "fsync", "rename"):
        for count in (1, 2):
            rule = f"inject={call}:signal=KILL:when={count}"
            command = ["strace", "-f", "--seccomp-bpf", "-o", os.devnull, "-e", rule, sys.executable, "-c", script]
            subprocess.run([*command, str(folder)], capture_output=True, check=False)
            now = ClientState(folder).draw({})
            assert (now.client, now.counter in (drawn + 1, drawn + 2)) == (author.client, True)
            drawn = now.counter
            assert ClientState(folder).pinned() == {HEADS[0]}


def test_a_volatile_client_counts_and_pins() -> None:
    client = VolatileClient({HEADS[0]})
    author = client.draw({})
    assert client.draw({author.client: 1}) == Authorship(author.client, 2)
    assert client.draw({author.client: 7}).client != author.client
    client.pin({HEADS[1]}, superseded={HEADS[0]})
    assert client.pinned() == {HEADS[1]}
