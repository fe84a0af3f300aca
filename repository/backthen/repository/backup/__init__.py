"""Making snapshots of the live file system."""

from backthen.repository.backup.amount import SourceAmount, count_source
from backthen.repository.backup.request import SnapshotReport, SnapshotRequest
from backthen.repository.backup.snapshot import create_snapshot

__all__ = ["SnapshotReport", "SnapshotRequest", "SourceAmount", "count_source", "create_snapshot"]
