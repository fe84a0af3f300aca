"""The snapshots of a repository: log, roots and marks, how one is made, and which is meant.

Knows nothing of what is inside a tree; nothing in here reads or stores blobs.
"""

from backthen.repository.catalog.catalog import Catalog, Survey
from backthen.repository.catalog.client import Authorship, ClientMemory, ClientState, VolatileClient
from backthen.repository.catalog.commit import Again, Committed
from backthen.repository.catalog.log import Log, LoggedSnapshot
from backthen.repository.catalog.marks import Condemned, Marks
from backthen.repository.catalog.prune import Contents, Going, Plan, Pruner
from backthen.repository.catalog.reading import read_record
from backthen.repository.catalog.retention import RetentionRules, Verdict, apply_retention
from backthen.repository.catalog.roots import SnapshotInfo, UnloggedRoot
from backthen.repository.catalog.select import (
    AtTime,
    IdPrefix,
    Latest,
    Selector,
    filter_snapshots,
    select_snapshot,
)

__all__ = [
    "Again",
    "AtTime",
    "Authorship",
    "Catalog",
    "ClientMemory",
    "ClientState",
    "Committed",
    "Condemned",
    "Contents",
    "Going",
    "IdPrefix",
    "Latest",
    "Log",
    "LoggedSnapshot",
    "Marks",
    "Plan",
    "Pruner",
    "RetentionRules",
    "Selector",
    "SnapshotInfo",
    "Survey",
    "UnloggedRoot",
    "Verdict",
    "VolatileClient",
    "apply_retention",
    "filter_snapshots",
    "read_record",
    "select_snapshot",
]
