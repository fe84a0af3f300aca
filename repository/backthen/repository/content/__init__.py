"""Reading snapshots: trees by name and position, files by offset."""

from backthen.repository.content.file import extents_from, read_file, read_xattrs
from backthen.repository.content.tree import Node, SnapshotTree

__all__ = ["Node", "SnapshotTree", "extents_from", "read_file", "read_xattrs"]
