"""The key table against a plain model of it, and its bound."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stickygw.routing.table import LEARNT_SECONDS, KeyTable
from stickygw.types import Slot

LINGER = 60.0
ONE, TWO, THREE = Slot(1), Slot(2), Slot(3)


def test_key_stays_while_it_has_connections_and_lingers_after() -> None:
    table = KeyTable(linger=LINGER)
    assert table.get(b"k", 0) is None

    assert table.connected(b"k", ONE, 0)
    assert table.connected(b"k", ONE, 0)
    table.given_up(b"k", 1)
    assert table.get(b"k", 10_000) == ONE

    table.given_up(b"k", 10_000)
    assert table.get(b"k", 10_000 + LINGER - 0.1) == ONE
    assert table.get(b"k", 10_000 + LINGER) is None


def test_key_that_comes_back_while_it_lingers_is_live_again() -> None:
    table = KeyTable(linger=LINGER)
    table.connected(b"k", ONE, 0)
    table.given_up(b"k", 0)
    table.connected(b"k", ONE, LINGER - 1)

    assert table.get(b"k", 10_000) == ONE


def test_detour_does_not_move_a_key_that_a_worker_has_and_keeps_it_live() -> None:
    table = KeyTable(linger=LINGER)
    table.connected(b"k", ONE, 0)
    table.taken(b"k", ONE)
    table.connected(b"k", TWO, 0, is_detour=True)
    table.taken(b"k", TWO)
    assert table.get(b"k", 0) == ONE

    table.ended(b"k", TWO, 0)
    assert table.get(b"k", 10_000) == ONE


def test_key_follows_to_the_detour_when_its_own_slot_has_no_more_of_it() -> None:
    table = KeyTable(linger=LINGER)
    for slot, is_detour in ((ONE, False), (TWO, True), (TWO, True), (THREE, True)):
        table.connected(b"k", slot, 0, is_detour=is_detour)
        table.taken(b"k", slot)

    table.ended(b"k", ONE, 0)
    assert table.get(b"k", 10_000) == TWO, "where most of them are"


def test_those_who_only_wait_for_a_slot_do_not_keep_a_key_there() -> None:
    table = KeyTable(linger=LINGER)
    for _ in range(3):
        table.connected(b"k", ONE, 0)
    table.given_up(b"k", 0)
    table.connected(b"k", TWO, 0, is_detour=True)

    assert table.get_live(b"k") == TWO


def test_key_whose_slot_is_gone_stays_where_the_first_came_back_while_the_others_leave() -> None:
    table = KeyTable(linger=LINGER)
    for _ in range(3):
        table.connected(b"k", ONE, 0)
        table.taken(b"k", ONE)
    table.ended(b"k", ONE, 0)
    table.connected(b"k", TWO, 0)
    table.ended(b"k", ONE, 0)
    assert table.get_live(b"k") == TWO

    table.taken(b"k", TWO)
    table.ended(b"k", ONE, 0)
    table.ended(b"k", TWO, 0)
    assert table.get_live(b"k") is None


def test_detour_takes_a_key_along_that_has_no_live_connection() -> None:
    table = KeyTable(linger=LINGER)
    table.connected(b"k", ONE, 0)
    table.given_up(b"k", 0)
    table.connected(b"k", TWO, 0, is_detour=True)

    assert table.get(b"k", 0) == TWO


def test_full_table_forgets_the_key_that_lingers_longest() -> None:
    table = KeyTable(2, linger=LINGER)
    for now, key in enumerate((b"a", b"b")):
        table.connected(key, ONE, now)
    table.given_up(b"b", 2)
    table.given_up(b"a", 3)

    assert table.connected(b"c", ONE, 4)
    assert table.get(b"b", 4) is None
    assert table.get(b"a", 4) == ONE


def test_full_table_of_live_keys_does_not_keep_a_new_one() -> None:
    table = KeyTable(1, linger=LINGER)
    table.connected(b"a", ONE, 0)

    assert not table.connected(b"b", TWO, 0)
    assert table.get(b"b", 0) is None
    assert table.get(b"a", 0) == ONE


def test_learnt_key_is_known_for_its_time_after_its_last_use() -> None:
    table = KeyTable(linger=LINGER)
    assert table.learn(b"k", ONE, 0)
    assert table.get(b"k", LEARNT_SECONDS - 1) == ONE
    assert table.get(b"k", LEARNT_SECONDS) is None

    table.connected(b"k", ONE, LEARNT_SECONDS - 1)
    table.taken(b"k", ONE)
    assert table.get(b"k", 3 * LEARNT_SECONDS) == ONE, "in use"
    table.ended(b"k", ONE, 3 * LEARNT_SECONDS)
    assert table.get(b"k", 4 * LEARNT_SECONDS - 1) == ONE
    assert table.get(b"k", 4 * LEARNT_SECONDS) is None


def test_learnt_key_stays_where_it_was_minted_though_all_its_connections_are_on_a_detour() -> None:
    table = KeyTable(linger=LINGER)
    table.learn(b"k", ONE, 0)
    table.connected(b"k", TWO, 0, is_detour=True)
    table.taken(b"k", TWO)
    assert table.get(b"k", 0) == ONE

    table.ended(b"k", TWO, 0)
    assert table.get(b"k", LINGER + 1) == ONE


def test_learnt_key_whose_slot_is_gone_is_one_like_others() -> None:
    table = KeyTable(linger=LINGER)
    table.learn(b"k", ONE, 0)
    table.connected(b"k", TWO, 0)
    assert table.get(b"k", 0) == TWO

    table.given_up(b"k", 0)
    assert table.get(b"k", LINGER) is None


def test_key_in_use_that_is_minted_belongs_to_the_slot_that_minted_it_last() -> None:
    table = KeyTable(linger=LINGER)
    table.connected(b"k", ONE, 0)
    table.taken(b"k", ONE)
    table.learn(b"k", TWO, 0)
    assert table.get(b"k", 0) == TWO

    table.learn(b"k", THREE, 0)
    table.ended(b"k", ONE, 0)
    assert table.get(b"k", LINGER + 1) == THREE


def test_full_table_forgets_the_learnt_key_that_is_unused_longest_and_only_for_a_learnt_one() -> None:
    table = KeyTable(2, linger=LINGER)
    for now, key in enumerate((b"a", b"b")):
        table.learn(key, ONE, now)
    assert not table.connected(b"c", TWO, 2)

    assert table.learn(b"c", TWO, 2)
    assert [table.get(key, 3) for key in (b"a", b"b", b"c")] == [None, ONE, TWO]


def test_full_table_of_keys_in_use_learns_none() -> None:
    table = KeyTable(1, linger=LINGER)
    table.connected(b"a", ONE, 0)

    assert not table.learn(b"b", TWO, 0)
    assert table.get(b"b", 0) is None


def test_a_key_goes_with_the_first_of_its_connections_that_moves_and_ends_with_the_last() -> None:
    table = KeyTable(linger=LINGER)
    for _ in range(2):
        table.connected(b"k", ONE, 0)
        table.taken(b"k", ONE)
    table.moved(b"k", ONE, TWO, 0)
    assert table.get(b"k", 0) == TWO

    table.moved(b"k", ONE, TWO, 0)
    table.ended(b"k", TWO, 0)
    assert table.get(b"k", 10_000) == TWO
    table.ended(b"k", TWO, 10_000)
    assert table.get_live(b"k") is None
    assert table.get(b"k", 10_000 + LINGER) is None


def test_end_of_an_unknown_key_is_nothing() -> None:
    table = KeyTable(linger=LINGER)
    table.given_up(b"k", 0)
    table.ended(b"k", ONE, 0)
    table.taken(b"k", ONE)

    assert len(table) == 0


def test_expired_keys_free_their_memory() -> None:
    table = KeyTable(linger=LINGER)
    for number in range(1000):
        key = b"%d" % number
        table.connected(key, ONE, 0)
        table.given_up(key, 0)
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
        self.coming: Counter[bytes] = Counter()
        self.taken: dict[bytes, list[Slot]] = {}
        """One entry for each connection that a worker has, for each live key."""
        self.slot: dict[bytes, Slot] = {}
        self.lingering: list[tuple[bytes, Slot, float]] = []
        self.learnt: list[tuple[bytes, Slot, float]] = []
        """The same: keys without connections, slot, and when they are forgotten."""
        self.is_learnt: set[bytes] = set()
        """Live keys."""

    def _one_is_gone(self, key: bytes) -> None:
        left = self.taken[key]
        if left and self.slot[key] not in left and key not in self.is_learnt:
            now_in = self.table.get_live(key)
            assert now_in is not None
            assert left.count(now_in) == max(Counter(left).values())
            self.slot[key] = now_in
        if not self.coming[key] and not self.taken[key]:
            del self.taken[key]
            if key in self.is_learnt:
                self.is_learnt.remove(key)
                self.learnt.append((key, self.slot.pop(key), self.now + LEARNT_SECONDS))
            else:
                self.lingering.append((key, self.slot.pop(key), self.now + LINGER))

    @rule(seconds=st.floats(0, LINGER * 1.5) | st.floats(0, LEARNT_SECONDS * 1.5))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.lingering = [row for row in self.lingering if self.now < row[2]]
        self.learnt = [row for row in self.learnt if self.now < row[2]]

    @rule(key=keys, slot=slots)
    def learn(self, key: bytes, slot: Slot) -> None:
        is_kept = self.table.learn(key, slot, self.now)
        if key in self.slot:
            self.slot[key] = slot
            self.is_learnt.add(key)
        else:
            self.lingering = [row for row in self.lingering if row[0] != key]
            self.learnt = [row for row in self.learnt if row[0] != key]
            if len(self.slot) + len(self.lingering) + len(self.learnt) >= self.LIMIT:
                if not self.lingering and not self.learnt:
                    assert not is_kept
                    return
                (self.lingering or self.learnt).pop(0)
            self.learnt.append((key, slot, self.now + LEARNT_SECONDS))
        assert is_kept

    @rule(key=keys, slot=slots, is_detour=st.booleans())
    def connect(self, key: bytes, slot: Slot, is_detour: bool) -> None:
        is_kept = self.table.connected(key, slot, self.now, is_detour=is_detour)
        if minted := [row for row in self.learnt if row[0] == key]:
            self.learnt.remove(minted[0])
            self.slot[key] = minted[0][1]
            self.is_learnt.add(key)
            self.taken[key] = []
        elif key not in self.slot:
            others = [row for row in self.lingering if row[0] != key]
            if len(self.slot) + len(others) + len(self.learnt) >= self.LIMIT:
                if not others:
                    assert not is_kept
                    return
                others = others[1:]
            self.lingering = others
            self.taken[key] = []
        assert is_kept
        self.coming[key] += 1
        if is_detour and (key in self.is_learnt or self.slot.get(key) in self.taken[key]):
            return
        if not is_detour and self.slot.get(key) != slot:  # the slot that it had is gone
            self.taken[key] = [taken for taken in self.taken[key] if taken != self.slot.get(key)]
            self.is_learnt.discard(key)
        self.slot[key] = slot

    @precondition(lambda self: any(self.coming.values()))
    @rule(data=st.data(), slot=slots, is_taken=st.booleans())
    def arrive(self, data: st.DataObject, slot: Slot, is_taken: bool) -> None:
        key = data.draw(st.sampled_from(sorted(key for key, count in self.coming.items() if count)))
        self.coming[key] -= 1
        if is_taken:
            self.table.taken(key, slot)
            self.taken[key].append(slot)
            if self.slot[key] not in self.taken[key] and key not in self.is_learnt:
                self.slot[key] = slot
        else:
            self.table.given_up(key, self.now)
            self._one_is_gone(key)

    @precondition(lambda self: any(self.taken.values()))
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(key for key, slots in self.taken.items() if slots)))
        slot = data.draw(st.sampled_from(sorted(self.taken[key])))
        self.table.ended(key, slot, self.now)
        self.taken[key].remove(slot)
        self._one_is_gone(key)

    @precondition(lambda self: any(self.taken.values()))
    @rule(data=st.data(), new=slots)
    def move(self, data: st.DataObject, new: Slot) -> None:
        key = data.draw(st.sampled_from(sorted(key for key, slots in self.taken.items() if slots)))
        old = data.draw(st.sampled_from(sorted(self.taken[key])))
        self.table.moved(key, old, new, self.now)
        self.taken[key].remove(old)
        self.taken[key].append(new)
        if key not in self.is_learnt and (self.slot[key] == old or self.slot[key] not in self.taken[key]):
            self.slot[key] = new

    @rule(key=keys, old=slots, new=slots)
    def move_one_that_is_known_no_more(self, key: bytes, old: Slot, new: Slot) -> None:
        if old in self.taken.get(key, ()):
            return
        self.table.moved(key, old, new, self.now)
        if minted := [row for row in self.learnt if row[0] == key]:
            self.learnt.remove(minted[0])
            self.slot[key], self.taken[key] = minted[0][1], []
            self.is_learnt.add(key)
        elif key not in self.slot:
            others = [row for row in self.lingering if row[0] != key]
            if len(self.slot) + len(others) + len(self.learnt) >= self.LIMIT:
                if not others:
                    return
                others = others[1:]
            self.lingering = others
            self.slot[key], self.taken[key] = new, []
        self.taken[key].append(new)
        if key not in self.is_learnt and (self.slot[key] == old or self.slot[key] not in self.taken[key]):
            self.slot[key] = new

    @invariant()
    def keys_are_where_the_model_says(self) -> None:
        lingering = {key: slot for key, slot, _ in (*self.lingering, *self.learnt)}
        for key in (b"a", b"b", b"c", b"d", b"e", b"f"):
            assert self.table.get_live(key) == self.slot.get(key)
            assert self.table.get(key, self.now) == self.slot.get(key, lingering.get(key))

    @invariant()
    def keys_that_a_worker_has_are_where_a_worker_has_them(self) -> None:
        taken = {key: slots for key, slots in self.taken.items() if key not in self.is_learnt}
        assert all(self.slot[key] in slots for key, slots in taken.items() if slots and not self.coming[key])

    @invariant()
    def table_is_within_its_bound(self) -> None:
        assert len(self.table) <= self.LIMIT


TestTableModel = TableModel.TestCase
TestTableModel.settings = settings(deadline=None, max_examples=100)
