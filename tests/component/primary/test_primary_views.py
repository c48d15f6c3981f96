"""What the router sees of a slot: lag that is told and lag that shows by silence, and the share of a fresh worker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from primary_rig import Rig
from support.waiting import wait_until

from stickygw.primary.lane import LEAST_SHARE, Lane
from stickygw.primary.taker import HEARTBEAT_SECONDS, Taker
from stickygw.routing.load import Load
from stickygw.routing.router import SlotView
from stickygw.types import Slot, WorkerId

MakeRig = Callable[..., Awaitable[Rig]]

READY_AT = 100.0


def lane(*, load: Load | None = None) -> Lane:
    """A slot whose worker is ready, and was heard of, at `READY_AT`."""
    made = Lane(Slot(3), max_connections=10)
    made.taker = Taker(WorkerId(1), Slot(3), None, now=READY_AT)  # type: ignore[arg-type]  # nothing is sent
    made.taker.load = load or Load()
    return made


def seen(what: Lane, after: float, *, lag_limit: float = 0.25, slow_start: float = 0.0) -> SlotView:
    """Its view `after` seconds."""
    what.look(READY_AT + after, lag_limit=lag_limit, slow_start=slow_start)
    return what.view


@pytest.mark.parametrize(("lag", "is_lagging"), [(0.0, False), (0.25, False), (0.26, True)])
def test_a_slot_lags_whose_worker_says_so(lag: float, is_lagging: bool):
    view = seen(lane(load=Load(lag=lag, queue=7, cpu=0.5, rss=1 << 20)), 0.5)
    assert view.is_lagging == is_lagging
    assert view.load == Load(lag, 7, 0.5, 1 << 20)
    assert view.is_open  # its own clients still reach it


@pytest.mark.parametrize(("late", "is_lagging"), [(0.2, False), (0.3, True)])
def test_a_slot_lags_whose_heartbeat_is_late(late: float, is_lagging: bool):
    assert seen(lane(), HEARTBEAT_SECONDS + late).is_lagging == is_lagging


@pytest.mark.parametrize(
    ("age", "slow_start", "share"),
    [(0.0, 10.0, LEAST_SHARE), (0.1, 10.0, LEAST_SHARE), (5.0, 10.0, 0.5), (10.0, 10.0, 1.0), (0.0, 0.0, 1.0)],
)
def test_a_fresh_workers_share_grows_over_the_slow_start(age: float, slow_start: float, share: float):
    assert seen(lane(), age, slow_start=slow_start).share == pytest.approx(share)


def test_a_slot_without_a_worker_is_neither_ready_nor_lagging():
    view = seen(Lane(Slot(3), max_connections=10), 900.0)
    assert (view.is_ready, view.is_lagging, view.connections) == (False, False, 0)


async def test_a_heartbeat_shows_at_once(make_rig: MakeRig):
    rig = await make_rig(slots=1, lag_limit=0.25)
    worker = rig.slot_up(0)
    assert not rig.view(0).is_lagging
    rig.hand_overs.heard(worker.id, Load(lag=0.5))
    assert rig.view(0).is_lagging
    rig.hand_overs.heard(worker.id, Load(lag=0.0))
    assert not rig.view(0).is_lagging


async def test_what_a_retired_worker_says_of_itself_is_not_its_slots_load(make_rig: MakeRig):
    rig = await make_rig(slots=1, lag_limit=0.25)
    old = rig.slot_up(0)
    rig.slot_up(0)
    rig.hand_overs.heard(old.id, Load(lag=9.0))
    assert (rig.view(0).is_lagging, rig.view(0).load) == (False, Load())


async def test_what_a_worker_that_is_gone_has_said_counts_for_nothing(make_rig: MakeRig):
    rig = await make_rig(slots=1)
    worker = rig.slot_up(0)
    worker.die()
    await wait_until(lambda: not rig.view(0).is_ready)
    rig.hand_overs.heard(worker.id, Load(lag=9.0))
    assert rig.view(0).load == Load()
    assert rig.hand_overs.connections_of(worker.id) == 0


async def test_time_alone_shows_in_the_views(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("stickygw.primary.slots.VIEW_SECONDS", 0.01)
    monkeypatch.setattr("stickygw.primary.taker.HEARTBEAT_SECONDS", 0.05)
    rig = await make_rig(slots=1, slow_start=0.2, lag_limit=0.05)
    rig.slot_up(0)
    assert (rig.view(0).share, rig.view(0).is_lagging) == (LEAST_SHARE, False)
    await wait_until(lambda: rig.view(0).share == 1)
    assert rig.view(0).is_lagging  # it said nothing


async def test_a_successor_starts_slowly_in_a_slot_that_is_old(make_rig: MakeRig):
    rig = await make_rig(slots=1, slow_start=3600.0)
    old = rig.slot_up(0)
    rig.hand_overs._slots[Slot(0)].taker.ready_at -= 3600.0  # long ago
    rig.hand_overs.heard(old.id, Load())
    assert rig.view(0).share == 1
    rig.slot_up(0)
    assert rig.view(0).share == LEAST_SHARE
