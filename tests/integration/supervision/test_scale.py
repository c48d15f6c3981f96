"""More slots, fewer, and one that is drained, while clients are at it."""

from __future__ import annotations

import re
import signal
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from support.client import Client, gather_bounded
from support.gateway import Gateway
from support.steering import command, status, wait_for_status
from support.visitors import Visitor, closes_of, crowd
from support.waiting import wait_until

from stickygw.errors import ExitCode

TALLY = f"{Path(__file__).parents[1] / 'apps' / 'tally.py'}:app"
KEYED = ("--key", "query:room", "--key", "cookie")
MEMBERS = 3
"""Connections of each group."""


def rooms(names: Iterable[str]) -> list[str]:
    """The paths of some groups' connections, each group's dispersed among the others'."""
    return [f"/?room={name}" for name in names] * MEMBERS


def slots_of(visitors: Iterable[Visitor]) -> dict[str, set[int]]:
    """The slots of each group."""
    found = defaultdict(set)
    for visitor in visitors:
        found[visitor.url].add(visitor.slot)
    return found


async def settled_in(slots: set[int], visitors: Sequence[Visitor]) -> None:
    """Wait until everybody has noticed who serves it now; nobody was closed."""
    await wait_until(lambda: all(visitor.slot in slots for visitor in visitors) or closes_of(visitors), seconds=30)
    assert not closes_of(visitors)


async def assert_tabs_meet(visitors: Sequence[Visitor]) -> None:
    """A further connection of each reaches the same slot, and the same session."""
    tabs = await gather_bounded(20, *(visitor.in_another_tab() for visitor in visitors))
    for visitor, tab in zip(visitors, tabs, strict=True):
        assert (tab["slot"], tab["session"]) == (visitor.slot, visitor.session)


async def slot_of_newcomer(url: str) -> int:
    async with Client(url) as client:
        return int((await client.who())["slot"])


async def carried_out(gateway: Gateway, *arguments: str) -> str:
    """Run a command that must go well; what it prints."""
    done = await command(gateway, *arguments)
    assert done.returncode == ExitCode.OK, done
    return done.stdout


@pytest.mark.alone
@pytest.mark.long
@pytest.mark.parametrize(("visitors", "groups"), [(30, 6), (200, 20)])
async def test_scaling_up_moves_nobody_and_down_only_clients_of_the_slots_that_go(visitors: int, groups: int) -> None:
    """With so many visitors, and groups, before the gateway grows, and as many that come when it has grown."""
    with Gateway(TALLY, *KEYED, "--set", "slow_start=0", workers=2) as gateway:
        async with crowd(gateway) as people:
            cookies = await people.add(*["/"] * visitors)
            keyed = await people.add(*rooms(f"old-{group}" for group in range(groups)))
            assert await carried_out(gateway, "scale", "4") == "4 slots, 2 before\n"

            # Nobody noticed, and each key and cookie leads where it led.
            assert not closes_of(people.visitors)
            await assert_tabs_meet(cookies)
            urls = sorted({visitor.url for visitor in keyed})
            newcomers = await gather_bounded(20, *(slot_of_newcomer(url) for url in urls))
            assert slots_of(keyed) == {url: {slot} for url, slot in zip(urls, newcomers, strict=True)}

            # The new slots get new clients.
            new_cookies = await people.add(*["/"] * visitors)
            new_keyed = await people.add(*rooms(f"new-{group}" for group in range(groups)))
            assert {visitor.slot for visitor in new_cookies} >= {2, 3}
            assert {visitor.slot for visitor in new_keyed} & {2, 3}
            assert all(len(slots) == 1 for slots in slots_of(new_keyed).values())
            assert {visitor.stays[-1]["workers"] for visitor in new_cookies} == {4}

            moving = [visitor for visitor in people.visitors if visitor.slot >= 2]
            done = await carried_out(gateway, "scale", "2")
            assert re.fullmatch(r"2 slots, 4 before; \d+ connections moved, 0 closed\n", done)
            await settled_in({0, 1}, people.visitors)
            for visitor in moving:
                assert visitor.moves
                assert visitor.session  # and with it what it has said: the visitor has looked at that
            assert all(len(slots) == 1 for slots in slots_of(keyed + new_keyed).values())
            await assert_tabs_meet([*cookies, *new_cookies])
            await assert_tabs_meet(keyed + new_keyed)


async def test_sigttin_and_sigttou_scale_by_one() -> None:
    with Gateway(TALLY, workers=1) as gateway:
        gateway.send_signal(signal.SIGTTIN)
        await wait_for_status(gateway, state="running", slots=2)
        assert [slot["state"] for slot in (await status(gateway))["slots_detail"]] == ["ready", "ready"]
        gateway.send_signal(signal.SIGTTOU)
        await wait_for_status(gateway, state="running", slots=1)


@pytest.mark.long
async def test_clients_of_a_drained_slot_are_served_elsewhere_and_return_to_it() -> None:
    with Gateway(TALLY, workers=3) as gateway:
        async with crowd(gateway) as people:
            await people.add(*["/"] * 30)
            moving = [visitor for visitor in people.visitors if visitor.slot == 1]
            said = f"slot 1 is drained; {len(moving)} connections moved, 0 closed\n"
            assert await carried_out(gateway, "drain", "1") == said
            await settled_in({0, 2}, people.visitors)
            assert all(visitor.moves == 1 and visitor.session for visitor in moving)
            await assert_tabs_meet(moving)
            assert (await status(gateway))["slots_detail"][1]["state"] == "drained"
            assert {await slot_of_newcomer(gateway.ws_url) for _ in range(10)} <= {0, 2}

            assert await carried_out(gateway, "restart", "1") == "slot 1 has a fresh worker\n"
            for visitor in moving:
                tab = await visitor.in_another_tab()
                assert (tab["slot"], tab["session"]) == (1, visitor.session)
            # None was given another cookie: the way back was in it all the time.
            assert {visitor.client.cookies_set for visitor in people.visitors} == {1}
