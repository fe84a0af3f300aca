"""Another machine at work on a real repository: it forgets a snapshot, and later prunes what only that needed."""

from __future__ import annotations

import tempfile
from collections.abc import Set
from pathlib import Path

from backthen.repository import Client, Folders, find_repository, open_storage, unlock
from backthen.repository.catalog.log import Log
from backthen.repository.clock import now_ns
from backthen.repository.ids import ObjectId, SnapshotId
from backthen.repository.model.records import LogKind
from tests.cli.conftest import PASSWORD, User


def forget(user: User, snapshot: str) -> None:
    """Put the log entry that says that a snapshot is not shown any more."""
    with tempfile.TemporaryDirectory() as made:
        folders = Folders(cache=Path(made) / "cache", state=Path(made) / "state")
        client = Client(host="another", user="another", program="test")
        locked = find_repository(open_storage(str(user.home / "repository")), folders)
        with unlock(locked, PASSWORD.encode(), client) as repository:
            log = Log(repository.storage, repository.opened.keys, repository.state)
            log.refresh()
            log.append(LogKind.FORGET, SnapshotId(ObjectId(bytes.fromhex(snapshot))), now_ns())


def objects(user: User) -> frozenset[Path]:
    """All that is stored, except for the log."""
    repository = user.home / "repository"
    return frozenset(path for path in repository.rglob("*") if path.is_file() and path.parent.name != "log")


def prune(user: User, kept: Set[Path]) -> set[str]:
    """Delete what is stored but for some of it, in the order in which a prune does; the names of the packs."""
    gone = objects(user) - kept
    for kind in ("roots", "index", "packs"):
        for path in gone:
            if kind in path.relative_to(user.home / "repository").parts:
                path.unlink()
    return {path.name for path in gone if "packs" in path.parts}
