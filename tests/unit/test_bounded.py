"""Memory that is bounded."""

from __future__ import annotations

from backthen.repository.bounded import LRUCache


def test_what_was_used_least_recently_goes_first() -> None:
    cache: LRUCache[str, int] = LRUCache(3)
    for number, key in enumerate("abc"):
        cache[key] = number
    assert cache.get("a") == 0
    cache["b"] = 7
    cache["d"] = 3

    assert {"a": 0, "b": 7, "c": None, "d": 3} == {key: cache.get(key) for key in "abcd"}
    assert 3 == cache.cost_total


def test_costs_are_bounded_and_one_value_is_kept_whatever_it_costs() -> None:
    cache: LRUCache[str, bytes] = LRUCache(10, len)
    for key, length in (("a", 4), ("b", 4), ("c", 6), ("b", 2)):
        cache[key] = bytes(length)
    assert (False, True, True, 8) == ("a" in cache, "b" in cache, "c" in cache, cache.cost_total)

    cache["d"] = bytes(50)
    assert (True, False, 50) == ("d" in cache, "c" in cache, cache.cost_total)
    cache.clear()
    assert (None, 0) == (cache.get("d"), cache.cost_total)
