"""A small arena game. Each match lives in the memory of one worker, which all its players reach:

    stickygw run examples/game/app.py:app --key "path:/match/{id}" --key cookie --set max_message=1024 --workers 2

Then open http://127.0.0.1:8000 in two browsers; docs/game.md builds it step by step. `space`, `ship` and `arena` are
the physics, `match` adds the players, `directory` and `store` are what Redis is for; here it becomes a server.
"""

import os
from contextlib import suppress
from pathlib import Path
from secrets import randbelow
from typing import Any

from directory import Directory
from match import MAX_HEARD, Match, MatchFull
from redis.exceptions import RedisError
from ship import STEP_SECONDS, Controls
from store import NoSuchMatch, NotNow, Store

from stickygw import App, Connection, Refuse, Request, Session, Tick

MAX_MATCHES = 40
"""Of one worker. A step of a match of 16 ships that all fire, and its snapshot packed, take 0.1 ms, and 0.4 ms if every
shot flies as far as it can: at worst 16 of a tick's 50 ms, with the players' sockets on top. To write all checkpoints
takes another 8 ms, once a second."""

ASKED_A_SECOND, MAX_ASKED = 5, 200
"""So many messages of one connection to the lobby are forgotten every second, and so many may not be forgotten."""

FULL, ELSEWHERE, IDLE = 4001, 4002, 4003
"""Close codes of our own: it makes no sense to come again by oneself."""

app = App(codec="msgpack", static=Path(__file__).parent / "page")
matches: dict[str, Match] = {}
ended: set[str] = set()
"""Matches that are over, and of which Redis still has a checkpoint."""
moved_here: set[str] = set()
"""Those that another worker has had, as far as Redis knows."""
unheld: set[str] = set()
"""Those that nobody is in: their claim is given back, so that who comes to another worker need not wait for us."""

directory = Directory()
store = Store(app)


def room(id: str) -> str:
    return f"match:{id}"


def connections(room: str) -> list[Connection]:
    """Those who are in it: here, that is all of a match, and of the lobby those of this worker."""
    return [member for member in app.room(room).local_members if isinstance(member, Connection)]


def name_of(conn: Connection) -> str:
    """Kept in the session: it outlives matches, workers and gateways."""
    if "name" not in conn.session:
        conn.session["name"] = f"pilot {randbelow(900) + 100}"
    return str(conn.session["name"])


# ---------------------------------------------------------------- a match


@app.on_handshake
def admit(request: Request, session: Session) -> None:
    """A match is here if its id was minted here; else its gateway's URL is told, if anybody knows it."""
    id = request.path_params.get("id")
    if id is None:
        return
    if not app.minted_here(id):
        url = directory.url_of(id)
        raise Refuse.misdirected(url + request.path) if url else Refuse(404, "no such match")


@app.on_connect("/match/{id}")
async def enter(conn: Connection, id: str) -> None:
    if conn.key != id:  # then other players of the match may be at another worker
        conn.close(1008, 'not routed by the id of its match: start with --key "path:/match/{id}"')
        return
    try:
        match = await opened(id)
        player = match.join(conn.session.id, name_of(conn))
    except NotNow as error:
        conn.close(1013, str(error))
        return
    except NoSuchMatch:
        conn.close(1008, "no such match")
        return
    except MatchFull:
        conn.close(FULL, "the match is full")
        return
    for other in connections(room(id)):
        if other.session.id == conn.session.id:
            other.close(ELSEWHERE, "you play in another window now")
    conn.join(room(id))  # not awaited: what is published for it comes from this worker alone
    unheld.discard(id)
    served = {"slot": app.slot, "workers": app.workers, "pid": os.getpid()}
    conn.send({"type": "welcome", "you": player.ship, "sequence": player.newest_sequence} | served)
    app.room(room(id)).publish_local(match.roster())


async def opened(id: str) -> Match:
    """The match as it is in memory, else as its last checkpoint says, else, if a lobby has minted its id, a new one.

    Raises `NotNow` and `NoSuchMatch`.
    """
    if id in matches:
        return matches[id]
    if len(matches) >= MAX_MATCHES:
        raise NotNow("too many matches")
    try:
        data = await store.open(id)
    except RedisError as error:
        raise NotNow("nobody knows whether this match has begun") from error
    if id not in matches:  # nobody was quicker
        if len(matches) >= MAX_MATCHES:  # by now
            raise NotNow("too many matches")
        matches[id] = Match() if data is None else Match.unpacked(data)
    return matches[id]


@app.on_message("/match/{id}")
def said(conn: Connection, message: Any, id: str) -> None:
    player = matches[id].players.get(conn.session.id) if id in matches else None
    if player is None:
        conn.close(1012, "the match is not here any more")
        return
    player.heard += 1
    if player.heard > MAX_HEARD:
        conn.close(1008, "too many messages")
        return
    match message:
        case {"type": "input", "seq": int(n), "do": [bool(thrust), -1 | 0 | 1 as turn, bool(fire)], **more} if not more:
            player.steer(n, Controls(thrust, turn, fire))
        case {"type": "ping", "at": int() | float() as at, **more} if not more:
            conn.send({"type": "pong", "at": at})
        case _:
            conn.close(1008, "a message that this game does not know")


@app.every(seconds=STEP_SECONDS)
def advance(tick: Tick) -> None:
    """The tick: no Redis, nothing to wait for. What a blocked loop left out is not made up for: nobody jumps."""
    told = {"late": round(tick.late_seconds * 1000, 2), "skipped": tick.skipped, "slot": app.slot}
    for id, match in matches.items():
        match.step()
        app.room(room(id)).publish_local(match.snapshot() | told)


@app.every(seconds=1)
def look_round() -> None:
    """Who is here. Apart from `keep`, which may wait for Redis: that is no player's fault."""
    for id, match in tuple(matches.items()):
        present = connections(room(id))
        if match.noted({conn.session.id for conn in present}, seconds=1.0):
            app.room(room(id)).publish_local(match.roster())
        for conn in present:
            if conn.session.id not in match.players:
                conn.close(IDLE, "you did nothing for so long: come again")
        if not match.players:
            del matches[id]
            ended.add(id)
    for conn in connections("lobby"):
        conn.state["asked"] = max(0, conn.state.get("asked", 0) - ASKED_A_SECOND)
    app.report(matches=len(matches), players=sum(len(match.players) for match in matches.values()))


@app.every(seconds=1)
async def keep() -> None:
    """What Redis is to know, and what it knows of others."""
    try:
        await save()
        await store.exchange(matches, directory)
    except RedisError as error:
        app.report(redis=type(error).__name__)  # seen in `stickygw status`; the matches go on
        return
    app.report(redis=None)
    app.room("lobby").publish_local(directory.listing())


async def save() -> None:
    """Write down what is ours, and hold what somebody is in. A match that another worker has is dropped: this one stood
    still, or Redis was away, or nobody was in it here and somebody came there."""
    ended.difference_update(matches)  # begun again
    empty = nobody_in()
    unheld.intersection_update(empty)
    empty.difference_update(moved_here)  # its players follow
    over, moved, ours = tuple(ended), tuple(moved_here), matches.keys() - unheld
    lost = await store.claim([*ours, *over], moved_here=moved, unheld=tuple(unheld))
    moved_here.difference_update(moved)
    for id in lost & matches.keys():  # what has moved away meanwhile is neither here nor lost
        drop(id)
    await store.save({id: matches[id] for id in ours & matches.keys()}, set(over) - lost - matches.keys())
    ended.difference_update(over)
    left = ours & empty & nobody_in()
    await store.release(left)
    unheld.update(left & nobody_in())


def nobody_in() -> set[str]:
    """Matches without a connection. Their ships drift here until `AWAY_SECONDS` are over."""
    return {id for id in matches if not connections(room(id))}


def drop(id: str) -> None:
    """Its players find it where it goes on."""
    del matches[id]
    unheld.discard(id)
    for conn in connections(room(id)):
        conn.close(1012, "the match is at another worker")


@app.on_start
async def look_abroad() -> None:
    with suppress(RedisError):  # `keep` looks again in a second
        await store.exchange(matches, directory)


@app.on_stop
async def save_all() -> None:
    """What has not moved to another worker is resumed by whoever opens it next."""
    await save()
    await store.release(matches.keys() - unheld)


# ---------------------------------------------------------------- a match that moves to the slot's next worker


@app.on_key_out
def let_go(id: str) -> bytes | None:
    """The match is at rest: from here on it ticks in the next worker. One that nobody is in is left to whoever opens
    it, for another worker may have it by now."""
    match = matches.pop(id, None)
    moved_here.discard(id)
    if id in unheld and not connections(room(id)):
        match = None
    unheld.discard(id)
    return match.packed() if match else None


@app.on_key_in
def take_over(id: str, state: bytes | None) -> None:
    """The same match, in a worker that may run newer code."""
    if state is not None:
        matches[id] = Match.unpacked(state)
        moved_here.add(id)
        unheld.discard(id)


# ---------------------------------------------------------------- the lobby


@app.on_connect("/lobby")
def look(conn: Connection) -> None:
    conn.join("lobby")
    conn.send({"type": "you", "name": name_of(conn), "gateway": app.gateway_id})
    conn.send(directory.listing())


@app.on_message("/lobby")
async def asked(conn: Connection, message: Any) -> None:
    conn.state["asked"] = conn.state.get("asked", 0) + 1
    if conn.state["asked"] > MAX_ASKED:
        conn.close(1008, "too many messages")
        return
    match message:
        case {"type": "new", **more} if not more:
            try:
                conn.send({"type": "minted", "id": await store.mint()})
            except RedisError:
                conn.close(1013, "no match can begin now: come again")
        case {"type": "where", "id": str(id), **more} if not more:  # a page is not shown the 421 of a WebSocket
            conn.send({"type": "there", "here": app.minted_here(id), "url": directory.url_of(id)})
        case {"type": "name", "name": str(name), **more} if not more and name.strip():
            conn.session["name"] = name.strip()[:24]  # a name that stays is not written
            conn.send({"type": "you", "name": conn.session["name"], "gateway": app.gateway_id})
        case _:
            conn.close(1008, "a message that this lobby does not know")
