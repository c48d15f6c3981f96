"""Connections that move between workers, against a model: each client gets all of its rooms, once, in order.

Whoever publishes and moves, whatever is slow, cut off or dies, in whatever order things happen. The same by hand, and
what it takes many examples to find, is in `test_move_stories`.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.move_promises import PromisingWorld
from support.move_world import ANN, CLIENTS, NEW, OLD, OTHER, ROOMS

a_room = st.sampled_from(ROOMS)
an_address = st.sampled_from((*ROOMS, ANN))
some_rooms = st.lists(a_room, min_size=1, max_size=2, unique=True)
some = st.integers(1, 5)
a_worker = st.sampled_from((OLD, NEW, OTHER))
one_of_the_others = st.sampled_from((NEW, OTHER))
a_client = st.integers(0, CLIENTS - 1)
some_clients = st.sets(a_client, min_size=1)
yes_or_no = st.booleans()


class MoveModel(PromisingWorld, RuleBasedStateMachine):
    """A `PromisingWorld` in which everything happens in any order."""

    begin = initialize(
        rooms=st.lists(st.sets(an_address), min_size=CLIENTS, max_size=CLIENTS),
        is_begun=yes_or_no,
        is_record_small=st.sampled_from((False, False, True)),
    )(PromisingWorld.begin)

    join = rule(number=a_client, address=an_address)(PromisingWorld.join)
    leave = rule(number=a_client, address=an_address)(PromisingWorld.leave)
    publish = rule(number=a_client, rooms=some_rooms, excluded=yes_or_no, times=st.integers(1, 3))(
        PromisingWorld.publish
    )
    publish_local = rule(number=a_client, room=a_room)(PromisingWorld.publish_local)
    send_to_user = rule(number=a_client)(PromisingWorld.send_to_user)
    send_to_session = rule(number=a_client, other=a_client)(PromisingWorld.send_to_session)
    disconnect_user = rule(number=a_client)(PromisingWorld.disconnect_user)
    disconnect_session = rule(number=a_client, other=a_client)(PromisingWorld.disconnect_session)
    publish_when_given_something = rule(number=a_client, rooms=some_rooms)(PromisingWorld.publish_when_given_something)
    change_when_given_something = rule(number=a_client, address=an_address, is_joined=yes_or_no)(
        PromisingWorld.change_when_given_something
    )

    turn = rule(number=a_worker)(PromisingWorld.turn)
    ask = rule(number=a_worker)(PromisingWorld.ask)
    read_subscriptions = rule(number=a_worker, count=some)(PromisingWorld.read_subscriptions)
    read_publishes = rule(number=a_worker, count=some)(PromisingWorld.read_publishes)
    receive = rule(number=a_worker, count=some)(PromisingWorld.receive)
    cut = rule(number=a_worker)(PromisingWorld.cut)
    mend = rule(number=a_worker)(PromisingWorld.mend)
    refuse = rule(number=a_worker)(PromisingWorld.refuse)
    tell_heads = rule(number=a_worker)(PromisingWorld.tell_heads)
    be_slow = rule(number=a_worker)(PromisingWorld.be_slow)

    begin_move = rule(is_same_slot=yes_or_no, is_ready=yes_or_no, is_wide=yes_or_no)(PromisingWorld.begin_move)
    settle = rule(number=a_worker)(PromisingWorld.settle)
    key_comes = rule()(PromisingWorld.key_comes)
    move = rule(numbers=some_clients)(PromisingWorld.move)
    move_and_adopt = rule(numbers=some_clients, count=some)(PromisingWorld.move_and_adopt)
    publish_to_the_store = rule(number=a_client, rooms=some_rooms)(PromisingWorld.publish_to_the_store)
    read_new = rule(count=some, refuses=st.sampled_from((False, False, True)), number=one_of_the_others)(
        PromisingWorld.read_new
    )
    read_old = rule(count=some, number=one_of_the_others)(PromisingWorld.read_old)
    finish_move = rule()(PromisingWorld.finish_move)
    die = rule(number=a_worker)(PromisingWorld.die)

    keeps_promises = invariant()(PromisingWorld.keeps_promises)

    def teardown(self) -> None:
        self.ends_well()


TestMoveModel = MoveModel.TestCase
TestMoveModel.settings = settings(max_examples=120, stateful_step_count=50, deadline=None, derandomize=True)


@pytest.mark.long
class TestMoveModelForLong(MoveModel.TestCase):
    """What needs three things to go wrong at once has shown itself within some thousand examples.

    Always the same ones: to search on, take out `derandomize`, and the time limit.
    """

    settings = settings(max_examples=3000, stateful_step_count=50, deadline=None, derandomize=True)
