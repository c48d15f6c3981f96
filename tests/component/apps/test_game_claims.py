"""Whose a match of examples/game is, and which ids begin one: what Redis is asked before a match is in memory."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from types import ModuleType
from typing import Any

import pytest
import support.game_example  # noqa: F401  (from here on its modules can be imported)
from directory import Entry
from match import FORMAT, Match
from redis import Redis
from store import LEASE_SECONDS, MINTED_SECONDS
from support.game_example import fresh_app, next_of
from support.gateway import ROOT
from support.valkey import ValkeyServer
from support.waiting import wait_until

from stickygw.config.settings import Settings
from stickygw.supervision.roster import ENDING_SECONDS
from stickygw.testing import AppClient

BY_MATCH = ["path:/match/{id}", "cookie"]
US, OTHER = b"00000000/0", b"00000000/1"
"""The worker of these tests, and another one: who a claim may be of."""


@pytest.fixture
def game() -> ModuleType:
    return fresh_app()


@pytest.fixture
async def client(game: ModuleType, own_valkey: ValkeyServer) -> AsyncIterator[AppClient]:
    async with AppClient(game.app, redis_url=own_valkey.url, keys=BY_MATCH) as client:
        yield client


class Keys:
    """What Redis has of one match."""

    def __init__(self, game: ModuleType, id: str) -> None:
        self.redis = game.app.redis
        self.minted = game.app.redis_key(f"game:minted:{id}")
        self.owner = game.app.redis_key(f"game:owner:{id}")
        self.checkpoint = game.app.redis_key(f"game:match:{FORMAT}:{id}")

    async def whose(self) -> bytes | None:
        """Who has the claim."""
        owner: bytes | None = await self.redis.get(self.owner)
        return owner


def test_a_worker_that_stands_still_is_ended_before_others_may_begin_its_matches():
    assert Settings().heartbeat_timeout + ENDING_SECONDS < LEASE_SECONDS


async def test_a_match_that_another_worker_has_is_not_begun_here(client, game):
    """Its own worker does not answer, perhaps, so that its gateway sends players elsewhere."""
    keys = Keys(game, id := await game.store.mint())
    await game.app.redis.set(keys.owner, OTHER)
    async with client.connect(f"/match/{id}") as ada:
        assert await ada.wait_closed() == 1013
    assert await keys.whose() == OTHER
    await game.app.redis.delete(keys.owner)
    async with client.connect(f"/match/{id}") as ada:
        await next_of("snapshot", ada)
        assert await keys.whose() == US


async def test_of_two_workers_that_open_a_match_at_once_one_has_it(game, own_valkey):
    games = [game, fresh_app()]
    async with (
        AppClient(games[0].app, slot=0, workers=2, redis_url=own_valkey.url),
        AppClient(games[1].app, slot=1, workers=2, redis_url=own_valkey.url),
    ):
        id = await game.store.mint()
        opened = await asyncio.gather(*(one.opened(id) for one in games), return_exceptions=True)
        assert sum(isinstance(one, Match) for one in opened) == 1
        assert sum(len(one.matches) for one in games) == 1


async def test_a_claim_is_renewed_while_the_match_goes_on_and_taken_again_if_it_was_lost(client, game):
    keys = Keys(game, id := await game.store.mint())
    async with client.connect(f"/match/{id}") as ada:
        await next_of("snapshot", ada)
        assert 0 < await game.app.redis.ttl(keys.owner) <= LEASE_SECONDS
        await game.app.redis.expire(keys.owner, 3)
        await game.keep()
        assert await game.app.redis.ttl(keys.owner) > 3
        await game.app.redis.delete(keys.owner)
        await game.keep()
        assert await keys.whose() == US


async def test_a_worker_whose_match_another_one_has_by_now_ends_its_copy(client, game):
    """It stood still, or was cut off from Redis, for longer than the lease."""
    keys = Keys(game, id := await game.store.mint())
    async with client.connect(f"/match/{id}") as ada:
        await next_of("snapshot", ada)
        # At once: the application looks every second, too.
        await game.app.redis.mset({keys.owner: OTHER, keys.checkpoint: b"of the other one"})
        await game.keep()
        assert await ada.wait_closed() == 1012
    assert game.matches == {}
    await game.keep()
    assert await game.app.redis.mget(keys.owner, keys.checkpoint) == [OTHER, b"of the other one"]


async def left(game: ModuleType, client: AppClient, id: str) -> None:
    """Somebody has been in the match, and its worker has seen since that they are not."""
    async with client.connect(f"/match/{id}") as ada:
        await next_of("snapshot", ada)
    await wait_until(lambda: game.nobody_in() == {id})
    await game.keep()


async def test_a_match_that_nobody_is_in_goes_on_where_a_player_opens_it(game, own_valkey):
    """Whoever comes back by another slot, since theirs did not answer, stays with it."""
    there = fresh_app()
    async with (
        AppClient(game.app, redis_url=own_valkey.url, keys=BY_MATCH) as client,
        AppClient(there.app, slot=1, workers=2, redis_url=own_valkey.url, keys=BY_MATCH) as other,
    ):
        keys = Keys(game, id := await game.store.mint())
        await left(game, client, id)
        assert list(game.matches) == [id], "until its ships have drifted long enough"
        assert await keys.whose() is None
        [session] = game.matches[id].players
        async with other.connect(f"/match/{id}") as ada:
            await next_of("snapshot", ada)
            assert session in there.matches[id].players
            assert there.matches[id].arena.tick > 0
            await game.keep()
            assert game.matches == {}
            await there.keep()
            assert await keys.whose() == OTHER


async def test_of_a_match_that_nobody_is_in_is_written_what_it_was_last(client, game):
    """However long Redis was away when they left."""
    keys = Keys(game, id := await game.store.mint())
    async with client.connect(f"/match/{id}") as ada:
        await next_of("snapshot", ada)
        await game.app.redis.delete(keys.owner, keys.checkpoint)
    await wait_until(lambda: game.nobody_in() == {id})
    tick = game.matches[id].arena.tick
    await game.keep()
    assert Match.unpacked(await game.app.redis.get(keys.checkpoint)).arena.tick >= tick


async def test_a_match_that_nobody_is_in_is_only_looked_at(client, game):
    keys = Keys(game, id := await game.store.mint())
    await left(game, client, id)
    await game.app.redis.set(keys.checkpoint, b"of another one, which has been and gone")
    await game.keep()
    assert await game.app.redis.mget(keys.owner, keys.checkpoint) == [None, b"of another one, which has been and gone"]


async def test_who_comes_back_here_finds_the_match_in_memory_and_it_is_claimed_again(client, game):
    keys = Keys(game, id := await game.store.mint())
    await left(game, client, id)
    match = game.matches[id]
    async with client.connect(f"/match/{id}") as ada:
        await next_of("snapshot", ada)
        await game.keep()
        assert game.matches[id] is match
        assert await keys.whose() == US


async def test_who_was_there_for_a_moment_is_in_the_checkpoint(client, game):
    keys = Keys(game, id := await game.store.mint())
    await left(game, client, id)
    await game.app.redis.delete(keys.checkpoint)
    await left(game, client, id)
    assert len(Match.unpacked(await game.app.redis.get(keys.checkpoint)).players) == 2


async def test_who_comes_back_while_a_match_is_written_keeps_it_here(client, game, monkeypatch):
    keys = Keys(game, id := await game.store.mint())
    save, is_away = game.store.save, False
    async with AsyncExitStack() as players:

        async def saved_late(*arguments: Any) -> None:
            nonlocal is_away
            await save(*arguments)
            if is_away:
                is_away = False
                await next_of("snapshot", await players.enter_async_context(client.connect(f"/match/{id}")))

        monkeypatch.setattr(game.store, "save", saved_late)
        async with client.connect(f"/match/{id}") as ada:
            await next_of("snapshot", ada)
        await wait_until(lambda: game.nobody_in() == {id})
        is_away = True
        await game.keep()
        assert not is_away
        assert await keys.whose() == US


async def test_a_match_whose_players_have_followed_it_late_is_claimed_again(client, game):
    keys = Keys(game, id := await game.store.mint())
    async with client.connect(f"/match/{id}") as ada:
        await next_of("snapshot", ada)
        game.unheld.add(id)  # as it was before they came, by a move
        await game.app.redis.delete(keys.owner)
        await game.keep()
        assert await keys.whose() == US


async def test_who_comes_back_while_it_is_asked_whose_a_match_is_overwrites_nothing(client, game, monkeypatch):
    keys = Keys(game, id := await game.store.mint())
    await left(game, client, id)
    claim = game.store.claim

    async def claimed_too_late(*ids: Any, **options: Any) -> set[str]:
        game.unheld.discard(id)  # as `enter` does
        lost = set(await claim(*ids, **options))
        await game.app.redis.mset({keys.owner: OTHER, keys.checkpoint: b"of the other one"})
        return lost

    monkeypatch.setattr(game.store, "claim", claimed_too_late)
    await game.keep()
    assert await game.app.redis.mget(keys.owner, keys.checkpoint) == [OTHER, b"of the other one"]


async def test_a_match_that_nobody_is_in_does_not_move_and_is_resumed(client, game):
    """Another worker may have it by now, from which its next one would take it."""
    id = await game.store.mint()
    await left(game, client, id)
    [session] = game.matches[id].players
    assert game.let_go(id) is None
    game.take_over(id, None)
    assert game.matches == {}
    async with client.connect(f"/match/{id}") as ada:
        await next_of("snapshot", ada)
        assert session in game.matches[id].players
        assert game.let_go(id) is not None, "somebody is in it"


async def test_code_of_another_format_begins_a_match_anew(game, own_valkey, monkeypatch):
    async with AppClient(game.app, redis_url=own_valkey.url, keys=BY_MATCH) as client:
        keys = Keys(game, id := await game.store.mint())
        async with client.connect(f"/match/{id}") as ada:
            await next_of("snapshot", ada)
        [session] = game.matches[id].players
        await game.app.redis.delete(keys.minted)  # by then the match is older than a minute
    for module in ("match", "store"):
        monkeypatch.setattr(f"{module}.FORMAT", FORMAT + 1)
    newer = fresh_app()
    async with (
        AppClient(newer.app, redis_url=own_valkey.url, keys=BY_MATCH) as client,
        client.connect(f"/match/{id}") as ada,
    ):
        await next_of("snapshot", ada)
        assert session not in newer.matches[id].players


async def test_a_match_that_has_ended_here_stays_where_another_worker_has_begun_it(client, game):
    keys = Keys(game, id := await game.store.mint())
    await game.app.redis.mset({keys.owner: OTHER, keys.checkpoint: b"of the other one"})
    game.ended.add(id)
    await game.keep()
    assert game.ended == set()
    assert await game.app.redis.mget(keys.owner, keys.checkpoint) == [OTHER, b"of the other one"]


async def test_a_match_that_has_moved_here_is_ours_whoever_had_it(client, game):
    keys = Keys(game, id := await game.store.mint())
    match = Match()
    match.join("session", "Ada")
    await game.app.redis.set(keys.owner, OTHER)
    game.take_over(id, match.packed())
    await game.keep()
    assert list(game.matches) == [id]
    assert await keys.whose() == US
    await game.app.redis.set(keys.owner, OTHER)
    await game.keep()
    assert game.matches == {}, "that was for once"


async def test_a_match_that_has_moved_on_before_its_claim_was_written_can_be_lost(client, game):
    keys = Keys(game, id := await game.store.mint())
    match = Match()
    match.join("session", "Ada")
    game.take_over(id, match.packed())
    game.let_go(id)
    await game.app.redis.set(keys.owner, OTHER)
    game.matches[id] = match
    await game.keep()
    assert game.matches == {}


async def test_a_match_that_moves_away_while_claims_are_renewed_is_neither_lost_nor_ended(client, game, monkeypatch):
    keys = Keys(game, id := await game.store.mint())
    claim, states = game.store.claim, []

    async def claimed_late(*ids: Any, **options: Any) -> set[str]:
        if id in game.matches:
            states.append(game.let_go(id))
            await game.app.redis.mset({keys.owner: OTHER, keys.checkpoint: b"of the other one"})  # its next worker's
        return set(await claim(*ids, **options))

    async with client.connect(f"/match/{id}") as ada:
        await next_of("snapshot", ada)
        monkeypatch.setattr(game.store, "claim", claimed_late)
        await game.keep()
        assert await game.app.redis.mget(keys.owner, keys.checkpoint) == [OTHER, b"of the other one"]
        assert game.ended == set()
        monkeypatch.setattr(game.store, "claim", claim)
        game.take_over(id, states[0])
        await next_of("snapshot", ada)


async def test_a_worker_that_stops_leaves_its_matches_to_whoever_opens_them_and_not_those_that_moved(game, own_valkey):
    async with AppClient(game.app, redis_url=own_valkey.url, keys=BY_MATCH) as client:
        ids = [await game.store.mint() for _ in range(3)]
        here, moved, over = [Keys(game, id) for id in ids]
        for id in ids:
            (await game.opened(id)).join("session", "Ada")
        async with client.connect(f"/match/{ids[1]}") as bob:
            await next_of("snapshot", bob)
            await game.keep()
            game.let_go(ids[1])
        del game.matches[ids[2]]
        game.ended.add(ids[2])
    with Redis.from_url(own_valkey.url) as redis:
        assert redis.mget(here.owner, moved.owner, over.owner) == [None, US, None]
        assert redis.exists(here.checkpoint)
        assert redis.exists(moved.checkpoint)
        assert not redis.exists(over.checkpoint)


async def test_an_id_that_somebody_has_made_up_begins_no_match_and_leaves_nothing(client, game):
    keys = Keys(game, id := game.app.mint_id())
    for _ in range(2):
        async with client.connect(f"/match/{id}") as first, client.connect(f"/match/{id}") as second:
            assert (await first.wait_closed(), first.close_reason) == (1008, "no such match")
            assert await second.wait_closed() == 1008
    assert game.matches == {}
    assert not await game.app.redis.exists(keys.minted, keys.owner, keys.checkpoint)


async def test_a_match_is_begun_within_a_minute_of_its_id(client, game):
    keys = Keys(game, id := await game.store.mint())
    assert 0 < await game.app.redis.ttl(keys.minted) <= MINTED_SECONDS
    await game.app.redis.delete(keys.minted)  # as that minute would
    async with client.connect(f"/match/{id}") as ada:
        assert await ada.wait_closed() == 1008


async def test_the_game_uses_the_commands_that_the_page_names(game, own_valkey):
    page = (ROOT / "docs" / "game.md").read_text("utf-8")
    [listed] = re.findall(r"for its ACL: `([^`]*)` on keys of `PREFIX:app:game:\*`", page)
    admin = Redis.from_url(own_valkey.url)
    rules = ["on", ">sesame", "~stickygw:app:game:*", *listed.split()]
    admin.execute_command("ACL", "SETUSER", "game", *rules)  # type: ignore[no-untyped-call]
    async with AppClient(
        game.app, redis_url=f"{own_valkey.url}?username=game&password=sesame", keys=BY_MATCH
    ) as client:
        gone = Entry(0.0, None, 0, []).packed()
        await game.app.redis.hset(game.app.redis_key("game:matches"), "ffffffff/0", gone)
        async with client.connect("/lobby") as lobby:
            await lobby.send({"type": "new"})
            id = (await next_of("minted", lobby))["id"]
        async with client.connect(f"/match/{id}") as ada:
            await next_of("snapshot", ada)
            for ship in game.matches[id].arena.ships.values():
                ship.score = 3
            await game.keep()
            [(_, score)] = game.directory.scores
            assert score == 3
        await game.app.redis.zrem(game.app.redis_key("game:best"), "nobody")
        await game.app.redis.hdel(game.app.redis_key("game:names"), "nobody")
    refused = {entry[b"object"] for entry in map(as_dict, admin.execute_command("ACL", "LOG"))}  # type: ignore[no-untyped-call]
    used = {name.removeprefix("cmdstat_") for name in admin.info("commandstats")}
    admin.close()
    assert refused <= {b"client|setinfo"}, "the application has not heard of it"
    assert {rule.removeprefix("+") for rule in listed.split()} <= used


def as_dict(pairs: Any) -> dict[bytes, Any]:
    """An entry of ACL LOG, by name."""
    return pairs if isinstance(pairs, dict) else dict(zip(pairs[::2], pairs[1::2], strict=True))
