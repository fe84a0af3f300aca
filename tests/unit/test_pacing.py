"""How long to wait before bytes may pass."""

from __future__ import annotations

from backthen.repository.storage import Pace

SECOND = 1_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


def test_bytes_wait_for_those_before_them() -> None:
    clock = Clock()
    pace = Pace(1000, clock)
    assert [0.5, 1.5, 1.6] == [pace.delay_s(500), pace.delay_s(1000), pace.delay_s(100)]
    clock.now_ns = SECOND
    assert pace.delay_s(400) == 1.0


def test_an_idle_line_does_not_run_faster_afterwards() -> None:
    clock = Clock()
    pace = Pace(1000, clock)
    clock.now_ns = 60 * SECOND
    assert [0.0, 1.0] == [pace.delay_s(100), pace.delay_s(1000)]


def test_who_waits_as_told_keeps_to_the_rate() -> None:
    clock = Clock()
    pace = Pace(2_000_000, clock)
    for _ in range(1000):
        clock.now_ns += round(pace.delay_s(65_536) * SECOND)
    assert 32.768 == clock.now_ns / SECOND


def test_no_limit_lets_nobody_wait() -> None:
    assert Pace(None).delay_s(1 << 40) == 0.0
