"""Keys of ``top`` give orders, alone or after a question."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickygw.cli.top_keys import Keys, Order


def pressed(keys: str, *, slots: int = 4) -> tuple[list[Order], Keys]:
    keyboard = Keys()
    orders = [order for key in keys if (order := keyboard.press(key, slots=slots)) is not None]
    return orders, keyboard


@pytest.mark.parametrize(
    ("keys", "orders"),
    [
        ("r", [Order("reload")]),
        ("+", [Order("scale", {"slots": 5})]),
        ("=", [Order("scale", {"slots": 5})]),
        ("-", [Order("scale", {"slots": 3})]),
        ("d2", [Order("drain", {"slot": 2})]),
        ("d\x1br", [Order("reload")]),
        ("dq", []),
        ("d\r", []),
        ("dr2", [Order("drain", {"slot": 2})]),
        ("2xRD", []),
    ],
)
def test_keys_give_orders(keys: str, orders: list[Order]) -> None:
    found, keyboard = pressed(keys)
    assert found == orders
    assert not keyboard.is_over
    assert keyboard.prompt is None


def test_among_more_than_ten_slots_the_number_ends_with_enter() -> None:
    assert pressed("d1", slots=11)[1].prompt == "drain slot: 1_  (Esc: none)"
    assert pressed("d1\r", slots=11)[0] == [Order("drain", {"slot": 1})]
    assert pressed("d12\x7f0\n", slots=11)[0] == [Order("drain", {"slot": 10})]
    assert pressed("d12345678\r", slots=1024)[0] == [Order("drain", {"slot": 1234})]


def test_the_last_slot_stays() -> None:
    assert pressed("-", slots=1)[0] == []


def test_q_leaves_unless_a_question_is_open() -> None:
    assert pressed("q")[1].is_over
    assert not pressed("dq")[1].is_over


@given(st.text(), st.integers(1, 1024))
def test_any_keys_give_orders_that_the_gateway_can_read(keys: str, slots: int) -> None:
    for order in pressed(keys, slots=slots)[0]:
        assert order.do in ("reload", "scale", "drain")
        assert all(isinstance(value, int) and value >= 0 for value in order.arguments.values())


def test_an_order_reads_as_the_command_would() -> None:
    assert [str(Order("reload")), str(Order("scale", {"slots": 5}))] == ["reload", "scale 5"]
