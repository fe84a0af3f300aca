"""The live file system as a snapshot reads it: which paths, in which order, never led elsewhere. Streaming."""

from backthen.repository.source.attributes import (
    NO_XATTRS,
    TYPE_BITS,
    TYPES,
    OwnerNames,
    XattrRead,
    Xattrs,
    entry_type,
    make_entry,
    path_in,
    path_of,
    read_target,
    read_xattrs,
)
from backthen.repository.source.events import EnterDirectory, Event, Item, Items, LeaveDirectory, Problem
from backthen.repository.source.exclusion import ExclusionRules
from backthen.repository.source.files import (
    FileReplaced,
    Status,
    Stretch,
    is_changed,
    is_gone,
    is_sparse,
    open_file,
    read_whole,
    reason_of,
    stretches,
)
from backthen.repository.source.filesystems import FileSystems
from backthen.repository.source.names import Spill, sorted_names
from backthen.repository.source.own import OwnPlaces, own_places, tag_cache
from backthen.repository.source.passing import WalkStopped, receive_events, send_events
from backthen.repository.source.patterns import PatternList, split_lines
from backthen.repository.source.roots import SavedPaths, saved_paths
from backthen.repository.source.walk import walk

__all__ = [
    "NO_XATTRS",
    "TYPES",
    "TYPE_BITS",
    "EnterDirectory",
    "Event",
    "ExclusionRules",
    "FileReplaced",
    "FileSystems",
    "Item",
    "Items",
    "LeaveDirectory",
    "OwnPlaces",
    "OwnerNames",
    "PatternList",
    "Problem",
    "SavedPaths",
    "Spill",
    "Status",
    "Stretch",
    "WalkStopped",
    "XattrRead",
    "Xattrs",
    "entry_type",
    "is_changed",
    "is_gone",
    "is_sparse",
    "make_entry",
    "open_file",
    "own_places",
    "path_in",
    "path_of",
    "read_target",
    "read_whole",
    "read_xattrs",
    "reason_of",
    "receive_events",
    "saved_paths",
    "send_events",
    "sorted_names",
    "split_lines",
    "stretches",
    "tag_cache",
    "walk",
]
