"""Keys of connections from before the table was made."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stickygw.routing.table import KeyTable
from stickygw.types import Slot

LINGER = 60.0
LATER = 100_000.0

held = st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.builds(Slot, st.integers(0, 3))), max_size=12)


@given(held=held, data=st.data())
def test_what_was_adopted_and_has_ended_leaves_nothing(held: list[tuple[bytes, Slot]], data: st.DataObject) -> None:
    table = KeyTable(linger=LINGER)
    assert all(table.adopt(key, slot, 0.0) for key, slot in held)
    for key, slot in data.draw(st.permutations(held)):
        table.ended(key, slot, 1.0)
    for key, _ in held:
        assert table.get_live(key) is None
        assert table.get(key, 1.0 + LINGER) is None
    table.connected(b"another", Slot(0), LATER)
    assert len(table) == 1


@given(held=held, data=st.data())
def test_a_key_is_always_where_a_connection_of_it_is(held: list[tuple[bytes, Slot]], data: st.DataObject) -> None:
    table = KeyTable(linger=LINGER)
    left: list[tuple[bytes, Slot]] = []
    ends = data.draw(st.permutations(held))
    for key, slot in held:
        table.adopt(key, slot, 0.0)
        left.append((key, slot))
        assert (key, table.get(key, LATER)) in left
    for key, slot in ends:
        table.ended(key, slot, 1.0)
        left.remove((key, slot))
        if any(other == key for other, _ in left):
            assert (key, table.get(key, LATER)) in left


def test_an_adopted_connection_keeps_its_key_where_the_first_one_of_it_is() -> None:
    table = KeyTable(linger=LINGER)
    table.adopt(b"k", Slot(1), 0.0)
    table.adopt(b"k", Slot(2), 0.0)
    assert table.get(b"k", LATER) == 1
    table.ended(b"k", Slot(1), 0.0)
    assert table.get(b"k", LATER) == 2


def test_a_learnt_key_is_where_it_was_learnt_wherever_its_adopted_connections_are() -> None:
    table = KeyTable(linger=LINGER)
    table.learn(b"k", Slot(1), 0.0)
    table.adopt(b"k", Slot(2), 0.0)
    assert table.get(b"k", LATER) == 1
    table.ended(b"k", Slot(2), 0.0)
    assert table.get(b"k", 1.0) == 1


def test_a_full_table_counts_no_adopted_connection_and_is_owed_no_end() -> None:
    table = KeyTable(1, linger=LINGER)
    assert table.adopt(b"a", Slot(0), 0.0)
    assert not table.adopt(b"b", Slot(1), 0.0)
    assert table.get(b"b", 0.0) is None
    assert len(table) == 1
