"""Objects in a bucket of an object store: S3 and what speaks its language, Google Cloud Storage, Azure Blob Storage.

An object is put by one request that the server refuses when the name is taken, and so is there whole or not at all. A
server that ignores this, or does not know it, is found out when it matters, and put up with:
docs/decisions/0008-servers-that-overwrite.md says why that is safe, and what a claim is for.

Every wait is bounded: for what a server sends next, and for a put by how long the slowest line would take.

obstore does not survive a fork, even where it is not used at that time: what has called anything here must not go on in
a child.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import logging
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, InvalidPathError
from typing_extensions import Buffer

from backthen.repository import entropy
from backthen.repository.errors import InvalidRequest, ObjectExists, ObjectMissing, RepositoryExists, StorageError
from backthen.repository.storage.access import PLAIN_ACCESS, StorageAccess
from backthen.repository.storage.backends.bucket_errors import no_answer, plain_error, read_answer, strange_name
from backthen.repository.storage.backends.bucket_stores import BucketPlace, Store, make_store
from backthen.repository.storage.backends.event_loop import EventLoop
from backthen.repository.storage.contract import StoredObject
from backthen.repository.storage.local_file import of_local_file
from backthen.repository.storage.names import CONFIG_NAME, SPOOL, check_folder, check_object_name, is_leftover
from backthen.repository.storage.pacing import Pace

if TYPE_CHECKING:
    from obstore import GetOptions

CONCURRENCY = 16
SLOWEST_BYTES_PER_S = 16 * 1024
"""A put that gets on more slowly counts as stuck."""
_PART_BYTES = 256 * 1024
_PAGE_NAMES = 1000
_PROBE, _CLAIM = f"{SPOOL}/probe-", f"{SPOOL}/init-"
_PROBE_BYTES = b"Backthen puts this twice, to see whether the second put is refused.\n"
_RANDOM_BYTES = 16
_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)


class BucketStorage:
    """A `Storage` in a bucket. See the module and the contract."""

    def __init__(self, place: BucketPlace, access: StorageAccess = PLAIN_ACCESS) -> None:
        """Use the bucket; nothing is connected to yet."""
        self._place = place
        self._access = access
        self._loop = EventLoop("backthen-bucket")
        self._lock = threading.Lock()
        self._opened: Store | None = None
        self._upload = Pace(access.upload_limit)
        self._download = Pace(access.download_limit)
        self._is_conditional: bool | None = None
        """Whether the server refuses a put of a name that is taken; None as long as that is not known."""

    @property
    def location(self) -> str:
        """The bucket, and what all names begin with."""
        return str(self._place)

    @property
    def folder(self) -> None:
        """It is not on this machine."""

    @property
    def spool(self) -> None:
        """There is nothing that takes a file without a copy."""

    @property
    def concurrency(self) -> int:
        """See `Storage.concurrency`."""
        return CONCURRENCY

    def create(self) -> None:
        """See `Storage.create`; the bucket itself must exist.

        Raises:
            RepositoryExists: there is a repository.
            InvalidRequest: something else is there, or there are no credentials.
            StorageError: there is no such bucket, or it cannot be read.
        """
        if self._run(self._exists(CONFIG_NAME), self.location):
            raise RepositoryExists(f"there is a repository at {self.location} already")
        for stored in self._list(None):
            if not is_leftover(stored.name):
                raise InvalidRequest(
                    f"{self.location} is not empty: it holds {stored.name!r}",
                    hint="Name something new in the bucket: a prefix, as in s3://bucket/prefix.",
                )

    def put(self, name: str, data: Buffer) -> None:
        """See `Storage.put`.

        Raises:
            ObjectExists: the name is taken; nothing was changed.
            InvalidAccess: there are no credentials.
            StorageError: it cannot be stored.
        """
        check_object_name(name)
        view = memoryview(data).cast("B")
        put = self._put_config(view) if name == CONFIG_NAME else self._put(name, view)
        self._run(put, self._shown(name))

    def put_file(self, name: str, path: Path) -> None:
        """See `Storage.put_file`.

        Raises:
            ObjectExists: the name is taken; the object was not changed, the file is removed.
            InvalidAccess: there are no credentials.
            StorageError: it cannot be stored, or the file cannot be read; the file is left.
        """
        check_object_name(name)
        with of_local_file(path):
            data = path.read_bytes()
            try:
                self.put(name, data)
            except ObjectExists:
                path.unlink(missing_ok=True)
                raise
            path.unlink(missing_ok=True)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Storage.get`.

        Raises:
            ObjectMissing: there is no such object.
            InvalidAccess: there are no credentials.
            StorageError: it cannot be read.
        """
        check_object_name(name)
        return self._run(self._get(name, offset, length), self._shown(name))

    def list(self, folder: str) -> Iterator[StoredObject]:
        """See `Storage.list`; the iterator raises `StorageError` when the bucket cannot be listed."""
        check_folder(folder)
        return self._list(folder)

    def delete(self, name: str) -> None:
        """See `Storage.delete`.

        Raises:
            InvalidAccess: there are no credentials.
            StorageError: it cannot be removed.
        """
        check_object_name(name)
        self._run(self._delete(name), self._shown(name))

    def remove_abandoned_spool(self) -> int:
        """Nothing is left half-way in a bucket."""
        return 0

    def close(self) -> None:
        """See `Storage.close`; but see the module for what a fork does."""
        self._loop.close()
        with self._lock:
            self._opened = None

    def _shown(self, name: str) -> str:
        return f"{self.location}/{name}"

    @property
    def _store(self) -> Store:
        with self._lock:
            if self._opened is None:
                access = self._access
                self._opened = make_store(self._place, access.bucket_options, timeout_s=access.timeout_s)
            return self._opened

    def _run(self, work: Coroutine[Any, Any, _Result], what: str) -> _Result:
        """The one seam where errors of obstore become errors of the storage.

        What obstore says may hold what the server says, and that anything: it is not handed on as a cause.
        """
        try:
            return self._loop.run(work, None)
        except FileNotFoundError as error:
            if read_answer(error).is_bucket_missing:
                raise plain_error(error, what) from None
            raise ObjectMissing(f"{what} is not there") from None
        except AlreadyExistsError as error:
            if read_answer(error).is_conflict:
                raise plain_error(error, what) from None
            raise ObjectExists(f"{what} exists already") from None
        except InvalidPathError as error:
            raise strange_name(error, what) from None
        except TimeoutError:
            raise no_answer(what) from None
        except BaseError as error:
            raise plain_error(error, what) from None
        except concurrent.futures.CancelledError:
            raise StorageError(f"{what}: the storage was closed meanwhile", transient=True) from None

    def _list(self, folder: str | None) -> Iterator[StoredObject]:
        what = self.location if folder is None else self._shown(folder)
        pages = obstore.list(self._store, folder, chunk_size=_PAGE_NAMES)
        while page := self._run(self._next(pages), what):
            for item in page:
                yield StoredObject(item["path"], item["size"])

    async def _exists(self, name: str) -> bool:
        try:
            async with asyncio.timeout(self._access.timeout_s):
                await obstore.head_async(self._store, name)
        except FileNotFoundError:
            return False
        return True

    async def _get(self, name: str, offset: int, length: int | None) -> bytes:
        if length == 0:
            if not await self._exists(name):
                raise FileNotFoundError(name)
            return b""
        options: GetOptions = {}
        if length is not None:
            options["range"] = (offset, offset + length)
        elif offset:
            options["range"] = {"offset": offset}
        try:
            return await self._get_parts(name, options, length)
        except BaseError as error:
            if options and read_answer(error).is_past_the_end:
                return b""
            raise

    async def _get_parts(self, name: str, options: GetOptions, length: int | None) -> bytes:
        """Not more than `length` bytes, whatever the server sends."""
        async with asyncio.timeout(self._access.timeout_s):
            result = await obstore.get_async(self._store, name, options=options)
        stream = result.stream(min_chunk_size=_PART_BYTES)
        parts: list[Buffer] = []
        received = 0
        while length is None or received <= length:  # to its end, so that the connection can be used again
            part = await self._next(stream)
            if part is None:
                break
            parts.append(part)
            received += len(part)
            await _pause(self._download.delay_s(len(part)))
        return b"".join(parts)[:length]

    async def _next(self, stream: AsyncIterator[_Result]) -> _Result | None:
        """The next thing out of a stream, None at its end; a default of `anext` does not go with obstore's streams."""
        try:
            async with asyncio.timeout(self._access.timeout_s):
                return await anext(stream)
        except StopAsyncIteration:
            return None

    async def _put(self, name: str, data: memoryview) -> None:
        """Put an object whose name tells its content."""
        if self._is_conditional is not False:
            try:
                return await self._put_once(name, data, is_conditional=True)
            except BaseError as error:
                if not read_answer(error).is_not_implemented:
                    raise
                self._is_conditional = False
        if await self._exists(name):
            raise AlreadyExistsError
        return await self._put_once(name, data, is_conditional=False)

    async def _put_once(self, name: str, data: Buffer, *, is_conditional: bool) -> None:
        length = memoryview(data).nbytes
        await _pause(self._upload.delay_s(length))
        async with asyncio.timeout(self._access.timeout_s + length / SLOWEST_BYTES_PER_S):
            mode = "create" if is_conditional else "overwrite"
            await obstore.put_async(self._store, name, data, mode=mode, use_multipart=False)  # type: ignore[arg-type]

    async def _delete(self, name: str) -> None:
        try:
            async with asyncio.timeout(self._access.timeout_s):
                await obstore.delete_async(self._store, name)
        except FileNotFoundError as error:
            if read_answer(error).is_bucket_missing:
                raise

    async def _tidy(self, name: str) -> None:
        """Remove what has served its end; where the credentials may not delete it stays, and is in nobody's way."""
        try:
            await self._delete(name)
        except BaseError as error:
            if not read_answer(error).is_denied:
                raise
            _log.info("the credentials may not delete, so %s stays there", self._shown(name))

    async def _put_config(self, data: memoryview) -> None:
        """Put the one object whose name does not tell its content, and that several may want to put at once."""
        if await self._is_taken_name_refused():
            return await self._put(CONFIG_NAME, data)
        _log.warning(
            "%s: this server does not refuse to put what is there already; see docs/storage.md for what follows",
            self._place,
        )
        # The same for the same content, so that whoever tries again meets no claim of their own.
        claim = f"{_CLAIM}{hashlib.sha256(data).hexdigest()}"
        await self._put_once(claim, b"", is_conditional=False)
        await self._refuse_other_claims(claim)
        is_taken = await self._exists(CONFIG_NAME)
        if not is_taken:
            # Where this fails nobody knows whether it will still happen: the claim stays.
            await self._put_once(CONFIG_NAME, data, is_conditional=False)
        await self._tidy(claim)
        if is_taken:
            raise AlreadyExistsError
        return None

    async def _refuse_other_claims(self, own: str) -> None:
        """Withdraw where somebody else makes a repository too.

        Raises:
            StorageError: somebody does.
        """
        stream = obstore.list(self._store, SPOOL, chunk_size=_PAGE_NAMES)
        async with asyncio.timeout(self._access.timeout_s):
            claims = [item["path"] for item in await stream.collect_async() if item["path"].startswith(_CLAIM)]
        others = sorted(claim for claim in claims if claim != own)
        if others:
            await self._tidy(own)
            raise StorageError(
                f"{self._place}: somebody else is making a repository there, or was stopped while doing it",
                hint=f"If nobody is, delete {self._shown(others[0])} and try again.",
            )

    async def _is_taken_name_refused(self) -> bool:
        """Whether the server refuses what it should, seen by trying."""
        if self._is_conditional is None:
            probe = f"{_PROBE}{entropy.random_bytes(_RANDOM_BYTES).hex()}"
            await self._put(probe, memoryview(_PROBE_BYTES))
            if self._is_conditional is None:
                try:
                    await self._put_once(probe, _PROBE_BYTES, is_conditional=True)
                    self._is_conditional = False
                except AlreadyExistsError:
                    self._is_conditional = True
            await self._tidy(probe)
        return self._is_conditional


async def _pause(seconds: float) -> None:
    if seconds:
        await asyncio.sleep(seconds)
