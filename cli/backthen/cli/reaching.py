"""From settings and the environment to the storage: all that the engine has to know about reaching it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from backthen.cli.settings import Settings

if TYPE_CHECKING:
    from backthen.repository import Storage, StorageAccess

_SSH_CONFIG = Path("/etc/ssh/ssh_config")


def storage_at(settings: Settings, *, retry_for_s: float | None = None) -> Storage:
    """The storage of the settings' location. Nothing is connected to yet.

    Args:
        settings: say where it is, and how it is reached.
        retry_for_s: seconds after which what keeps failing is given up; None for as long as by default.

    Raises:
        InvalidRequest: it is not a location that this version knows.
        ConfigurationError: what the environment says about reaching it cannot be used.
    """
    from backthen.repository import open_storage

    access = storage_access(settings, os.environ)
    return open_storage(settings.location, access if retry_for_s is None else replace(access, retry_for_s=retry_for_s))


def storage_access(settings: Settings, environment: Mapping[str, str]) -> StorageAccess:
    """How the storage is reached.

    Raises:
        ConfigurationError: what the environment says about it cannot be used.
    """
    from backthen.cli.bucket_options import bucket_options
    from backthen.repository import StorageAccess

    agent = environment.get("SSH_AUTH_SOCK")
    return StorageAccess(
        ssh_config=tuple(path for path in (Path.home() / ".ssh" / "config", _SSH_CONFIG) if os.access(path, os.R_OK)),
        ssh_agent=Path(agent) if agent else None,
        bucket_options=bucket_options(settings.location, environment),
        upload_limit=settings.upload_limit,
        download_limit=settings.download_limit,
    )
