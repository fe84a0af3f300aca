"""Whole snapshots, forgets and prunes of several machines at once, with pauses and kills: nothing reported is lost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from backthen.repository import CheckRequest, Silent, check_repository
from tests.support.prune_world import run_prune_schedule

SCHEDULES = 25


def test_nothing_reported_is_lost_and_all_of_it_can_be_read(tmp_path: Path) -> None:
    events: Counter[str] = Counter()
    for seed in range(SCHEDULES):
        folder = tmp_path / str(seed)
        world = run_prune_schedule(seed, folder)
        events += world.events
        with world.machine(world.storage) as (repository, _):
            report = check_repository(repository, CheckRequest(read_data_percent=100), Silent())
            shown = {info.id for info in repository.snapshots()}
            assert world.saved.keys() - world.forgotten <= shown
            assert not [finding for finding in report.findings if "root" not in finding.name], report.findings
    for event in ("reported", "forgotten", "pruned", "roots deleted", "packs deleted", "index deleted"):
        assert events[event] >= SCHEDULES / 4, f"too few schedules in which: {event} ({events})"
