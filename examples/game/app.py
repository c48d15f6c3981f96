"""A small arena game. Each match lives in the memory of one worker, which all its players reach:

    stickygw run examples/game/app.py:app --key "path:/match/{id}" --key cookie --workers 2

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
from store import Store

from stickygw import App, Connection, Refuse, Request, Session, Tick

MAX_MATCHES = 200
"""Of one worker."""

FULL, ELSEWHERE = 4001, 4002
"""Close codes of our own: it makes no sense to come again by oneself."""

app = App(codec="msgpack", static=Path(__file__).parent / "page")
matches: dict[str, Match] = {}
ended: set[str] = set()
"""Matches that are over, and of which Redis still has a checkpoint."""

directory = Directory()
store = Store(app)


def room(id: str) -> str:
    return f"match:{id}"


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
    if id not in matches and len(matches) >= MAX_MATCHES:
        raise Refuse(503, "too many matches")


@app.on_connect("/match/{id}")
async def enter(conn: Connection, id: str) -> None:
    if conn.key != id:  # then other players of the match may be at another worker
        conn.close(1008, 'not routed by the id of its match: start with --key "path:/match/{id}"')
        return
    try:
        match = await opened(id)
        player = match.join(conn.session.id, name_of(conn))
    except NotNow as error:
        conn.close(1013, f"{error}: come again")
        return
    except MatchFull:
        conn.close(FULL, "the match is full")
        return
    for other in app.room(room(id)).local_members:
        if isinstance(other, Connection) and other.session.id == conn.session.id:
            other.close(ELSEWHERE, "you play in another window now")
    conn.join(room(id))  # not awaited: what is published for it comes from this worker alone
    served = {"slot": app.slot, "workers": app.workers, "pid": os.getpid()}
    conn.send({"type": "welcome", "you": player.ship, "sequence": player.newest_sequence} | served)
    app.room(room(id)).publish_local(match.roster())


class NotNow(Exception):
    """A match cannot be opened here now; the text says why."""


async def opened(id: str) -> Match:
    """The match as it is in memory, else as its last checkpoint says, else a new one. Raises `NotNow`."""
    if id in matches:
        return matches[id]
    if directory.has(id, besides=store.worker):  # that one stalls, perhaps: two of one match would be worse than a wait
        raise NotNow("another worker has this match")
    try:
        data = await store.checkpoint(id)
    except RedisError as error:
        raise NotNow("nobody knows whether this match has begun") from error
    if id not in matches:  # nobody was quicker
        if len(matches) >= MAX_MATCHES:
            raise NotNow("too many matches")
        matches[id] = Match() if data is None else Match.unpacked(data)
    return matches[id]


@app.on_message("/match/{id}")
def said(conn: Connection, message: Any, id: str) -> None:
    player = matches[id].players.get(conn.session.id) if id in matches else None
    if player is None:
        conn.close(1012, "the match is not here any more: come again")
        return
    player.heard += 1
    if player.heard > MAX_HEARD:
        conn.close(1008, "too many messages")
        return
    match message:
        case {"type": "input", "seq": int(sequence), "do": [bool(thrust), -1 | 0 | 1 as turn, bool(fire)]}:
            player.steer(sequence, Controls(thrust, turn, fire))
        case {"type": "ping", "at": int() | float() as at}:
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
        members = app.room(room(id)).local_members
        present = {member.session.id for member in members if isinstance(member, Connection)}
        if match.noted(present, seconds=1.0):
            app.room(room(id)).publish_local(match.roster())
        if not match.players:
            del matches[id]
            ended.add(id)
    app.report(matches=len(matches), players=sum(len(match.players) for match in matches.values()))


@app.every(seconds=1)
async def keep() -> None:
    """What Redis is to know, and what it knows of others."""
    ended.difference_update(matches)  # begun again
    over = tuple(ended)
    try:
        await store.save(matches, over)
        ended.difference_update(over)
        await store.exchange(matches, directory)
    except RedisError as error:
        app.report(redis=type(error).__name__)  # seen in `stickygw status`; the matches go on
        return
    app.report(redis=None)
    app.room("lobby").publish_local(directory.listing())


@app.on_start
async def look_abroad() -> None:
    with suppress(RedisError):  # `keep` looks again in a second
        await store.exchange(matches, directory)


@app.on_stop
async def save_all() -> None:
    """What has not moved to another worker is resumed by whoever opens it next."""
    await store.save(matches)


# ---------------------------------------------------------------- a match that moves to the slot's next worker


@app.on_key_out
def let_go(id: str) -> bytes | None:
    """It is held: from here on it ticks in the next worker."""
    match = matches.pop(id, None)
    return match.packed() if match else None


@app.on_key_in
def take_over(id: str, state: bytes | None) -> None:
    """The same match, in a worker that may run newer code."""
    if state is not None:
        matches[id] = Match.unpacked(state)


# ---------------------------------------------------------------- the lobby


@app.on_connect("/lobby")
def look(conn: Connection) -> None:
    conn.join("lobby")
    conn.send({"type": "you", "name": name_of(conn), "gateway": app.gateway_id})
    conn.send(directory.listing())


@app.on_message("/lobby")
def asked(conn: Connection, message: Any) -> None:
    match message:
        case {"type": "new"}:
            conn.send({"type": "minted", "id": app.mint_id()})
        case {"type": "where", "id": str(id)}:  # a page is not shown the 421 of a WebSocket, nor its Location
            conn.send({"type": "there", "here": app.minted_here(id), "url": directory.url_of(id)})
        case {"type": "name", "name": str(name)} if name.strip():
            conn.session["name"] = name.strip()[:24]
            conn.send({"type": "you", "name": conn.session["name"], "gateway": app.gateway_id})
        case _:
            conn.close(1008, "a message that this lobby does not know")
