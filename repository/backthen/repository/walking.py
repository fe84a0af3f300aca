"""The walk of a snapshot in a process of its own: listing and examining take another core than comparing and storing.

The process is forked before there are threads and before there are keys, and knows none.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from backthen.repository import clock
from backthen.repository.locked import LockedRepository
from backthen.repository.processes import can_fork, without_interrupts

if TYPE_CHECKING:
    from backthen.repository.source import Event, ExclusionRules


class WalkApart:
    """A walk that goes on in another process, as far ahead as a pipe holds; use in a `with`.

    Attributes:
        started_ns: no name was looked at before.
    """

    def __init__(self, process: int, source: BinaryIO, started_ns: int) -> None:
        """Take over the process and what it is read from."""
        self._process = process
        self._source = source
        self.started_ns = started_ns

    def __enter__(self) -> WalkApart:
        """Use it."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process, wherever it is."""
        self._source.close()
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)

    def events(self) -> Generator[Event]:
        """What it comes upon; to be asked for once.

        Raises:
            WalkStopped: it ended early.
        """
        from backthen.repository.source import receive_events

        return receive_events(self._source)


def walk_apart(
    locked: LockedRepository,
    paths: tuple[bytes, ...],
    make_rules: Callable[[], ExclusionRules],
    *,
    one_file_system: bool,
) -> WalkApart | None:
    """Begin to walk as a snapshot of that request into that repository does.

    None where a fork is not safe or of no use, as with the threads of connections to a repository that is elsewhere, or
    where there can be no more processes.
    Whatever goes wrong there ends it early; who walks here instead meets it too, and says so.

    Args:
        locked: the repository; whatever its storage has opened is not used there.
        paths: what is to be saved.
        make_rules: what is left out; called there.
        one_file_system: do not enter other file systems than those of `paths`.
    """
    if locked.folder is None or not can_fork():
        return None
    own_folders = (locked.cache_folder, locked.folder)
    started_ns = clock.now_ns()
    reading, writing = os.pipe()
    with without_interrupts():  # Ctrl-C is left to this process, which ends the other
        try:
            process = os.fork()
        except OSError:
            os.close(reading)
            os.close(writing)
            return None
        if process == 0:
            try:
                os.close(reading)
                with open(writing, "wb") as target:
                    spool = locked.cache_folder / "spool"
                    _walk(target, own_folders, spool, paths, make_rules(), one_file_system=one_file_system)
            finally:
                os._exit(0)
    os.close(writing)
    return WalkApart(process, open(reading, "rb"), started_ns)


def _walk(
    target: BinaryIO,
    own_folders: tuple[Path, ...],
    spool: Path,
    paths: tuple[bytes, ...],
    rules: ExclusionRules,
    *,
    one_file_system: bool,
) -> None:
    from backthen.repository.crypto import SpillCipher
    from backthen.repository.source import Spill, own_places, saved_paths, send_events, walk

    cipher = SpillCipher()
    spill = Spill(spool, cipher.seal, cipher.open)
    own = own_places(own_folders)
    send_events(walk(saved_paths(paths), spill, rules=rules, one_file_system=one_file_system, own=own), target)
