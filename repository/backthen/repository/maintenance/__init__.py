"""Looking after a repository: checking it, counting it, and the ways into it."""

from backthen.repository.maintenance.access import (
    add_password,
    add_recovery_key,
    change_password,
    list_access,
    remove_access,
)
from backthen.repository.maintenance.caches import RepositoryCache, clear_caches, list_caches
from backthen.repository.maintenance.check import CheckReport, CheckRequest, Finding, check_repository
from backthen.repository.maintenance.statistics import RepositoryStatistics, repository_statistics

__all__ = [
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
]
