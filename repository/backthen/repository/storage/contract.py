"""What a storage promises. Every backend and every wrapper runs one suite: `tests/unit/test_storage_contract.py`.

Names come from `names.py` alone. A name or folder that it does not know is a bug in the caller, and raises `ValueError`
before anything is touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from typing_extensions import Buffer


class StoredObject(NamedTuple):
    """An object as a listing shows it: name and length in bytes."""

    name: str
    length: int


class Storage(Protocol):
    """Objects by name. Safe to use from several threads.

    Guarantees:
        * An object is there whole or not at all, and durable when `put` returns.
        * `put` never changes an object that exists, and of several that put one name at once one alone succeeds.
        * What `put` found taken is durable too when it raises `ObjectExists`.
        * `list` shows every object whose `put` returned before it was called, and may show later ones.

    Every method raises `StorageError` for what the storage refuses or cannot do.
    """

    @property
    def location(self) -> str:
        """Where it is, for messages; without secrets."""
        ...

    @property
    def folder(self) -> Path | None:
        """The folder of this machine that holds the objects, or None where they are elsewhere."""
        ...

    @property
    def spool(self) -> Path | None:
        """A local folder in which a file made for `put_file` is taken without being copied, or None."""
        ...

    @property
    def concurrency(self) -> int:
        """How many calls at once are worth while: 1 where waiting is short."""
        ...

    def create(self) -> None:
        """Make the place for a repository; what a killed `create` left is taken up.

        Raises:
            RepositoryExists: there is a repository.
            InvalidRequest: something else is there.
        """
        ...

    def put(self, name: str, data: Buffer) -> None:
        """Store an object.

        Raises:
            ObjectExists: the name is taken; nothing was changed.
        """
        ...

    def put_file(self, name: str, path: Path) -> None:
        """Store the content of a local file and remove the file.

        Raises:
            ObjectExists: the name is taken; the object was not changed, the file is removed.
            StorageError: the storage failed; the file is left, so that the call can be made again.
        """
        ...

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of an object, from `offset`, to its end when `length` is None; fewer where the object ends earlier.

        Raises:
            ObjectMissing: there is no such object.
        """
        ...

    def list(self, folder: str) -> Iterator[StoredObject]:
        """All objects below a folder such as `packs`, in any order; none when the folder does not exist.

        Files that others have put there are listed too: their names do not parse.
        """
        ...

    def delete(self, name: str) -> None:
        """Remove an object; it may be gone already."""
        ...

    def remove_abandoned_spool(self) -> int:
        """Remove what killed writers left half-way, never what a living one works on; how many there were."""
        ...

    def close(self) -> None:
        """Let go of connections and threads; a later call begins anew.

        To be called before a process forks. The child does not use it all the same where a backend says so: what some
        libraries have begun does not go on there.
        """
        ...
