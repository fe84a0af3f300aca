"""Bringing snapshots back as files, never outside of the target."""

from backthen.repository.restore.request import Overwrite, RestoreReport, RestoreRequest
from backthen.repository.restore.restoring import restore_tree

__all__ = ["Overwrite", "RestoreReport", "RestoreRequest", "restore_tree"]
