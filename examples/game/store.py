"""What the game keeps in Redis, and never in a tick: whose a match is, its checkpoint, the directory, the best scores.

Every method raises `redis.exceptions.RedisError` while Redis is away.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from directory import BELIEVED_SECONDS, Directory, Entry
from match import FORMAT, Match

from stickygw import App

if TYPE_CHECKING:
    from redis.asyncio.client import Pipeline

LEASE_SECONDS = 15
"""How long a match stays its worker's that says nothing. Longer than one that stands still is let live
(`heartbeat_timeout`) and takes to be ended: before that, nobody else begins its matches."""

CHECKPOINT_SECONDS = 60
"""How long a match can be resumed whose worker, or gateway, has ended."""

MINTED_SECONDS = 60
"""How long a match may be begun after its id was minted."""

KEPT_SCORES, SHOWN_SCORES = 100, 10


class NotNow(Exception):
    """A match cannot be opened here now; the text says why."""


class NoSuchMatch(Exception):
    """It is over, or somebody has made up its id."""


class Store:
    """`app` gives the Redis, and names the keys."""

    def __init__(self, app: App) -> None:
        self._app = app

    @property
    def worker(self) -> str:
        """What this one is called: ``GATEWAY/SLOT``. The slot's next process is the same worker."""
        return f"{self._app.gateway_id}/{self._app.slot}"

    async def mint(self) -> str:
        """The id of a match that may be begun."""
        id = self._app.mint_id()
        await self._app.redis.set(self._minted_key(id), 1, ex=MINTED_SECONDS)
        return id

    async def open(self, id: str) -> bytes | None:
        """Claim the match for this worker; its last checkpoint, None if it begins.

        Raises `NoSuchMatch`, and `NotNow` as long as another worker has it.
        """
        keys = self._minted_key(id), self._owner_key(id), self._checkpoint_key(id)
        if not await self._app.redis.exists(*keys):  # asked first: of an id that is made up nothing is kept
            raise NoSuchMatch
        pipeline = self._pipeline()
        self._claim(pipeline, id)
        pipeline.get(self._checkpoint_key(id))
        _, owner, data = await pipeline.execute()
        if owner != self.worker.encode():
            raise NotNow("another worker has this match")
        checkpoint: bytes | None = data
        return checkpoint

    async def claim(
        self, ids: Collection[str], *, moved_here: Collection[str], unheld: Collection[str] = ()
    ) -> set[str]:
        """Claim those of `ids` that nobody has, and whoever had it each that has `moved_here`. Those are returned, of
        `unheld` too, that another worker has."""
        pipeline = self._pipeline()
        for id in ids:
            self._claim(pipeline, id, has_moved=id in moved_here)
        for id in unheld:
            pipeline.get(self._owner_key(id))
        answers = await pipeline.execute()
        owners = [*answers[1 : 2 * len(ids) : 2], *answers[2 * len(ids) :]]
        nobody_or_us = (None, self.worker.encode())
        return {id for id, owner in zip([*ids, *unheld], owners, strict=True) if owner not in nobody_or_us}

    async def save(self, matches: Mapping[str, Match], ended: Iterable[str] = ()) -> None:
        """A checkpoint of each of `matches` and the scores; nothing is kept of those that have `ended`.

        All must have been claimed just now, and stay claimed for `LEASE_SECONDS` more.
        """
        pipeline = self._pipeline()
        for id, match in matches.items():
            pipeline.set(self._checkpoint_key(id), match.packed(), ex=CHECKPOINT_SECONDS)
            pipeline.expire(self._owner_key(id), LEASE_SECONDS)
        for id in ended:
            pipeline.delete(self._minted_key(id), self._checkpoint_key(id), self._owner_key(id))
        self._add_scores(pipeline, matches)
        *_, too_low = await pipeline.execute()
        if too_low:
            pipeline.zrem(self._best_key, *too_low)
            pipeline.hdel(self._names_key, *too_low)
            await pipeline.execute()

    async def release(self, ids: Collection[str]) -> None:
        """They are nobody's: whoever opens one next need not wait until our claim ends by itself. Code that cannot read
        its checkpoint, which is of another `FORMAT`, begins it anew."""
        pipeline = self._pipeline()
        for id in ids:
            pipeline.set(self._minted_key(id), 1, ex=CHECKPOINT_SECONDS)
            pipeline.delete(self._owner_key(id))
        await pipeline.execute()

    async def exchange(self, matches: Mapping[str, Match], directory: Directory) -> None:
        """Tell the others of `matches`, and read into `directory` what they tell."""
        app, now = self._app, time.time()
        own = [(id, len(match.players)) for id, match in matches.items()]
        entry = Entry(now + BELIEVED_SECONDS, app.public_url, app.slot, own)
        pipeline = self._pipeline()
        pipeline.hset(self._directory_key, self.worker, entry.packed())
        pipeline.hgetall(self._directory_key)
        pipeline.zrevrange(self._best_key, 0, SHOWN_SCORES - 1, withscores=True)
        _, fields, best = await pipeline.execute()
        forgotten = directory.read(fields, now=now)
        if forgotten:
            await app.redis.hdel(self._directory_key, *forgotten)
        names = await app.redis.hmget(self._names_key, [pilot for pilot, _ in best]) if best else []
        directory.scores = [
            (f"{name.decode()}#{pilot[:4].decode()}", int(score))
            for (pilot, score), name in zip(best, names, strict=True)
            if name is not None  # it has just fallen out of the table
        ]

    def _pipeline(self) -> Pipeline:
        return self._app.redis.pipeline(transaction=False)

    def _claim(self, pipeline: Pipeline, id: str, *, has_moved: bool = False) -> None:
        """Two commands, of which the second one answers whose it is."""
        pipeline.set(self._owner_key(id), self.worker, ex=LEASE_SECONDS, nx=not has_moved)
        pipeline.get(self._owner_key(id))

    def _add_scores(self, pipeline: Pipeline, matches: Mapping[str, Match]) -> None:
        """The last command answers which pilots are too low for the table."""
        names: dict[str, str] = {}
        best: dict[str, int] = {}
        for match in matches.values():
            for session, (name, score) in match.scores().items():
                if score:
                    names[pilot(session)] = name
                    best[pilot(session)] = max(score, best.get(pilot(session), 0))
        if best:
            # Names are written before scores and removed after them: whatever others do between, none is left over.
            pipeline.hset(self._names_key, mapping=names)
            pipeline.zadd(self._best_key, best, gt=True)
        pipeline.zrange(self._best_key, 0, -KEPT_SCORES - 1)

    def _minted_key(self, id: str) -> str:
        return self._app.redis_key(f"game:minted:{id}")

    def _owner_key(self, id: str) -> str:
        return self._app.redis_key(f"game:owner:{id}")

    def _checkpoint_key(self, id: str) -> str:
        return self._app.redis_key(f"game:match:{FORMAT}:{id}")  # what older code has written is not even seen

    @property
    def _directory_key(self) -> str:
        return self._app.redis_key("game:matches")

    @property
    def _best_key(self) -> str:
        return self._app.redis_key("game:best")

    @property
    def _names_key(self) -> str:
        return self._app.redis_key("game:names")


def pilot(session: str) -> str:
    """What the player of that session is in the table of scores, however they call themselves: it gives no session id
    away."""
    return hashlib.sha256(session.encode()).hexdigest()[:16]
