"""Values in memory up to a number of bytes."""

from __future__ import annotations

from private_pypi.storage.bounded import BoundedBytes


def test_what_was_not_used_for_the_longest_time_is_dropped() -> None:
    values: BoundedBytes[str] = BoundedBytes(10)
    values.keep("a", "first", 4)
    values.keep("b", "second", 4)
    assert values.find("a") == "first"
    values.keep("c", "third", 4)
    assert [values.find(key) for key in "abc"] == ["first", None, "third"]
    assert (values.size, values.hits, values.added) == (8, 3, 3)


def test_a_value_takes_the_place_of_one_with_the_same_key() -> None:
    values: BoundedBytes[str] = BoundedBytes(10)
    values.keep("a", "old", 3)
    values.keep("a", "new", 5)
    assert (values.find("a"), values.size, values.added) == ("new", 5, 1)


def test_one_value_is_kept_even_if_it_is_too_large() -> None:
    values: BoundedBytes[str] = BoundedBytes(10)
    values.keep("a", "small", 4)
    values.keep("b", "large", 40)
    assert (values.find("a"), values.find("b"), values.size) == (None, "large", 40)
    values.keep("c", "small", 4)
    assert (values.find("b"), values.size) == (None, 4)
