"""The progress of long commands on a real terminal. Only the two seconds of silence are left out here."""

from __future__ import annotations

import fcntl
import os
import pty
import random
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.cli.conftest import TIMEOUT_S, User

COLUMNS = 160
LARGE_BYTES = 9_000_000
TAKEN_AWAY = "\r\x1b[K"
IMPATIENT = """
import sys
from backthen.cli import counting, main, progress
from backthen.repository.maintenance import check
progress.QUIET_AT_FIRST_S = counting.QUIET_AT_FIRST_S = 0
progress._LINE_INTERVAL_S = progress._RATE_AFTER_S = 0
check._PACKS_AT_ONCE = 1  # Or all of the little there is would be read while the snapshots are walked.
sys.exit(main.run(sys.argv[1:]))
"""
SIZE = r"[\d.,]+ [KMG]?i?B"


def on_terminal(user: User, *arguments: str, **variables: str) -> tuple[list[str], str]:
    """Run the program with a terminal as its standard error: the lines it drew, and what it left on the screen."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", IMPATIENT, *arguments],
        env={**user.environment, "TERM": "xterm", **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=slave,
    )
    os.close(slave)
    shown = b""
    try:
        while data := _read(master):
            shown += data
        assert process.wait(TIMEOUT_S) == 0, shown
    finally:
        os.close(master)
        process.kill()
        process.wait()
    first, *drawn = shown.decode().split(TAKEN_AWAY)
    return [line for line in drawn if line], first + (drawn[-1] if drawn else "")


def _read(master: int) -> bytes:
    try:
        return os.read(master, 65_536)
    except OSError:  # Linux says so where all who had the other side open are gone.
        return b""


def has(lines: list[str], pattern: str) -> bool:
    return any(re.fullmatch(pattern, line) for line in lines)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "below").mkdir(parents=True)
    for number in range(20):
        (folder / "below" / f"{number:02d}").write_bytes(random.Random(number).randbytes(10_000))
    (folder / "large").write_bytes(random.Random(20).randbytes(LARGE_BYTES))
    return folder


def test_a_first_snapshot_shows_files_bytes_rate_and_the_current_file(user: User, tree: Path) -> None:
    lines, left = on_terminal(user, "snapshot", "create", str(tree))
    assert has(lines, rf"Saving: \d+( of 21)? files?, {SIZE}( of {SIZE})?, {SIZE}/s(, .* left)?  {tree}/below/\d\d")
    assert has(lines, rf"Saving: 20.* files, .*  {tree}/large"), "the file that is being read, not the last one"
    assert left == ""
    assert all(len(line) < COLUMNS and "\n" not in line for line in lines)


def test_a_further_snapshot_shows_how_long_it_takes_still(user: User, tree: Path) -> None:
    user.snapshot(str(tree))
    lines, _ = on_terminal(user, "snapshot", "create", str(tree))
    assert has(lines, rf"Saving: \d+ of 21 files, {SIZE} of {SIZE}, {SIZE}/s, \d+ s left  {tree}/.*")


def test_a_restore_shows_it_too(user: User, tree: Path) -> None:
    user.snapshot(str(tree))
    target = tree.parent / "back"
    lines, left = on_terminal(user, "restore", f"latest:{tree}", "--target", str(target), "--verify")
    for phase in ("Restoring", "Comparing"):
        pattern = rf"{phase}: \d+ of \d+ files, {SIZE}( of {SIZE})?, {SIZE}/s, \d+ s left  {target}/below/\d\d"
        assert has(lines, pattern)
        sizes = {line.split(", ")[1] for line in lines if line.startswith(phase) and line.endswith(f"{target}/large")}
        assert len(sizes) > 3, "a large file is shown while it is worked on"
    assert left == ""


def test_a_check_shows_it_in_every_phase(user: User, tree: Path) -> None:
    user.snapshot(str(tree))
    lines, left = on_terminal(user, "check", "--read-data")
    pack = "packs/[0-9a-f]{2}/[0-9a-f]{64}"
    assert has(lines, rf"Checking the index: \d of \d packs, [\d,]+/s, \d+ s left  {pack}")
    assert has(lines, rf"Checking snapshots: \d+ of \d+ files, [\d,]+/s, \d+ s left  {tree}/below")
    assert has(lines, rf"Reading data: \d of \d packs?, {SIZE} of {SIZE}, {SIZE}/s, \d+ s left  {pack}")
    assert left == ""


def test_every_file_of_a_snapshot_is_counted_once_in_a_check(user: User, tree: Path) -> None:
    for number in range(3):
        (tree / "changing").write_text(str(number))
        user.snapshot(str(tree))
    lines, _ = on_terminal(user, "check")
    done = [re.match(r"Checking snapshots: ([\d,]+) of ([\d,]+) files", line) for line in lines]
    last = [match for match in done if match][-1]
    assert last[1] == last[2]


@pytest.mark.parametrize(
    ("option", "terminal"), [("--quiet", "xterm"), ("-vv", "xterm"), ("--json", "xterm"), ("-v", "dumb")]
)
def test_no_line_is_drawn_where_nobody_wants_one(user: User, tree: Path, option: str, terminal: str) -> None:
    lines, _ = on_terminal(user, "snapshot", "create", option, str(tree), TERM=terminal)
    assert [] == lines
