"""What the caller says about reaching a storage: this package reads no environment and no settings by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

TIMEOUT_S = 30.0
RETRY_FOR_S = 300.0


@dataclass(frozen=True, slots=True)
class StorageAccess:
    """How a storage is reached.

    Attributes:
        ssh_config: the files that are read as OpenSSH reads its own, the first that says something wins; for `sftp://`.
        ssh_agent: the socket of the agent that holds keys, where that configuration names no other; for `sftp://`.
        bucket_options: region, endpoint, credentials and the like, by the names that the object store's library gives
            them, such as `aws_region`; for `s3://`, `gs://` and `az://`. They hold secrets, and are never shown.
        upload_limit: bytes a second that are sent at most, None for as fast as it goes.
        download_limit: bytes a second that are fetched at most, None for as fast as it goes.
        timeout_s: seconds after which a server that says nothing counts as gone.
        retry_for_s: seconds after which what keeps failing is given up.
    """

    ssh_config: tuple[Path, ...] = ()
    ssh_agent: Path | None = None
    bucket_options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    upload_limit: int | None = None
    download_limit: int | None = None
    timeout_s: float = TIMEOUT_S
    retry_for_s: float = RETRY_FOR_S


PLAIN_ACCESS = StorageAccess()
"""Nothing is known and nothing is limited."""
