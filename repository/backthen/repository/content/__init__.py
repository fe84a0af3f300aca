"""Reading snapshots: trees by name and position, files by offset."""

from backthen.repository.content.file import (
    blobs_of,
    expect_file,
    extents_from,
    next_data,
    next_hole,
    read_file,
    read_parts,
    read_xattrs,
)
from backthen.repository.content.tree import Leaf, Node, SnapshotTree, distinct_leaves, entries_of, entry_lists_of

__all__ = [
    "Leaf",
    "Node",
    "SnapshotTree",
    "blobs_of",
    "distinct_leaves",
    "entries_of",
    "entry_lists_of",
    "expect_file",
    "extents_from",
    "next_data",
    "next_hole",
    "read_file",
    "read_parts",
    "read_xattrs",
]
