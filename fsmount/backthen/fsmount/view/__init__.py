"""One read-only view of a repository's history: synchronous, free of any platform, with errors as meanings.

Adapters hand in a number or a handle and get attributes, entries and bytes. Nothing in here knows errno, FUSE or an
event loop.
"""

from __future__ import annotations

from backthen.fsmount.view.activity import REQUEST_DEADLINE_S
from backthen.fsmount.view.attributes import Attributes, Listed, Owner
from backthen.fsmount.view.beginning import history_view, tree_view
from backthen.fsmount.view.errors import (
    DamagedContent,
    Gone,
    NoSuchAttribute,
    NotADirectory,
    NotAFile,
    NotASymlink,
    NotFound,
    ReadOnly,
    StorageUnavailable,
    UnreadAtBackup,
    ViewError,
)
from backthen.fsmount.view.filesystem import Showing, View
from backthen.fsmount.view.history import Blobs, History
from backthen.fsmount.view.numbers import ROOT_NUMBER
from backthen.fsmount.view.opened import Capacity, OpenDirectory, OpenFile
from backthen.fsmount.view.status import Serving

__all__ = [
    "REQUEST_DEADLINE_S",
    "ROOT_NUMBER",
    "Attributes",
    "Blobs",
    "Capacity",
    "DamagedContent",
    "Gone",
    "History",
    "Listed",
    "NoSuchAttribute",
    "NotADirectory",
    "NotAFile",
    "NotASymlink",
    "NotFound",
    "OpenDirectory",
    "OpenFile",
    "Owner",
    "ReadOnly",
    "Serving",
    "Showing",
    "StorageUnavailable",
    "UnreadAtBackup",
    "View",
    "ViewError",
    "history_view",
    "tree_view",
]
