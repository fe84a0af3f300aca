"""Says in the log what is broken, once each."""

from __future__ import annotations

import logging

from backthen.fsmount.view import DamagedContent, StorageUnavailable, UnreadAtBackup, ViewError

REPORTS_MAX = 1024

_BROKEN = (DamagedContent, StorageUnavailable, UnreadAtBackup)
_log = logging.getLogger("backthen.fsmount")


class Reports:
    """What a mount has said already. Safe to use from several threads: at worst something is said twice."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def report(self, error: ViewError) -> None:
        """Say once what is broken; ordinary refusals are the reader's business."""
        message = str(error)
        if not isinstance(error, _BROKEN) or message in self._said:
            return
        if len(self._said) >= REPORTS_MAX:
            self._said.clear()
        self._said.add(message)
        _log.error("%s", message)
