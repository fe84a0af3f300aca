"""The engine of Backthen: encrypted, de-duplicated, immutable snapshots in storage that nobody needs to trust.

This is its face: `backthen.fsmount` and `backthen.cli` import from here alone. It knows nothing of FUSE, terminals or
the environment.
What changes or searches a whole repository is imported when it is first asked for: no command needs all of it.
A repository goes through states that are types: a `Storage`, a `LockedRepository`, a `Repository`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from backthen.repository.bounded import LRUCache
from backthen.repository.catalog import (
    AtTime,
    IdPrefix,
    Latest,
    Selector,
    SnapshotInfo,
    filter_snapshots,
    select_snapshot,
)
from backthen.repository.catalog.slots import SlotInfo
from backthen.repository.clock import monotonic_ns, now_ns
from backthen.repository.compression import Compression, parse_compression
from backthen.repository.content import (
    Node,
    SnapshotTree,
    expect_file,
    extents_from,
    next_data,
    next_hole,
    read_file,
    read_xattrs,
)
from backthen.repository.errors import (
    AmbiguousSnapshot,
    CacheError,
    DamageError,
    InvalidRequest,
    MalformedError,
    MissingError,
    NewerFormatError,
    ObjectExists,
    ObjectMissing,
    PathNotFound,
    ProcessLost,
    RepositoryError,
    RepositoryExists,
    RepositoryNotFound,
    RollbackError,
    SnapshotNotFound,
    StorageError,
    TamperedError,
    TargetError,
    WrongPassword,
)
from backthen.repository.ids import ObjectId, RepositoryId, SnapshotId
from backthen.repository.model.entry import Entry, EntryType
from backthen.repository.model.records import Root, Statistics
from backthen.repository.objects import BlobSource, CacheUse, NotInMemory
from backthen.repository.opening import (
    Client,
    Folders,
    LockedRepository,
    Repository,
    create_repository,
    find_repository,
)
from backthen.repository.private import make_private_folder
from backthen.repository.progress import Progress, Silent
from backthen.repository.source import ExclusionRules
from backthen.repository.storage import Storage, StorageAccess, StorageState, open_storage
from backthen.repository.times import parse_time

if TYPE_CHECKING:
    from backthen.repository.backup import SnapshotReport, SnapshotRequest, SourceAmount, count_source, create_snapshot
    from backthen.repository.history import (
        Past,
        Sighting,
        UnionChild,
        child_past,
        count_contents,
        find_sighting,
        past_at,
        timeline,
        top_past,
        union_children,
    )
    from backthen.repository.maintenance import (
        CheckReport,
        CheckRequest,
        Finding,
        RepositoryCache,
        RepositoryStatistics,
        add_password,
        add_recovery_key,
        change_password,
        check_repository,
        clear_caches,
        list_access,
        list_caches,
        remove_access,
        repository_statistics,
    )
    from backthen.repository.restore import Overwrite, RestoreReport, RestoreRequest, restore_tree

_OPERATIONS = {
    "backup": ("SnapshotReport", "SnapshotRequest", "SourceAmount", "count_source", "create_snapshot"),
    "history": (
        "Past",
        "Sighting",
        "UnionChild",
        "child_past",
        "count_contents",
        "find_sighting",
        "past_at",
        "timeline",
        "top_past",
        "union_children",
    ),
    "maintenance": (
        "CheckReport",
        "CheckRequest",
        "Finding",
        "RepositoryCache",
        "RepositoryStatistics",
        "add_password",
        "add_recovery_key",
        "change_password",
        "check_repository",
        "clear_caches",
        "list_access",
        "list_caches",
        "remove_access",
        "repository_statistics",
    ),
    "restore": ("Overwrite", "RestoreReport", "RestoreRequest", "restore_tree"),
}
_HOMES = {name: module for module, names in _OPERATIONS.items() for name in names}

__all__ = [
    "AmbiguousSnapshot",
    "AtTime",
    "BlobSource",
    "CacheError",
    "CacheUse",
    "CheckReport",
    "CheckRequest",
    "Client",
    "Compression",
    "DamageError",
    "Entry",
    "EntryType",
    "ExclusionRules",
    "Finding",
    "Folders",
    "IdPrefix",
    "InvalidRequest",
    "LRUCache",
    "Latest",
    "LockedRepository",
    "MalformedError",
    "MissingError",
    "NewerFormatError",
    "Node",
    "NotInMemory",
    "ObjectExists",
    "ObjectId",
    "ObjectMissing",
    "Overwrite",
    "Past",
    "PathNotFound",
    "ProcessLost",
    "Progress",
    "Repository",
    "RepositoryCache",
    "RepositoryError",
    "RepositoryExists",
    "RepositoryId",
    "RepositoryNotFound",
    "RepositoryStatistics",
    "RestoreReport",
    "RestoreRequest",
    "RollbackError",
    "Root",
    "Selector",
    "Sighting",
    "Silent",
    "SlotInfo",
    "SnapshotId",
    "SnapshotInfo",
    "SnapshotNotFound",
    "SnapshotReport",
    "SnapshotRequest",
    "SnapshotTree",
    "SourceAmount",
    "Statistics",
    "Storage",
    "StorageAccess",
    "StorageError",
    "StorageState",
    "TamperedError",
    "TargetError",
    "UnionChild",
    "WrongPassword",
    "add_password",
    "add_recovery_key",
    "change_password",
    "check_repository",
    "child_past",
    "clear_caches",
    "count_contents",
    "count_source",
    "create_repository",
    "create_snapshot",
    "expect_file",
    "extents_from",
    "filter_snapshots",
    "find_repository",
    "find_sighting",
    "list_access",
    "list_caches",
    "make_private_folder",
    "monotonic_ns",
    "next_data",
    "next_hole",
    "now_ns",
    "open_storage",
    "parse_compression",
    "parse_time",
    "past_at",
    "read_file",
    "read_xattrs",
    "remove_access",
    "repository_statistics",
    "restore_tree",
    "select_snapshot",
    "timeline",
    "top_past",
    "union_children",
]


def __getattr__(name: str) -> object:
    """What an operation's package offers, imported now and kept."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
