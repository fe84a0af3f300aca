"""Killing the program at a chosen system call on the files that matter, with strace."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cli.conftest import TIMEOUT_S, User, program

CALLS = ("write", "pwrite64", "writev", "fsync", "fdatasync", "link", "linkat", "rename", "renameat", "unlink", "mkdir")
_CALL = re.compile(r"(\d+)\s+(\w+)\((.*)")
_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)


@dataclass(frozen=True)
class Moment:
    """A system call of a run: the `number`th one of its kind in its thread.

    Attributes:
        is_first: no other thread had made as many before, so that strace's counting by threads hits this one.
        text: what strace said of it.
    """

    call: str
    number: int
    is_main: bool
    is_first: bool
    text: str


def moments(user: User, log: Path, folders: Sequence[Path], *arguments: str) -> list[Moment]:
    """Run the program to its end; all its calls on files in the given folders that can be hit, in order."""
    traced = ",".join(("execve", *CALLS))
    command = ["strace", "-f", "--seccomp-bpf", "-y", "-s", "0", "-e", f"trace={traced}", "-o", str(log)]
    assert shutil.which("strace"), "strace is not installed; ci/setup installs it"
    subprocess.run(
        [*command, *program(), *arguments], env=user.environment, check=True, capture_output=True, timeout=TIMEOUT_S
    )
    counts: Counter[tuple[str, str]] = Counter()
    highest: Counter[str] = Counter()
    found = []
    main = ""
    for line in log.read_text(errors="replace").splitlines():
        match = _CALL.match(line)
        if match is None:
            continue
        call = match[2]
        if call == "execve":  # of the program itself, and so by its main thread
            main = main or match[1]
            continue
        counts[match[1], call] += 1
        number = counts[match[1], call]
        is_first = number > highest[call]
        highest[call] = max(highest[call], number)
        if any(f"{folder}/" in match[3] for folder in folders) and (is_first or match[1] == main):
            found.append(Moment(call, number, match[1] == main, is_first, line))
    return found


def sample(found: Sequence[Moment], count: int) -> list[Moment]:
    """So many of them, evenly spread."""
    return [found[index * len(found) // count] for index in range(min(count, len(found)))]


def kill_at(user: User, moment: Moment, *arguments: str) -> bool:
    """Run the program again and kill it there; False when it came to its end this time.

    strace counts the calls of each thread by itself, so calls of the main thread are hit by looking at that alone.
    """
    threads = ["-f", "--seccomp-bpf"] if moment.is_first else []
    rule = f"inject={moment.call}:signal=KILL:when={moment.number}"
    done = subprocess.run(
        ["strace", *threads, "-o", "/dev/null", "-e", rule, *program(), *arguments],
        env=user.environment,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode in (0, *_KILLED), done.stderr
    return done.returncode != 0
