"""examples/game in process: what players, newcomers and lookers-on are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import msgpack
import pytest
import support.game_example  # noqa: F401  (from here on its modules can be imported)
from directory import Entry
from match import FORMAT, IDLE_SECONDS, MAX_PLAYERS, Match
from support.game_example import fresh_app, next_of
from support.valkey import ValkeyServer
from support.waiting import wait_until

from stickygw.testing import AppClient
from stickygw.testing.app_client import HandshakeRefused

GHOST = "ffffffff.AAAAAAAAAAAAAAAAAAAAAA"
"""An id that another gateway may have minted."""

BY_MATCH = ["path:/match/{id}", "cookie"]


@pytest.fixture
def game() -> ModuleType:
    return fresh_app()


@pytest.fixture
async def client(game: ModuleType, own_valkey: ValkeyServer) -> AsyncIterator[AppClient]:
    async with AppClient(game.app, redis_url=own_valkey.url, keys=BY_MATCH, max_message=1024) as client:
        yield client


async def has_checkpoint(game: ModuleType, id: str) -> bool:
    """Whether Redis has one of that match."""
    return bool(await game.app.redis.exists(game.app.redis_key(f"game:match:{FORMAT}:{id}")))


def rows(snapshot: dict[str, Any]) -> dict[int, list[Any]]:
    return {row[0]: row for row in snapshot["ships"]}


async def test_players_of_a_match_see_each_other_move(client, game):
    path = f"/match/{await game.store.mint()}"
    async with client.connect(path, session={"name": "Ada"}) as ada, client.connect(path) as bob:
        me, other = (await next_of("welcome", ada))["you"], (await next_of("welcome", bob))["you"]
        while len(names := (await next_of("roster", ada))["names"]) < 2:
            pass
        assert names[0] == [me, "Ada"]
        assert names[1][1].startswith("pilot ")
        first = rows(await next_of("snapshot", bob))[me]
        await ada.send({"type": "input", "seq": 5, "do": [True, 1, False]})
        while (seen := rows(await next_of("snapshot", bob)))[me][8] != 5:
            pass
        assert seen[me][1:3] != first[1:3]
        assert seen[me][5] != first[5]
        assert other in seen


async def test_ticks_are_numbered_without_holes_and_say_how_late_they_are(client, game):
    async with client.connect(f"/match/{await game.store.mint()}") as ada:
        snapshots = [await next_of("snapshot", ada) for _ in range(10)]
    first = snapshots[0]["tick"]
    assert [snapshot["tick"] for snapshot in snapshots] == list(range(first, first + 10))
    assert all(snapshot["late"] >= 0 and snapshot["slot"] == 0 for snapshot in snapshots)


async def test_who_comes_back_has_their_ship_and_goes_on_counting_inputs(client, game):
    path = f"/match/{await game.store.mint()}"
    async with client.connect(path, session={"name": "Ada"}) as ada:
        welcome = await next_of("welcome", ada)
        await ada.send({"type": "input", "seq": 70, "do": [True, 0, False]})
        while rows(await next_of("snapshot", ada))[welcome["you"]][8] != 70:
            pass
    async with client.connect(path, session=ada.session_id) as ada, client.connect(path) as bob:
        again = await next_of("welcome", ada)
        assert (again["you"], again["sequence"]) == (welcome["you"], 70)
        assert (await next_of("welcome", bob))["you"] != welcome["you"]


async def test_a_player_plays_in_one_window(client, game):
    path = f"/match/{await game.store.mint()}"
    async with client.connect(path) as first, client.connect(path, session=first.session_id) as second:
        assert await first.wait_closed() == game.ELSEWHERE
        await next_of("snapshot", second)


async def test_a_match_is_resumed_from_its_checkpoint_with_scores_and_players(client, game):
    id = await game.store.mint()
    async with client.connect(f"/match/{id}", session={"name": "Ada"}) as ada:
        ship = (await next_of("welcome", ada))["you"]
        game.matches[id].arena.ships[ship].score = 4
        tick = game.matches[id].arena.tick
        await game.store.save(game.matches)
    game.matches.clear()  # as a crash would
    await game.app.redis.delete(game.app.redis_key(f"game:minted:{id}"))  # by then the match is older than a minute
    async with client.connect(f"/match/{id}", session=ada.session_id) as ada:
        assert (await next_of("welcome", ada))["you"] == ship
        snapshot = await next_of("snapshot", ada)
        assert rows(snapshot)[ship][7] == 4
        assert tick < snapshot["tick"]


async def test_a_match_that_is_over_leaves_no_checkpoint(client, game):
    id = await game.store.mint()
    async with client.connect(f"/match/{id}") as ada:
        await next_of("snapshot", ada)
        await game.store.save(game.matches)
    for player in game.matches[id].players.values():
        player.away_seconds = 3600.0
    game.look_round()
    await game.keep()
    assert game.matches == {}
    assert not await has_checkpoint(game, id)
    async with client.connect(f"/match/{id}") as ada:
        assert await ada.wait_closed() == 1008, "nor does it begin anew within the minute of its id"


async def test_a_checkpoint_that_redis_did_not_remove_is_removed_later(client, game, own_valkey):
    id = await game.store.mint()
    await game.opened(id)
    await game.store.save(game.matches)
    own_valkey.stop()
    game.look_round()  # nobody plays: it is over
    await game.keep()
    own_valkey.start()
    await game.store.save({id: Match()})  # this Valkey keeps nothing
    await game.keep()
    assert not await has_checkpoint(game, id)
    assert game.ended == set()


async def test_a_match_that_has_begun_again_keeps_its_checkpoint(client, game):
    id = await game.store.mint()
    game.ended.add(id)
    (await game.opened(id)).join("session", "Ada")
    await game.keep()
    assert await has_checkpoint(game, id)


async def test_a_match_moves_in_one_piece(client, game):
    id = await game.store.mint()
    async with client.connect(f"/match/{id}") as ada:
        await next_of("snapshot", ada)
        before = game.matches[id].packed()
        state = game.let_go(id)
        assert game.matches == {}
        game.take_over(id, state)
        assert game.matches[id].packed() == before
        await next_of("snapshot", ada)


async def test_a_match_that_is_over_moves_as_nothing(game):
    game.take_over("any", game.let_go("any"))
    assert game.matches == {}


async def test_a_worker_that_lost_the_match_sends_its_players_round_again(client, game):
    id = await game.store.mint()
    async with client.connect(f"/match/{id}") as ada:
        await next_of("snapshot", ada)
        game.matches.clear()
        await ada.send({"type": "input", "seq": 1, "do": [True, 0, False]})
        assert await ada.wait_closed() == 1012


@pytest.mark.parametrize(
    "message",
    [
        None,
        {"type": "input", "seq": "1", "do": [True, 0, False]},
        {"type": "input", "seq": 1, "do": [True, 2, False]},
        {"type": "input", "seq": 1, "do": [True, 0]},
        {"type": "input", "seq": 1, "do": [True, 0, False], "more": None},
        {"type": "ping", "at": "now"},
        {"type": "ping", "at": 1, "more": None},
        {"type": "nonsense"},
    ],
)
async def test_what_the_game_does_not_know_is_refused(client, game, message):
    async with client.connect(f"/match/{await game.store.mint()}") as ada:
        await ada.send(message)
        assert await ada.wait_closed() == 1008


async def test_a_message_that_is_too_long_is_not_even_decoded(client, game):
    async with client.connect(f"/match/{await game.store.mint()}") as ada:
        await ada.send([[]] * 1022)
        assert await ada.wait_closed() == 1009


async def test_who_sends_too_much_is_refused(client, game):
    async with client.connect(f"/match/{await game.store.mint()}") as ada:
        await next_of("welcome", ada)
        for sequence in range(1, 2 * game.MAX_HEARD + 2):  # a second may end in between
            await ada.send({"type": "input", "seq": sequence, "do": [False, 0, False]})
        assert await ada.wait_closed() == 1008


async def test_what_a_page_has_sent_in_a_tunnel_may_come_at_once(client, game):
    async with client.connect(f"/match/{await game.store.mint()}") as ada:
        for sequence in range(1, 40 * 20):
            await ada.send({"type": "input", "seq": sequence, "do": [False, 0, False]})
        await ada.send({"type": "ping", "at": 1})
        assert (await next_of("pong", ada))["at"] == 1


async def test_who_is_there_and_does_nothing_is_told_when_their_ship_is_gone(client, game):
    path = f"/match/{await game.store.mint()}"
    async with client.connect(path) as ada, client.connect(path) as bob:
        await next_of("welcome", bob)
        game.matches[path.removeprefix("/match/")].players[ada.session_id].idle_seconds = IDLE_SECONDS
        game.look_round()
        assert (await ada.wait_closed(), ada.close_reason) == (game.IDLE, "you did nothing for so long: come again")
        await next_of("snapshot", bob)
        assert bob.close_code is None


async def test_a_redis_that_does_not_answer_is_not_the_players_fault(client, game, monkeypatch):
    forever = asyncio.Event()
    monkeypatch.setattr(game.store, "save", lambda *_: forever.wait())
    id = await game.store.mint()
    async with client.connect(f"/match/{id}") as ada:
        await next_of("welcome", ada)
        [player] = game.matches[id].players.values()
        player.heard = 50
        await wait_until(lambda: player.heard == 0)
    await wait_until(lambda: player.away_seconds > 1)
    forever.set()


async def test_a_ping_comes_back(client, game):
    async with client.connect(f"/match/{await game.store.mint()}") as ada:
        await ada.send({"type": "ping", "at": 12.5})
        assert (await next_of("pong", ada))["at"] == 12.5


async def test_a_full_match_is_closed_to_newcomers(client, game):
    id = await game.store.mint()
    match = await game.opened(id)
    for number in range(MAX_PLAYERS):
        match.join(f"session {number}", "x")
    async with client.connect(f"/match/{id}") as ada:
        assert await ada.wait_closed() == game.FULL


async def test_a_match_of_another_gateway_is_told_where_it_is(client, game):
    ghost = Entry(2e9, "http://127.0.0.2:9", 0, [(GHOST, 3)])
    await game.app.redis.hset(game.app.redis_key("game:matches"), "ffffffff/0", ghost.packed())
    await game.keep()
    with pytest.raises(HandshakeRefused) as refused:
        async with client.connect(f"/match/{GHOST}"):
            pass
    assert refused.value.status == 421
    assert refused.value.headers["Location"] == f"http://127.0.0.2:9/match/{GHOST}"


@pytest.mark.parametrize("id", [GHOST, "nonsense"])
async def test_a_match_that_nobody_knows_is_not_found(client, id):
    with pytest.raises(HandshakeRefused) as refused:
        async with client.connect(f"/match/{id}"):
            pass
    assert refused.value.status == 404


async def test_an_id_that_is_written_otherwise_is_the_same_match(client, game):
    id = await game.store.mint()
    escaped = "".join(f"%{byte:02x}" for byte in id.encode())
    async with client.connect(f"/match/{id}") as ada, client.connect(f"/match/{escaped}") as bob:
        for player in (ada, bob):
            await player.receive()
        assert list(game.matches) == [id]


async def test_without_routing_by_match_nobody_plays(game, own_valkey):
    async with AppClient(game.app, redis_url=own_valkey.url) as client:
        async with client.connect(f"/match/{await game.store.mint()}") as ada:
            assert await ada.wait_closed() == 1008
        assert ada.close_reason.startswith("not routed by the id of its match")


async def test_a_worker_starts_among_those_of_other_code(game, own_valkey):
    async with AppClient(game.app, redis_url=own_valkey.url):
        key = game.app.redis_key("game:matches")
        await game.app.redis.hset(key, "00000000/1", msgpack.packb([2e9, None, 1, [], "a field of tomorrow"]))
    async with AppClient(game.app, redis_url=own_valkey.url):
        assert "00000000/0" in game.directory.workers


async def test_of_many_that_come_at_once_no_more_matches_begin_than_may(client, game, monkeypatch):
    monkeypatch.setattr(game, "MAX_MATCHES", 2)
    opening = [game.opened(id) for id in [await game.store.mint() for _ in range(5)]]
    opened = await asyncio.gather(*opening, return_exceptions=True)
    assert sum(isinstance(one, game.NotNow) for one in opened) == 3
    assert len(game.matches) == 2


async def test_a_full_worker_begins_no_further_match(client, game, monkeypatch):
    monkeypatch.setattr(game, "MAX_MATCHES", 1)
    id = await game.store.mint()
    async with client.connect(f"/match/{id}") as ada:
        await next_of("snapshot", ada)
        further = await game.store.mint()
        async with client.connect(f"/match/{further}") as eve:
            assert (await eve.wait_closed(), eve.close_reason) == (1013, "too many matches")
        assert not await game.app.redis.exists(game.app.redis_key(f"game:owner:{further}")), (
            "another worker may have it"
        )
        async with client.connect(f"/match/{id}") as bob:
            await next_of("welcome", bob)


async def test_the_lobby_mints_lists_and_names(client, game):
    async with client.connect("/lobby") as lobby:
        you = await next_of("you", lobby)
        await lobby.send({"type": "name", "name": " Ada "})
        assert await next_of("you", lobby) == you | {"name": "Ada"}
        await lobby.send({"type": "new"})
        id = (await next_of("minted", lobby))["id"]
        async with client.connect(f"/match/{id}", session=lobby.session_id) as ada:
            assert (await next_of("roster", ada))["names"] == [[1, "Ada"]]
            game.matches[id].arena.ships[1].score = 7
            while not (listing := await next_of("lobby", lobby))["scores"]:
                pass
    assert listing["matches"] == [[id, 1, None, 0]]
    [[who, score]] = listing["scores"]
    assert who.startswith("Ada#")
    assert lobby.session_id not in who
    assert score == 7


async def test_the_lobby_says_where_a_match_is(client, game):
    """A page is not shown the 421."""
    ghost = Entry(2e9, "http://127.0.0.2:9", 0, [])
    await game.app.redis.hset(game.app.redis_key("game:matches"), "ffffffff/0", ghost.packed())
    await game.keep()
    answers = []
    async with client.connect("/lobby") as lobby:
        for id in (game.app.mint_id(), GHOST, "nonsense"):
            await lobby.send({"type": "where", "id": id})
            answers.append(await next_of("there", lobby))
    assert [(answer["here"], answer["url"]) for answer in answers] == [
        (True, None),
        (False, "http://127.0.0.2:9"),
        (False, None),
    ]


@pytest.mark.parametrize(
    "message",
    [
        None,
        {"type": "new", "more": None},
        {"type": "where", "id": "x", "more": None},
        {"type": "where", "id": 5},
        {"type": "name", "name": "Ada", "more": None},
        {"type": "name", "name": " "},
    ],
)
async def test_what_the_lobby_does_not_know_is_refused(client, message):
    async with client.connect("/lobby") as lobby:
        await lobby.send(message)
        assert await lobby.wait_closed() == 1008


async def test_who_asks_the_lobby_too_much_is_refused(client, game, monkeypatch):
    monkeypatch.setattr(game, "MAX_ASKED", 10)
    monkeypatch.setattr(game, "ASKED_A_SECOND", 0)
    async with client.connect("/lobby") as lobby:
        for _ in range(11):
            await lobby.send({"type": "where", "id": "x"})
        for _ in range(10):
            await next_of("there", lobby)
        assert await lobby.wait_closed() == 1008


async def test_what_was_asked_is_forgotten_by_and_by(client, game, monkeypatch):
    monkeypatch.setattr(game, "MAX_ASKED", 10)
    async with client.connect("/lobby") as lobby:
        for _ in range(5):
            for _ in range(game.MAX_ASKED):
                await lobby.send({"type": "where", "id": "x"})
                await next_of("there", lobby)
            for _ in range(game.MAX_ASKED // game.ASKED_A_SECOND):
                game.look_round()


@pytest.fixture
async def match(client: AppClient, game: ModuleType) -> AsyncIterator[Match]:
    """One that is held: a player without points is in it."""
    id = await game.store.mint()
    async with client.connect(f"/match/{id}") as looker_on:
        await next_of("welcome", looker_on)
        yield game.matches[id]


async def scored(game: ModuleType, match: Match, session: str, name: str, score: int) -> list[tuple[str, int]]:
    """The table when the player of that session has so many points."""
    match.arena.ships[match.join(session, name).ship].score = score
    await game.keep()
    return game.directory.scores


async def test_a_pilot_is_in_the_table_once_with_the_best_score_and_the_newest_name(game, match):
    [(who, _)] = await scored(game, match, "session", "Ada", 5)
    assert who.startswith("Ada#")
    assert await scored(game, match, "session", "Bob", 9) == [(who.replace("Ada", "Bob"), 9)]
    assert await scored(game, match, "session", "Eve", 2) == [(who.replace("Ada", "Eve"), 9)]


async def test_who_falls_out_of_the_table_leaves_nothing(game, match, monkeypatch):
    monkeypatch.setattr("store.KEPT_SCORES", 2)
    for score, name in enumerate(("Ada", "Bob", "Eve", "Dan"), 1):
        table = await scored(game, match, f"session of {name}", name, score)
    assert [(who.partition("#")[0], score) for who, score in table] == [("Dan", 4), ("Eve", 3)]
    assert await game.app.redis.zcard(game.app.redis_key("game:best")) == 2
    assert sorted(await game.app.redis.hvals(game.app.redis_key("game:names"))) == [b"Dan", b"Eve"]


async def test_while_redis_is_away_matches_go_on_and_none_begins(client, game, own_valkey):
    ids = [await game.store.mint() for _ in range(2)]
    async with client.connect(f"/match/{ids[0]}") as ada, client.connect("/lobby") as lobby:
        await next_of("snapshot", ada)
        own_valkey.stop()
        await game.keep()
        for _ in range(5):
            await next_of("snapshot", ada)
        async with client.connect(f"/match/{ids[1]}") as bob:
            assert await bob.wait_closed() == 1013
        await lobby.send({"type": "new"})
        assert await lobby.wait_closed() == 1013
        own_valkey.start()
        async with client.connect(f"/match/{await game.store.mint()}") as bob:
            await next_of("snapshot", bob)


async def test_checkpoints_and_the_list_end_by_themselves(client, game):
    id = await game.store.mint()
    async with client.connect(f"/match/{id}") as ada:
        await next_of("snapshot", ada)
        await game.keep()
    [key] = [key async for key in game.app.redis.scan_iter(match="*:game:match:*")]
    assert 0 < await game.app.redis.ttl(key) <= 60
    data = await game.app.redis.hgetall(game.app.redis_key("game:matches"))
    assert msgpack.unpackb(data[b"00000000/0"])[3] == [[id, 1]]
    await wait_until(lambda: game.directory.listing()["matches"])
