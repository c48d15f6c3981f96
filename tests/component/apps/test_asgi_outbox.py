"""`Outbox`: what waits for a WebSocket of an ASGI application, in order, but for what was dropped."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stickygw.apps.asgi.outbox import Delivery, Outbox, cost_of


class ModelOutbox:
    """The same with one list, through which it looks each time."""

    def __init__(self) -> None:
        self.waiting: list[tuple[str, bool]] = []  # with whether it is droppable
        self.sending: str | None = None

    def drop_oldest(self, cost: int) -> int:
        dropped = 0
        while cost > 0 and (number := next((n for n, one in enumerate(self.waiting) if one[1]), None)) is not None:
            cost -= cost_of(self.waiting.pop(number)[0])
            dropped += 1
        return dropped

    @property
    def cost(self) -> int:
        return sum(cost_of(data) for data, _ in self.waiting) + (cost_of(self.sending) if self.sending else 0)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.booleans(), st.integers(1, 300)),
        st.tuples(st.just("drop"), st.integers(-10, 2000)),
        st.just(("begin",)),
        st.just(("clear",)),
    ),
    max_size=40,
)


@given(STEPS)
def test_it_is_one_list_of_which_the_oldest_droppable_ones_go_first(steps: list[tuple[Any, ...]]) -> None:
    outbox, model = Outbox(), ModelOutbox()
    for number, step in enumerate(steps):
        match step:
            case ("add", is_droppable, size):
                data = f"{number}".ljust(size)
                outbox.add(data, None if is_droppable else 1.0)
                model.waiting.append((data, is_droppable))
            case ("drop", cost):
                assert outbox.drop_oldest(cost) == model.drop_oldest(cost)
            case ("begin",):
                outbox.end()
                model.sending = model.waiting.pop(0)[0] if model.waiting else None
                begun = outbox.begin()
                assert (begun and begun.data) == model.sending
            case _:
                outbox.clear()
                model.waiting, model.sending = [], None
        assert outbox.cost == model.cost
        assert len(outbox) == len(model.waiting) + (model.sending is not None)


def test_what_is_cleared_while_it_is_sent_costs_nothing_when_it_is_sent() -> None:
    outbox = Outbox()
    outbox.add("one", None)
    assert outbox.begin() == Delivery(1, "one", None)
    outbox.clear()
    outbox.end()
    assert (outbox.cost, len(outbox)) == (0, 0)
