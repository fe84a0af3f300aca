"""What was at a path over all snapshots: its distinct contents, and the names that were ever below it."""

from backthen.repository.history.past import (
    Past,
    Sighting,
    UnionChild,
    child_past,
    count_contents,
    find_sighting,
    past_at,
    timeline,
    top_past,
    union_children,
)

__all__ = [
    "Past",
    "Sighting",
    "UnionChild",
    "child_past",
    "count_contents",
    "find_sighting",
    "past_at",
    "timeline",
    "top_past",
    "union_children",
]
