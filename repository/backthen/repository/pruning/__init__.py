"""Making room: snapshots that are not wanted any more are forgotten, and what nobody needs is deleted."""

from backthen.repository.catalog import RetentionRules, Verdict
from backthen.repository.pruning.forgetting import damaged_snapshots, forget_snapshots, judge_snapshots
from backthen.repository.pruning.prune import PruneReport, prune_repository

__all__ = [
    "PruneReport",
    "RetentionRules",
    "Verdict",
    "damaged_snapshots",
    "forget_snapshots",
    "judge_snapshots",
    "prune_repository",
]
