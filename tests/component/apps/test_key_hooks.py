"""What an application keeps for an affinity key leaves when its connections rest, and is there before any of them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from support.joined_workers import Joined, Matches, joined, told_of
from support.waiting import wait_until

from stickygw import App, Connection, Request, Session
from stickygw.apps.native import leaving_keys
from stickygw.apps.native.key_state import MAX_KEY_STATE_BYTES
from stickygw.testing.app_client import TestConnection


class Pair:
    """The two applications, and what they told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.old = Matches(self.told, "old").with_hooks()
        self.new = Matches(self.told, "new").with_hooks()

    def joined(self, **options: Any) -> Any:
        return joined(self.old.app, self.new.app, **options)


@pytest.fixture
async def pair() -> Pair:
    return Pair()


async def enter(stack: AsyncExitStack, workers: Joined, *matches: str) -> list[TestConnection]:
    return [await stack.enter_async_context(workers.old.connect(f"/match/{match}")) for match in matches]


async def say(conn: TestConnection) -> str:
    await conn.send("x")
    return str(await conn.receive())


# --- as it should go --------------------------------------------------------------------------------------------------


async def test_a_key_moves_with_its_connections_and_counts_on(pair: Pair) -> None:
    async with pair.joined() as workers, AsyncExitStack() as stack:
        first, second, other = await enter(stack, workers, "a", "a", "b")
        assert [await say(conn) for conn in (first, second, other)] == ["old 1", "old 2", "old 1"]
        workers.begin()
        assert (await workers.outcome()).moved == 3
        assert [await say(conn) for conn in (first, second, other)] == ["new 3", "new 4", "new 2"]
        hooks = [text for text in pair.told if " in " in text or " out " in text]
        assert sorted(hooks) == ["new: in a", "new: in b", "old: out a", "old: out b"]
        assert pair.old.kept == {}
        assert list(workers.old.runtime.keys) == []


async def test_a_key_waits_for_the_last_of_its_handlers_and_nobody_else_does(pair: Pair) -> None:
    async with pair.joined() as workers, AsyncExitStack() as stack:
        busy, idle, other = await enter(stack, workers, "a", "a", "b")
        pair.old.may_handle.clear()
        await busy.send("x")
        await wait_until(lambda: any(each.receiver._is_busy for each in workers.old.runtime.connections))
        workers.begin()
        await wait_until(told_of(pair.told, "new: in b"))
        assert await say(other) == "new 1"
        await idle.send("x")  # which is held until the key is there
        assert "old: out a" not in pair.told
        pair.old.may_handle.set()
        assert await busy.receive() == "old 1"
        assert await idle.receive() == "new 2"
        assert (await workers.outcome()).moved == 3


async def test_who_is_ending_has_ended_before_the_key_goes(pair: Pair) -> None:
    async with pair.joined(grace_seconds=60.0) as workers, AsyncExitStack() as stack:
        _, leaver, _ = await enter(stack, workers, "a", "a", "b")
        pair.old.may_leave.clear()
        leaver.connection.transport.abort()
        await wait_until(told_of(pair.told, "old: leaving a"))
        workers.begin()
        await wait_until(told_of(pair.told, "new: in b"))
        assert "old: out a" not in pair.told
        pair.old.may_leave.set()
        assert (await workers.outcome()).moved == 2
        assert pair.told.index("old: left a 1006") < pair.told.index("old: out a")


async def test_who_ends_while_it_rests_has_ended_before_the_key_goes(pair: Pair) -> None:
    async with pair.joined(grace_seconds=60.0) as workers, AsyncExitStack() as stack:
        busy, _ = await enter(stack, workers, "a", "a")
        pair.old.may_handle.clear()
        pair.old.may_leave.clear()
        await busy.send("x")
        await wait_until(lambda: any(each.receiver._is_busy for each in workers.old.runtime.connections))
        workers.begin()
        await wait_until(lambda: any(each.is_at_rest for each in workers.old.runtime.connections))
        (resting,) = [each for each in workers.old.runtime.connections if each.is_at_rest]
        resting._websocket.abort()
        await wait_until(told_of(pair.told, "old: leaving a"))
        pair.old.may_handle.set()
        assert await busy.receive() == "old 1"
        await asyncio.sleep(0)
        assert "old: out a" not in pair.told
        pair.old.may_leave.set()
        assert (await workers.outcome()).moved == 1
        assert pair.told.index("old: left a 1006") < pair.told.index("old: out a")


async def test_a_key_waits_for_the_handshake_of_who_is_just_coming(pair: Pair) -> None:
    may_open = asyncio.Event()

    @pair.old.app.on_handshake
    async def wait(request: Request, session: Session) -> None:
        if "slowly" in request.query:
            await may_open.wait()

    async with pair.joined() as workers, AsyncExitStack() as stack:
        await enter(stack, workers, "b")
        entering = asyncio.create_task(enter(stack, workers, "a?slowly"))
        await wait_until(lambda: workers.old.runtime.keys.is_opening(KEY_A))
        workers.begin()
        await wait_until(told_of(pair.told, "new: in b"))
        assert "old: out a" not in pair.told
        may_open.set()
        assert (await workers.outcome()).moved == 2
        (conn,) = await entering
        assert await say(conn) == "new 1"
        assert pair.told.index("old: enter a") < pair.told.index("old: out a") < pair.told.index("new: in a")


async def test_a_key_that_stays_keeps_nobody_waiting(pair: Pair) -> None:
    async with pair.joined() as workers, AsyncExitStack() as stack:
        _, busy = await enter(stack, workers, "a", "b")
        pair.old.out_error = KeyError("a")
        pair.old.may_handle.clear()
        await busy.send("x")  # the move goes on until this is handled
        await wait_until(lambda: any(each.receiver._is_busy for each in workers.old.runtime.connections))
        workers.begin()
        await wait_until(told_of(pair.told, "old: out a"))
        other = await stack.enter_async_context(workers.new.connect("/match/a"))
        assert await say(other) == "new 1"
        assert "old: out b" not in pair.told
        pair.old.may_handle.set()
        await workers.outcome()


async def test_more_connections_than_are_frozen_at_a_time_come_behind_one_state(pair: Pair) -> None:
    async with pair.joined() as workers, AsyncExitStack() as stack:
        found = await enter(stack, workers, *["a"] * 150)
        workers.begin()
        assert (await workers.outcome()).moved == 150
        assert [await say(conn) for conn in found] == [f"new {number}" for number in range(1, 151)]
        assert pair.told.count("old: out a") == pair.told.count("new: in a") == 1


async def test_a_key_without_connections_moves_too(pair: Pair) -> None:
    async with pair.joined() as workers:
        async with workers.old.connect("/match/a") as conn:
            await say(conn)
        await wait_until(lambda: not workers.old.runtime.connections)
        workers.begin()
        await workers.outcome()
        assert pair.new.kept == {"a": 1}


async def test_a_key_whose_time_is_over_stays(pair: Pair) -> None:
    async with pair.joined(key_linger=0.01) as workers:
        async with workers.old.connect("/match/a"):
            pass
        await wait_until(lambda: not list(workers.old.runtime.keys))
        workers.begin()
        await workers.outcome()
        assert not told_of(pair.told, "old: out")()


async def test_a_state_of_a_megabyte_moves(pair: Pair) -> None:
    async with pair.joined() as workers, AsyncExitStack() as stack:
        await enter(stack, workers, "a")
        pair.old.kept["a"] = "x" * 1_000_000
        workers.begin()
        assert (await workers.outcome()).moved == 1
        assert pair.new.kept == {"a": "x" * 1_000_000}


async def test_the_page_s_example_moves_a_match() -> None:
    page = (Path(__file__).parents[3] / "docs" / "explanation" / "live-move.md").read_text()
    (sample,) = [block for block in page.split("```python")[1:] if "on_key_out" in block]
    workers_of: list[dict[str, Any]] = [{"app": App(), "new_match": list} for _ in range(2)]
    for names in workers_of:
        exec(sample.partition("```")[0], names)
    old, new = workers_of
    async with joined(old["app"], new["app"]) as workers, workers.old.connect("/match/a"):
        old["matches"]["a"].append("a move")
        workers.begin()
        assert (await workers.outcome()).moved == 1
        assert (old["matches"], new["matches"]) == ({}, {"a": ["a move"]})


# --- who waits --------------------------------------------------------------------------------------------------------


async def test_who_comes_before_the_keys_are_listed_waits_for_its_own(pair: Pair) -> None:
    async with pair.joined() as workers, AsyncExitStack() as stack:
        (first,) = await enter(stack, workers, "a")
        await say(first)
        workers.begin(is_listed=False)
        entering = asyncio.create_task(stack.enter_async_context(workers.new.connect("/match/a")))
        others = asyncio.create_task(stack.enter_async_context(workers.new.connect("/match/z")))
        await wait_until(lambda: workers.new.runtime.keys.is_opening(KEY_A))
        assert not told_of(pair.told, "new: enter")()
        workers.go_on()
        second = await entering
        assert pair.told.index("new: in a") < pair.told.index("new: enter a")
        assert await say(second) == "new 2"
        await others


KEY_A = b"path:/match/{id}\0a"


async def test_a_key_that_is_nobody_s_is_served_at_once(pair: Pair) -> None:
    async with pair.joined() as workers, AsyncExitStack() as stack:
        await enter(stack, workers, "a")
        pair.old.may_out.clear()
        workers.begin()
        await wait_until(told_of(pair.told, "old: out a"))
        other = await stack.enter_async_context(workers.new.connect("/match/z"))
        assert await say(other) == "new 1"
        pair.old.may_out.set()
        assert (await workers.outcome()).moved == 1


async def test_who_waits_is_served_when_the_old_worker_dies(pair: Pair) -> None:
    async with pair.joined() as workers, AsyncExitStack() as stack:
        await enter(stack, workers, "a")
        pair.old.may_out.clear()
        workers.begin()
        await wait_until(told_of(pair.told, "old: out a"))
        entering = asyncio.create_task(stack.enter_async_context(workers.new.connect("/match/a")))
        await wait_until(lambda: workers.new.runtime.keys.is_opening(KEY_A))
        workers.leaving._link.close()
        assert await say(await entering) == "new 1"
        pair.old.may_out.set()


async def test_a_state_that_comes_after_its_key_was_begun_anew_is_refused(pair: Pair) -> None:
    async with pair.joined() as workers, AsyncExitStack() as stack:
        (first,) = await enter(stack, workers, "a")
        await say(first)
        pair.old.may_out.clear()
        workers.begin()
        await wait_until(told_of(pair.told, "old: out a"))
        entering = asyncio.create_task(stack.enter_async_context(workers.new.connect("/match/a")))
        await wait_until(lambda: workers.new.runtime.keys.is_opening(KEY_A))
        coming = workers.coming._keys
        coming_wait = asyncio.create_task(coming.wait(KEY_A, 0.0))  # one whose patience is over
        assert await say(await entering) == "new 1"
        await coming_wait
        pair.new.kept.clear()  # or its own hook would refuse
        pair.old.may_out.set()
        outcome = await workers.outcome()
        assert (outcome.moved, outcome.refused) == (0, 1)
        assert await first.wait_closed() == 1012
        assert pair.new.kept == {}
        assert pair.old.kept == {"a": 1}
        assert workers.new.counters.value("keys_given_up") == 1


async def test_nobody_waits_in_an_application_without_key_hooks(pair: Pair) -> None:
    pair.new = Matches(pair.told, "new")
    async with pair.joined() as workers, AsyncExitStack() as stack:
        workers.begin(is_listed=False)
        conn = await stack.enter_async_context(workers.new.connect("/match/a"))
        assert await say(conn) == "new 1"
        workers.new_dies()


# --- what stays -------------------------------------------------------------------------------------------------------


async def test_a_key_whose_on_key_out_raises_stays_with_its_connections(pair: Pair) -> None:
    async with pair.joined() as workers, AsyncExitStack() as stack:
        first, second = await enter(stack, workers, "a", "a")
        pair.old.out_error = KeyError("a")
        workers.begin()
        outcome = await workers.outcome()
        assert (outcome.moved, outcome.left) == (0, 2)
        assert [await say(first), await say(second)] == ["old 1", "old 2"]


async def test_an_on_key_out_that_hangs_is_cut_at_its_grace(pair: Pair) -> None:
    async with pair.joined(grace_seconds=0.05) as workers, AsyncExitStack() as stack:
        (conn,) = await enter(stack, workers, "a")
        pair.old.may_out.clear()
        workers.begin()
        assert (await workers.outcome()).left == 1
        assert await say(conn) == "old 1"


async def test_too_long_a_state_is_given_back(pair: Pair) -> None:
    async with pair.joined() as workers, AsyncExitStack() as stack:
        await enter(stack, workers, "a")
        pair.old.kept["a"] = "x" * (MAX_KEY_STATE_BYTES + 1)
        workers.begin()
        assert (await workers.outcome()).left == 1
        assert len(pair.old.kept["a"]) == MAX_KEY_STATE_BYTES + 1


async def test_what_one_hook_gave_before_the_next_one_raised_is_given_back(pair: Pair) -> None:
    @pair.old.app.on_key_out
    def second(key: str) -> None:
        raise ValueError("not this one")

    async with pair.joined() as workers, AsyncExitStack() as stack:
        (conn,) = await enter(stack, workers, "a")
        workers.begin()
        assert (await workers.outcome()).left == 1
        assert pair.told[-2:] == ["old: out a", "old: in a"]
        assert await say(conn) == "old 1"


async def test_a_connection_whose_handler_outlives_its_grace_is_closed_and_its_key_goes(pair: Pair) -> None:
    async with pair.joined(grace_seconds=0.2) as workers, AsyncExitStack() as stack:
        busy, idle = await enter(stack, workers, "a", "a")
        pair.old.may_handle.clear()
        await busy.send("x")
        await wait_until(lambda: any(each.receiver._is_busy for each in workers.old.runtime.connections))
        workers.begin()
        await wait_until(told_of(pair.told, "new: in a"))
        pair.old.may_handle.set()  # too late: what it has done for the key is lost
        outcome = await workers.outcome()
        assert (outcome.moved, outcome.left) == (1, 1)
        assert await busy.wait_closed() == 1012
        assert await say(idle) == "new 1"


async def test_who_can_move_no_more_when_its_key_has_gone_is_closed(pair: Pair) -> None:
    @pair.old.app.on_move_out
    def refuse(conn: Connection) -> None:
        if conn.state.get("refuses"):
            raise ValueError("not this one")

    async with pair.joined() as workers, AsyncExitStack() as stack:
        await enter(stack, workers, "a", "a")
        stays, _ = workers.old.runtime.connections
        assert isinstance(stays, Connection)
        stays.state["refuses"] = True
        workers.begin()
        outcome = await workers.outcome()
        assert (outcome.moved, outcome.left) == (1, 1)
        await wait_until(told_of(pair.told, "old: left a 1012"))
        assert pair.new.kept == {"a": 0}
        assert pair.old.kept == {}


async def test_a_key_for_which_there_is_no_answer_is_the_other_worker_s(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaving_keys, "ANSWER_SECONDS", 0.1)
    async with pair.joined(grace_seconds=0.1) as workers, AsyncExitStack() as stack:
        (conn,) = await enter(stack, workers, "a")
        workers.begin(is_listed=False)
        monkeypatch.setattr(workers.coming._keys, "came", lambda *args, **more: None)  # it hangs
        workers.go_on()
        outcome = await workers.outcome()
        assert (outcome.moved, outcome.left) == (0, 1)
        assert await conn.wait_closed() == 1012
        assert pair.old.kept == {}


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_hooks", [True, False])
async def test_connections_of_a_key_that_the_new_code_does_not_take_are_closed_and_counted(
    pair: Pair, has_hooks: bool
) -> None:
    pair.new.in_error = RuntimeError("not these rules")
    if not has_hooks:
        pair.new = Matches(pair.told, "new")
    async with pair.joined() as workers, AsyncExitStack() as stack:
        first, second = await enter(stack, workers, "a", "a")
        await say(first)
        workers.begin()
        outcome = await workers.outcome()
        assert (outcome.moved, outcome.refused, outcome.left) == (0, 2, 0)
        assert [await first.wait_closed(), await second.wait_closed()] == [1012, 1012]
        await wait_until(lambda: pair.told.count("old: left a 1012") == 2)
        assert pair.told.index("old: in a") < pair.told.index("old: left a 1012"), "it was back before they left"
        assert pair.old.kept == {"a": 1}


# --- the new worker dies ----------------------------------------------------------------------------------------------


async def test_a_key_comes_back_when_the_new_worker_dies_in_its_hook(pair: Pair) -> None:
    async with pair.joined() as workers, AsyncExitStack() as stack:
        (conn,) = await enter(stack, workers, "a")
        await say(conn)
        pair.new.may_in.clear()
        workers.begin()
        await wait_until(lambda: workers.coming._keys._taking)
        await conn.send("x")
        pair.old.may_in.clear()
        workers.new_dies()
        await wait_until(lambda: workers.leaving._keys._tasks)
        assert not workers.is_over, "who drains then would close connections that wait for their key"
        pair.old.may_in.set()
        assert (await workers.outcome()).left == 1
        assert await conn.receive() == "old 2"
        assert pair.told[-2:] == ["old: out a", "old: in a"]
        pair.new.may_in.set()


async def test_a_key_comes_back_to_the_connections_that_had_not_followed(pair: Pair) -> None:
    async with pair.joined() as workers, AsyncExitStack() as stack:
        found = await enter(stack, workers, *["a"] * 150)
        workers.on_moved = workers.new_dies
        workers.begin()
        outcome = await workers.outcome()
        assert 0 < outcome.moved < 150
        assert outcome.left == 150 - outcome.moved
        assert pair.told[-1] == "old: in a"
        assert await say(found[-1]) in ("old 1", "new 1")
        assert pair.told.count("old: in a") == 1


# --- on_move_out ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["match", "free"])
async def test_on_move_out_runs_once_for_each_of_many_that_rest_at_once(pair: Pair, path: str) -> None:
    asked: list[str] = []
    for app in (pair.old.app, pair.new.app):
        app.on_connect("/free/{id}")(lambda conn: None)
        app.on_message("/free/{id}")(pair.old._said)
    pair.old.app.on_move_out(lambda conn: asked.append(conn.id))
    async with pair.joined() as workers, AsyncExitStack() as stack:
        found = [await stack.enter_async_context(workers.old.connect(f"/{path}/a")) for _ in range(300)]
        pair.old.kept["a"] = 0
        pair.old.may_handle.clear()
        for conn in found:
            await conn.send("x")
        workers.begin()
        await wait_until(lambda: all(each.receiver._is_busy for each in workers.old.runtime.connections))
        pair.old.may_handle.set()
        assert (await workers.outcome()).moved == 300
        assert len(asked) == len(set(asked)) == 300


async def test_what_on_move_out_was_called_for_handles_nothing_more(pair: Pair) -> None:
    """However many come to rest meanwhile, of which some are told to go on."""
    may_ask, asked = asyncio.Event(), []
    for app in (pair.old.app, pair.new.app):
        app.on_connect("/free/{id}")(lambda conn: None)
    pair.old.app.on_message("/free/{id}")(pair.old._said)
    pair.new.app.on_message("/free/{id}")(pair.new._said)
    pair.old.kept["a"] = pair.new.kept["a"] = 0

    @pair.old.app.on_move_out
    async def out(conn: Connection) -> None:
        asked.append(conn.id)
        await may_ask.wait()

    async with pair.joined() as workers, AsyncExitStack() as stack:
        first = [await stack.enter_async_context(workers.old.connect("/free/a")) for _ in range(60)]
        busy = [await stack.enter_async_context(workers.old.connect("/free/a")) for _ in range(240)]
        pair.old.may_handle.clear()
        for conn in busy:
            await conn.send("x")
        await wait_until(lambda: sum(each.receiver._is_busy for each in workers.old.runtime.connections) == 240)
        workers.begin()
        await wait_until(lambda: len(asked) == 60)
        for conn in first:
            await conn.send("x")
        pair.old.may_handle.set()
        answers = [await conn.receive() for conn in busy]
        may_ask.set()
        assert (await workers.outcome()).moved == 300
        assert {str(answer)[:3] for answer in answers} == {"old"}
        assert {str(await conn.receive())[:3] for conn in first} == {"new"}
        assert len(asked) == len(set(asked)) == 300
