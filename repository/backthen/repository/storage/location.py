"""From what a user calls a location to the storage behind it."""

from __future__ import annotations

import re
from pathlib import Path

from backthen.repository.errors import InvalidRequest
from backthen.repository.storage.access import PLAIN_ACCESS, StorageAccess
from backthen.repository.storage.backends.local import LocalStorage
from backthen.repository.storage.contract import Storage
from backthen.repository.storage.wrappers.retrying import RetryingStorage

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BUCKET_SCHEMES = ("s3", "gs", "az")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}", re.ASCII)


def open_storage(location: str, access: StorageAccess = PLAIN_ACCESS) -> Storage:
    """The storage at a location: a path or a URL. Nothing is read, made or connected to yet.

    A remote one tries again what failed and may succeed later.

    Raises:
        InvalidRequest: it is not a location that this version knows.
    """
    match = _SCHEME.match(location)
    scheme = match[1].lower() if match else "file"
    if scheme == "file":
        return LocalStorage(_local_path(location))
    if scheme == "sftp":
        return RetryingStorage(_sftp_storage(location, access), retry_for_s=access.retry_for_s)
    if scheme in _BUCKET_SCHEMES:
        return RetryingStorage(_bucket_storage(scheme, location, access), retry_for_s=access.retry_for_s)
    raise InvalidRequest(
        f"{scheme}:// is not a kind of location that this version knows",
        hint="Give a folder on this machine, or sftp://user@host/path, s3://bucket/prefix, gs://bucket/prefix or "
        "az://container/prefix.",
    )


def _sftp_storage(location: str, access: StorageAccess) -> Storage:
    # Imported only here: that takes as long as a short command does.
    from backthen.repository.storage.backends.sftp import SftpStorage

    return SftpStorage(location, access)


def _bucket_storage(scheme: str, location: str, access: StorageAccess) -> Storage:
    from backthen.repository.storage.backends.bucket import BucketStorage
    from backthen.repository.storage.backends.bucket_stores import BucketPlace

    _, _, rest = location.partition("://")
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    is_plain = all(part not in ("", ".", "..") and part.isprintable() for part in prefix.split("/") if prefix)
    # The text is not shown: in other programs' URLs there may be a key before the `@`.
    if not (_BUCKET.fullmatch(bucket) and is_plain):
        raise InvalidRequest(
            f"the location is not that of a bucket; it is written {scheme}://bucket/prefix",
            hint="Credentials, region and endpoint come from the environment: see docs/storage.md.",
        )
    return BucketStorage(BucketPlace(scheme, bucket, prefix), access)


def _local_path(location: str) -> Path:
    text = location
    if _SCHEME.match(location):
        from urllib.parse import unquote, urlsplit

        parts = urlsplit(location)
        if parts.netloc not in ("", "localhost"):
            raise InvalidRequest(
                f"{location} names another host", hint="A local folder is written with three slashes: file:///path."
            )
        text = unquote(parts.path, errors="surrogateescape")
    if not text or "\0" in text:
        raise InvalidRequest("the location is not a path", hint="Give a folder on this machine.")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise InvalidRequest(f"{location}: {error}", hint="Give the path of the folder in full.") from error
