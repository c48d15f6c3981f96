"""The key table against a plain model of it, and its bound."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stickygw.routing.table import KeyTable
from stickygw.types import Slot

LINGER = 60.0
ONE, TWO = Slot(1), Slot(2)


def test_key_stays_while_it_has_connections_and_lingers_after() -> None:
    table = KeyTable(linger=LINGER)
    assert table.get(b"k", 0) is None

    assert table.connected(b"k", ONE, 0)
    assert table.connected(b"k", ONE, 0)
    table.ended(b"k", 1)
    assert table.get(b"k", 10_000) == ONE

    table.ended(b"k", 10_000)
    assert table.get(b"k", 10_000 + LINGER - 0.1) == ONE
    assert table.get(b"k", 10_000 + LINGER) is None


def test_key_that_comes_back_while_it_lingers_is_live_again() -> None:
    table = KeyTable(linger=LINGER)
    table.connected(b"k", ONE, 0)
    table.ended(b"k", 0)
    table.connected(b"k", ONE, LINGER - 1)

    assert table.get(b"k", 10_000) == ONE


def test_detour_does_not_move_a_key_with_live_connections() -> None:
    table = KeyTable(linger=LINGER)
    table.connected(b"k", ONE, 0)
    table.connected(b"k", TWO, 0, is_detour=True)

    assert table.get(b"k", 0) == ONE
    table.ended(b"k", 0)
    assert table.get(b"k", 10_000) == ONE, "the detour is a live connection of the key too"


def test_detour_takes_a_key_along_that_has_no_live_connection() -> None:
    table = KeyTable(linger=LINGER)
    table.connected(b"k", ONE, 0)
    table.ended(b"k", 0)
    table.connected(b"k", TWO, 0, is_detour=True)

    assert table.get(b"k", 0) == TWO


def test_full_table_forgets_the_key_that_lingers_longest() -> None:
    table = KeyTable(2, linger=LINGER)
    for now, key in enumerate((b"a", b"b")):
        table.connected(key, ONE, now)
    table.ended(b"b", 2)
    table.ended(b"a", 3)

    assert table.connected(b"c", ONE, 4)
    assert table.get(b"b", 4) is None
    assert table.get(b"a", 4) == ONE


def test_full_table_of_live_keys_does_not_keep_a_new_one() -> None:
    table = KeyTable(1, linger=LINGER)
    table.connected(b"a", ONE, 0)

    assert not table.connected(b"b", TWO, 0)
    assert table.get(b"b", 0) is None
    assert table.get(b"a", 0) == ONE


def test_end_of_an_unknown_key_is_nothing() -> None:
    table = KeyTable(linger=LINGER)
    table.ended(b"k", 0)

    assert len(table) == 0


def test_expired_keys_free_their_memory() -> None:
    table = KeyTable(linger=LINGER)
    for number in range(1000):
        key = b"%d" % number
        table.connected(key, ONE, 0)
        table.ended(key, 0)
    assert len(table) == 1000

    table.connected(b"k", ONE, LINGER)
    assert len(table) == 1


class TableModel(RuleBasedStateMachine):
    """Any sequence of calls gives what the sentences of the class's docstring say, kept as plain lists."""

    LIMIT = 4
    keys = st.sampled_from([b"a", b"b", b"c", b"d", b"e", b"f"])
    slots = st.integers(0, 3).map(Slot)

    @initialize()
    def begin(self) -> None:
        self.table = KeyTable(self.LIMIT, linger=LINGER)
        self.now = 0.0
        self.live: dict[bytes, list[Slot]] = {}
        """The slot in the first place, and one entry for each connection."""
        self.lingering: list[tuple[bytes, Slot, float]] = []

    def _expire(self) -> None:
        self.lingering = [row for row in self.lingering if self.now < row[2]]

    @rule(seconds=st.floats(0, LINGER * 1.5))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self._expire()

    @rule(key=keys, slot=slots, is_detour=st.booleans())
    def connect(self, key: bytes, slot: Slot, is_detour: bool) -> None:
        is_kept = self.table.connected(key, slot, self.now, is_detour=is_detour)
        if key in self.live:
            connections = self.live[key]
            self.live[key] = [connections[0] if is_detour else slot, *connections]
            assert is_kept
            return
        others = [row for row in self.lingering if row[0] != key]
        if len(self.live) + len(others) >= self.LIMIT:
            if not others:
                assert not is_kept
                return
            others = others[1:]
        self.lingering = others
        self.live[key] = [slot]
        assert is_kept

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.live)))
        self.table.ended(key, self.now)
        slot, *_ = self.live[key]
        self.live[key] = self.live[key][:-1]
        if not self.live[key]:
            del self.live[key]
            self.lingering.append((key, slot, self.now + LINGER))

    @invariant()
    def keys_are_where_the_model_says(self) -> None:
        lingering = {key: slot for key, slot, _ in self.lingering}
        for key in (b"a", b"b", b"c", b"d", b"e", b"f"):
            expected = self.live[key][0] if key in self.live else lingering.get(key)
            assert self.table.get(key, self.now) == expected

    @invariant()
    def table_is_within_its_bound(self) -> None:
        assert len(self.table) <= self.LIMIT


TestTableModel = TableModel.TestCase
TestTableModel.settings = settings(deadline=None, max_examples=100)
