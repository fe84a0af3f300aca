"""The engine of Backthen: encrypted, de-duplicated, immutable snapshots in storage that nobody needs to trust.

This is its face: `backthen.fsmount` and `backthen.cli` import from here alone. It knows nothing of FUSE, terminals or
the environment.
All but errors and ids is imported when it is first asked for: no command needs all of it, and much of it can come while
the keys are derived.
A repository goes through states that are types: a `Storage`, a `LockedRepository`, a `Repository`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from backthen.repository.errors import (
    AmbiguousSnapshot,
    CacheError,
    DamageError,
    InvalidAccess,
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

if TYPE_CHECKING:
    from backthen.repository.backup import SnapshotReport, SnapshotRequest, SourceAmount, count_source, create_snapshot
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
    from backthen.repository.clock import monotonic_ns, now_ns
    from backthen.repository.compression import Compression, parse_compression
    from backthen.repository.content import (
        Leaf,
        Node,
        SnapshotTree,
        expect_file,
        extents_from,
        next_data,
        next_hole,
        read_file,
        read_parts,
        read_xattrs,
    )
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
    from backthen.repository.locked import Folders, LockedRepository, Unlocking, find_repository
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
    from backthen.repository.model.entry import Entry, EntryType
    from backthen.repository.model.records import Root, Statistics
    from backthen.repository.objects import BlobSource, CacheUse, NotInMemory
    from backthen.repository.opening import Client, Repository, create_repository, finish_unlock, unlock
    from backthen.repository.private import make_private_folder
    from backthen.repository.progress import Progress, Silent
    from backthen.repository.pruning import (
        PruneReport,
        RetentionRules,
        Verdict,
        damaged_snapshots,
        forget_snapshots,
        judge_snapshots,
        prune_repository,
    )
    from backthen.repository.restore import Overwrite, RestoreReport, RestoreRequest, restore_tree
    from backthen.repository.slots import SlotInfo
    from backthen.repository.source import ExclusionRules
    from backthen.repository.storage import Storage, StorageAccess, StorageState, open_storage
    from backthen.repository.times import parse_time
    from backthen.repository.walking import WalkApart, walk_apart

_OFFERED = {
    "backup": ("SnapshotReport", "SnapshotRequest", "SourceAmount", "count_source", "create_snapshot"),
    "bounded": ("LRUCache",),
    "catalog": ("AtTime", "IdPrefix", "Latest", "Selector", "SnapshotInfo", "filter_snapshots", "select_snapshot"),
    "clock": ("monotonic_ns", "now_ns"),
    "compression": ("Compression", "parse_compression"),
    "content": (
        "Leaf",
        "Node",
        "SnapshotTree",
        "expect_file",
        "extents_from",
        "next_data",
        "next_hole",
        "read_file",
        "read_parts",
        "read_xattrs",
    ),
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
    "locked": ("Folders", "LockedRepository", "Unlocking", "find_repository"),
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
    "pruning": (
        "PruneReport",
        "RetentionRules",
        "Verdict",
        "damaged_snapshots",
        "forget_snapshots",
        "judge_snapshots",
        "prune_repository",
    ),
    "model.entry": ("Entry", "EntryType"),
    "model.records": ("Root", "Statistics"),
    "objects": ("BlobSource", "CacheUse", "NotInMemory"),
    "opening": ("Client", "Repository", "create_repository", "finish_unlock", "unlock"),
    "private": ("make_private_folder",),
    "progress": ("Progress", "Silent"),
    "restore": ("Overwrite", "RestoreReport", "RestoreRequest", "restore_tree"),
    "slots": ("SlotInfo",),
    "source": ("ExclusionRules",),
    "storage": ("Storage", "StorageAccess", "StorageState", "open_storage"),
    "times": ("parse_time",),
    "walking": ("WalkApart", "walk_apart"),
}
_HOMES = {name: module for module, names in _OFFERED.items() for name in names}

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
    "InvalidAccess",
    "InvalidRequest",
    "LRUCache",
    "Latest",
    "Leaf",
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
    "PruneReport",
    "Repository",
    "RepositoryCache",
    "RepositoryError",
    "RepositoryExists",
    "RepositoryId",
    "RepositoryNotFound",
    "RepositoryStatistics",
    "RestoreReport",
    "RestoreRequest",
    "RetentionRules",
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
    "Unlocking",
    "Verdict",
    "WalkApart",
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
    "damaged_snapshots",
    "expect_file",
    "extents_from",
    "filter_snapshots",
    "find_repository",
    "find_sighting",
    "finish_unlock",
    "forget_snapshots",
    "judge_snapshots",
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
    "prune_repository",
    "read_file",
    "read_parts",
    "read_xattrs",
    "remove_access",
    "repository_statistics",
    "restore_tree",
    "select_snapshot",
    "timeline",
    "top_past",
    "union_children",
    "unlock",
    "walk_apart",
]


def __getattr__(name: str) -> object:
    """What a module offers, imported now and kept."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
