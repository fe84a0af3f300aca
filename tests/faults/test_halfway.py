"""A run that is stopped half-way keeps what it sent: the next one sends the rest only."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.cli.conftest import TIMEOUT_S, User, program, settle
from tests.support.far import Far, far_s3, far_sftp

SIZE_BYTES = 100_000_000
PACK_BYTES = 32 << 20
STOPPED_AT_BYTES = 80_000_000
"""By then the first two packs have been sent, which share the line."""
SLACK_BYTES = 2_000_000
"""Indexes, trees, requests and what lies between; also what was on its way in the buffers of both machines."""
_POLL_S = 0.01


@pytest.fixture(params=[far_s3, far_sftp])
def far(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Far]:
    """Slow enough to be stopped in time."""
    make: Callable[[Path, float, float | None], AbstractContextManager[Far]] = request.param
    with make(tmp_path, 0.002, 40e6) as made:
        yield made


@pytest.fixture
def user(far: Far, tmp_path: Path) -> User:
    """Somebody with a repository there, and something to save."""
    home = tmp_path / "home"
    home.mkdir()
    far.settle(home)
    made = User(home)
    settle(made)
    made.variables |= {"BACKTHEN_REPOSITORY": far.location, **far.variables}
    made.run("init")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "noise").write_bytes(random.Random(1).randbytes(SIZE_BYTES))
    return made


def _begin(user: User, tree: Path) -> subprocess.Popen[bytes]:
    command = [*program(), "--quiet", "snapshot", "create", str(tree)]
    return subprocess.Popen(command, env=user.environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _wait_until_sent(far: Far, count: int) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while far.line.counts.sent < count:
        assert time.monotonic() < deadline, "nothing is sent any more"
        time.sleep(_POLL_S)


def _wait_until_quiet(far: Far) -> None:
    """What a process had handed over when it ended is carried on after that."""
    deadline = time.monotonic() + TIMEOUT_S
    while not far.line.is_quiet:
        assert time.monotonic() < deadline, "connections stay open"
        time.sleep(_POLL_S)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_a_stopped_run_sent_is_not_sent_again(
    far: Far, user: User, tmp_path: Path, number: signal.Signals
) -> None:
    before = far.line.counts.sent
    with _begin(user, tmp_path / "tree") as process:
        _wait_until_sent(far, before + STOPPED_AT_BYTES)
        process.send_signal(number)
        process.communicate(timeout=TIMEOUT_S)
    assert process.returncode in (130, -signal.SIGKILL)
    _wait_until_quiet(far)
    before = far.line.counts.sent
    user.snapshot(str(tmp_path / "tree"))
    assert far.line.counts.sent - before <= SIZE_BYTES - 2 * PACK_BYTES + SLACK_BYTES
    user.run("check", "--read-data")


def test_a_line_that_broke_is_gone_on_with(far: Far, user: User, tmp_path: Path) -> None:
    before = far.line.counts.sent
    far.line.cut_after(STOPPED_AT_BYTES)
    with _begin(user, tmp_path / "tree") as process:
        _wait_until_sent(far, before + STOPPED_AT_BYTES - SLACK_BYTES)
        far.line.go()
        _, said = process.communicate(timeout=TIMEOUT_S)
    assert (0, b"") == (process.returncode, said)
    assert far.line.counts.sent - before <= SIZE_BYTES + 2 * PACK_BYTES + SLACK_BYTES
    user.run("check", "--read-data")
