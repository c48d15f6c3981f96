"""What was counted since an earlier look."""

from stickygw.observability.counters import Counters


def test_what_grew_since_is_told_with_how_much() -> None:
    counters, told = Counters(), Counters()
    counters.add("routes", "cookie", 3)
    counters.add("wakes")
    assert counters.since(told, at_most=10) == [("routes", "cookie", 3), ("wakes", "", 1)]
    told.add("routes", "cookie", 2)
    told.add("wakes")
    assert counters.since(told, at_most=10) == [("routes", "cookie", 1)]
    assert told.total("routes") == 2


def test_no_more_is_told_than_asked_for_and_the_rest_comes_next() -> None:
    counters, told = Counters(), Counters()
    for label in "abc":
        counters.add("refusals", label)
    for name, label, count in counters.since(told, at_most=2):
        told.add(name, label, count)
    assert counters.since(told, at_most=2) == [("refusals", "c", 1)]
