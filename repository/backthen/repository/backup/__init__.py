"""Making snapshots of the live file system."""

from backthen.repository.backup.request import SnapshotReport, SnapshotRequest
from backthen.repository.backup.snapshot import create_snapshot

__all__ = ["SnapshotReport", "SnapshotRequest", "create_snapshot"]
