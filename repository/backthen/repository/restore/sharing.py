"""Making small files in other processes: what makes one takes less time than threads take to hand over the interpreter.

This process goes through the snapshot, makes the folders and decides what happens to each name. Names that are to be
made go in batches, with their folders open, to processes that do nothing else: no path is looked up by two of them, and
a folder gets its attributes here, when all that is in it was made.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import NamedTuple, Protocol

import msgspec

from backthen.repository import format as fmt
from backthen.repository.content import Node
from backthen.repository.errors import DamageError
from backthen.repository.model.entry import Entry
from backthen.repository.objects.source import BlobSource
from backthen.repository.processes import Processes, Task
from backthen.repository.progress import Silent
from backthen.repository.restore.attributes import AttributeSetter
from backthen.repository.restore.folders import Folder
from backthen.repository.restore.items import ItemMaker, Unrestorable
from backthen.repository.restore.tally import Note, Tally
from backthen.repository.restore.traversal import Place

SHARED_BYTES_MAX = 8 * fmt.MIB
"""Larger files are not shared: threads write the chunks of one as fast."""
_BATCH_BYTES_MAX = 8 * fmt.MIB
_BATCH_NAMES_MAX = 512
_BATCH_FOLDERS_MAX = 64
"""So small that all processes end at about the same time, and so large that few segments are opened by two of them."""
_BATCHES_MAX = 8
FOLDERS_LEFT_MAX = 128
"""How many folders may wait with their descriptors for what is in them; 1,024 is what a process usually may have."""

Named = tuple[Place | None, Node]
"""A name that is to be made, and the directory of the snapshot it is in."""


class Forks(Protocol):
    """What several processes can read from."""

    def forking(self) -> AbstractContextManager[bool]:
        """Let go of what does not survive a fork, and take it back afterwards; whether there may be one meanwhile."""
        ...

    def forked_source(self) -> BlobSource:
        """The source, for a process that was forked meanwhile."""
        ...


class Batch(NamedTuple):
    """Names to be made.

    Attributes:
        folders: of each folder that comes open with this, whether it was made by this restore and passes on ACLs.
        names: in which of them, the name, the entry of each; encoded, which takes less than half the time of pickling.
    """

    folders: list[tuple[bool, bool]]
    names: bytes


_NAMES = msgspec.msgpack.Decoder(list[tuple[int, bytes, Entry]])


class Made(NamedTuple):
    """What became of a batch.

    Attributes:
        problems: by number of the name what is wrong with it.
        missing: numbers of the names that were not made.
        bytes_written: bytes of files, without holes.
        damaged: how many of the problems are damage of the repository.
        notes: what cannot be restored here at all.
    """

    problems: dict[int, str]
    missing: set[int]
    bytes_written: int
    damaged: int
    notes: Counter[Note]


def start_processes(forks: Forks, checked_reason: Callable[[OSError], str]) -> Processes[Batch, Made] | None:
    """The processes for a `Sharing`; None where there can be none.

    Args:
        forks: lets them read.
        checked_reason: what an error says, unless it ends the restore.

    Raises:
        CacheError: the cache folder cannot be used any more.
    """
    with ExitStack() as stack:
        with forks.forking() as may_fork:
            if not may_fork:
                return None
            try:
                processes = Processes(lambda: _Making(forks.forked_source(), checked_reason).make)
            except OSError:
                return None  # this user has as many processes as are allowed
            stack.push(processes)
        stack.pop_all()
        return processes


class Sharing:
    """Names that are being made in other processes, and the folders that wait for them."""

    def __init__(
        self,
        processes: Processes[Batch, Made],
        on_made: Callable[[list[Named], Made], None],
        on_filled: Callable[[Place, Folder], None],
    ) -> None:
        """Share out to `processes`, which are closed together with this.

        Args:
            processes: make names.
            on_made: told what became of names.
            on_filled: told of a folder that was left, when all in it was made.
        """
        self._processes = processes
        self._on_made = on_made
        self._on_filled = on_filled
        self._folders: dict[Folder, int] = {}
        self._names: list[tuple[int, bytes, Entry]] = []
        self._named: list[Named] = []
        self._bytes = 0
        self._under_way: deque[tuple[Task[Made], list[Named]]] = deque()
        self._batches_begun = 0
        self._batches_ended = 0
        self._left: deque[tuple[int, Place, Folder]] = deque()

    def close(self) -> None:
        """End the processes after what they are at; what is not finished is not made."""
        self._processes.close()
        for _, _, folder in self._left:
            folder.close()
        self._left.clear()

    def make(self, folder: Folder, place: Place | None, node: Node) -> None:
        """Have a name made before this is finished."""
        number = self._folders.setdefault(folder, len(self._folders))
        self._names.append((number, node.name, node.entry))
        self._named.append((place, node))
        self._bytes += node.entry.size
        is_full = len(self._names) >= _BATCH_NAMES_MAX or len(self._folders) >= _BATCH_FOLDERS_MAX
        if is_full or self._bytes >= _BATCH_BYTES_MAX:
            self.flush()

    def leave(self, place: Place, folder: Folder) -> None:
        """All that is in a folder was asked for; it is told when that is made, in the order in which they are left."""
        self._left.append((self._batches_begun + bool(self._names), place, folder))
        self._tell_filled()
        if len(self._left) > FOLDERS_LEFT_MAX:
            self.flush()
        while len(self._left) > FOLDERS_LEFT_MAX:
            self._take()

    def flush(self) -> None:
        """Hand out what was collected; the folders it is in may be closed then."""
        if self._names:
            kinds = [(folder.is_made, folder.inherits_acl) for folder in self._folders]
            batch = Batch(kinds, msgspec.msgpack.encode(self._names))
            task = self._processes.submit(batch, [folder.descriptor for folder in self._folders])
            self._under_way.append((task, self._named))
            self._batches_begun += 1
            self._folders, self._names, self._named, self._bytes = {}, [], [], 0
        while self._under_way and (len(self._under_way) > _BATCHES_MAX or self._under_way[0][0].done()):
            self._take()

    def finish(self) -> None:
        """Wait until all is made."""
        self.flush()
        while self._under_way:
            self._take()

    def _take(self) -> None:
        task, named = self._under_way.popleft()
        made = task.result()
        self._batches_ended += 1
        self._on_made(named, made)
        self._tell_filled()

    def _tell_filled(self) -> None:
        while self._left and self._left[0][0] <= self._batches_ended:
            _, place, folder = self._left.popleft()
            self._on_filled(place, folder)


class _Making:
    """What a process does."""

    def __init__(self, source: BlobSource, checked_reason: Callable[[OSError], str]) -> None:
        self._checked_reason = checked_reason
        self._tally = Tally(Silent())
        self._items = ItemMaker(source, self._tally, AttributeSetter(self._tally), uses_threads=False)

    def make(self, batch: Batch, descriptors: list[int]) -> Made:
        folders = [
            Folder(b"", descriptor, is_made=is_made, inherits_acl=inherits_acl)
            for descriptor, (is_made, inherits_acl) in zip(descriptors, batch.folders, strict=True)
        ]
        problems: dict[int, str] = {}
        missing: set[int] = set()
        for number, (folder, name, entry) in enumerate(_NAMES.decode(batch.names)):
            problem, is_made = self._make_one(folders[folder], name, entry)
            if problem:
                problems[number] = problem
            if not is_made:
                missing.add(number)
        tally = self._tally
        made = Made(problems, missing, tally.bytes_written, tally.damaged, Counter(tally.notes))
        tally.bytes_written = tally.damaged = 0
        tally.notes.clear()
        return made

    def _make_one(self, folder: Folder, name: bytes, entry: Entry) -> tuple[str, bool]:
        try:
            return self._items.make(folder, name, entry), True
        except Unrestorable:
            return "", False
        except OSError as error:
            return self._checked_reason(error), False
        except DamageError as error:
            return self._tally.damage(str(error)), False
