"""What one user's programs on one machine remember of a repository: who they are in its log, and what they saw of it.

It lies in the state folder, not in the cache, because forgetting it would let a storage show an older past unnoticed.
Every change is made under a lock of all processes, and durable before it counts.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import threading
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from backthen.repository import entropy
from backthen.repository.errors import CacheError
from backthen.repository.private import make_private_folder
from backthen.repository.storage import parse_log_name

CLIENT_BYTES = 16
_FILE_NAME = "client.json"
_UNFINISHED_NAME = "client.json.new"
_LOCK_NAME = "lock"
_MACHINE_ID = Path("/etc/machine-id")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Authorship:
    """Who writes a log entry: a client's random id, and a number that it never uses again."""

    client: bytes
    counter: int


class ClientMemory(Protocol):
    """What a client remembers of one repository. Safe to use from several threads."""

    @property
    def place(self) -> str:
        """Where it is kept, for messages."""
        ...

    def pinned(self) -> frozenset[str]:
        """The names of the log's heads that were seen last.

        Raises:
            CacheError: what was remembered cannot be read.
        """
        ...

    def pin(self, heads: Set[str], *, superseded: Set[str]) -> None:
        """Remember heads, in place of those that they stand on.

        What another process has pinned meanwhile is in neither set, and stays.

        Raises:
            CacheError: what was remembered cannot be read.
        """
        ...

    def draw(self, seen: Mapping[bytes, int]) -> Authorship:
        """An authorship for one entry, given the highest counter of each client in the log.

        Raises:
            CacheError: what was remembered cannot be read.
        """
        ...


class Memory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of the state file. `home` tells if the file was copied from somewhere else."""

    client: str
    counter: int
    heads: tuple[str, ...]
    home: str

    def check(self) -> None:
        """Hold the content of a file against what its fields mean.

        Raises:
            ValueError: it is something else.
        """
        if len(bytes.fromhex(self.client)) != CLIENT_BYTES or self.counter < 0:
            raise ValueError("not a client")
        if not all(map(parse_log_name, self.heads)):
            raise ValueError("not the names of log entries")

    def with_heads(self, heads: Set[str], superseded: Set[str]) -> Memory:
        """See `ClientMemory.pin`."""
        kept = set(self.heads) - superseded | heads
        return msgspec.structs.replace(self, heads=tuple(sorted(kept)))

    def drawn(self, seen: Mapping[bytes, int]) -> Memory:
        """The next counter; a new client where the log knows more of this one, which then lives elsewhere too."""
        if seen.get(bytes.fromhex(self.client), 0) > self.counter:
            return msgspec.structs.replace(self, client=_new_client(), counter=1)
        return msgspec.structs.replace(self, counter=self.counter + 1)

    @property
    def authorship(self) -> Authorship:
        """The last authorship drawn."""
        return Authorship(bytes.fromhex(self.client), self.counter)


class VolatileClient:
    """A client that remembers nothing beyond this process."""

    def __init__(self, heads: Set[str] = frozenset()) -> None:
        """A new client that has seen `heads`."""
        self._memory = Memory(_new_client(), 0, tuple(sorted(heads)), "")
        self._lock = threading.Lock()

    @property
    def place(self) -> str:
        """See `ClientMemory.place`."""
        return "this process"

    def pinned(self) -> frozenset[str]:
        """See `ClientMemory.pinned`."""
        return frozenset(self._memory.heads)

    def pin(self, heads: Set[str], *, superseded: Set[str]) -> None:
        """See `ClientMemory.pin`."""
        with self._lock:
            self._memory = self._memory.with_heads(heads, superseded)

    def draw(self, seen: Mapping[bytes, int]) -> Authorship:
        """See `ClientMemory.draw`."""
        with self._lock:
            self._memory = self._memory.drawn(seen)
            return self._memory.authorship


class ClientState:
    """A client whose memory is a file in a folder of its own, or this process alone where that cannot be written."""

    def __init__(self, folder: Path) -> None:
        """Use the folder; it is made when something is to be remembered."""
        self._folder = folder
        self._file = folder / _FILE_NAME
        self._volatile: VolatileClient | None = None

    @property
    def place(self) -> str:
        """The state file's path."""
        return str(self._file)

    def pinned(self) -> frozenset[str]:
        """See `ClientMemory.pinned`.

        Raises:
            CacheError: the state file was damaged, or may not be read.
        """
        if self._volatile is not None:
            return self._volatile.pinned()
        memory = self._load()
        return frozenset() if memory is None else frozenset(memory.heads)

    def pin(self, heads: Set[str], *, superseded: Set[str]) -> None:
        """See `ClientMemory.pin`.

        Raises:
            CacheError: the state file was damaged, or may not be read.
        """
        if heads <= self.pinned() and not superseded & self.pinned():
            return
        try:
            if self._volatile is None:
                with self._locked():
                    self._store(self._current().with_heads(heads, superseded))
                return
        except OSError as error:
            self._become_volatile(error)
        assert self._volatile is not None
        self._volatile.pin(heads, superseded=superseded)

    def draw(self, seen: Mapping[bytes, int]) -> Authorship:
        """See `ClientMemory.draw`.

        Raises:
            CacheError: the state file was damaged, or may not be read.
        """
        try:
            if self._volatile is None:
                with self._locked():
                    memory = self._current().drawn(seen)
                    self._store(memory)
                    return memory.authorship
        except OSError as error:
            self._become_volatile(error)
        assert self._volatile is not None
        return self._volatile.draw(seen)

    def _become_volatile(self, error: OSError) -> None:
        _log.warning(
            "%s cannot be written (%s): this run works under a new client id and will not remember what it saw",
            self._folder,
            error.strerror,
        )
        self._volatile = VolatileClient(self.pinned())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        make_private_folder(self._folder)
        descriptor = os.open(self._folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _load(self) -> Memory | None:
        try:
            memory = msgspec.json.decode(self._file.read_bytes(), type=Memory)
            memory.check()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CacheError(f"{self._file} cannot be read: {error.strerror}", hint="Check who owns it.") from error
        except (msgspec.MsgspecError, ValueError) as error:
            raise CacheError(
                f"{self._file} is damaged ({error})",
                hint="Remove it: what this machine remembered of the repository's past is lost then, and no data.",
            ) from error
        return memory

    def _current(self) -> Memory:
        """What is remembered, under a new client id if it was remembered somewhere else."""
        home = _home(self._folder)
        memory = self._load()
        if memory is None:
            return Memory(_new_client(), 0, (), home)
        if memory.home != home:
            return Memory(_new_client(), 0, memory.heads, home)
        return memory

    def _store(self, memory: Memory) -> None:
        """Write the file anew; only under the lock, so that one name for the unfinished file is enough."""
        unfinished = self._folder / _UNFINISHED_NAME
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(memory)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self._file)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _new_client() -> str:
    return entropy.random_bytes(CLIENT_BYTES).hex()


def _home(folder: Path) -> str:
    """A word for this folder on this machine; a copy of the folder has another."""
    try:
        machine = _MACHINE_ID.read_bytes()
    except OSError:
        machine = b""
    status = folder.stat()
    text = b"backthen client home\0%d\0%d\0%b" % (status.st_dev, status.st_ino, machine)
    return hashlib.sha256(text).hexdigest()
