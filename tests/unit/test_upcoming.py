"""What a program that walks a tree opens next."""

from __future__ import annotations

from backthen.fsmount.adapters.upcoming import AHEAD, DEPTH_MAX, FOLDERS_MAX, Upcoming


def _walked(count: int, *, backwards: bool) -> Upcoming:
    """A walk through folders 0 to `count`, of which the first was opened and listed."""
    upcoming = Upcoming()
    upcoming.begin().add(range(count))
    upcoming.opened(count - 1 if backwards else 0)
    upcoming.begin()
    return upcoming


def test_both_ends_are_likely_until_the_direction_is_known() -> None:
    upcoming = Upcoming()
    upcoming.begin().add(range(5, 9))

    assert list(upcoming.next()) == [5, 8, 6, 7, 7, 6, 8, 5]


def test_walk_is_followed_in_its_direction() -> None:
    assert list(_walked(20, backwards=False).next()) == list(range(1, 1 + AHEAD))
    assert list(_walked(20, backwards=True).next()) == [18, 17, 16, 15]


def test_folders_of_a_folder_come_before_its_siblings_in_the_same_direction() -> None:
    upcoming = _walked(3, backwards=True)
    upcoming.begin().add([10, 11])

    assert list(upcoming.next()) == [11, 10, 1, 0]


def test_only_folder_of_a_listing_says_nothing_of_the_direction() -> None:
    upcoming = _walked(9, backwards=True)
    upcoming.begin().add([10])
    upcoming.opened(10)
    upcoming.begin()

    assert list(upcoming.next()) == [7, 6, 5, 4]


def test_what_was_left_behind_is_forgotten() -> None:
    upcoming = _walked(3, backwards=False)
    upcoming.begin().add([10, 11])
    upcoming.opened(1)

    assert list(upcoming.next()) == [2]

    upcoming.opened(77)
    assert list(upcoming.next()) == []


def test_memory_is_bounded() -> None:
    upcoming = Upcoming()
    for depth in range(2 * DEPTH_MAX):
        siblings = upcoming.begin()
        siblings.add(range(depth, depth + FOLDERS_MAX))
        siblings.add([-1])
    for number in range(2 * DEPTH_MAX - 1, 2 * DEPTH_MAX - 1 + FOLDERS_MAX):
        upcoming.opened(number)

    upcoming.opened(-1)
    assert list(upcoming.next()) == []
