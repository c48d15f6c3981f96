"""What the game keeps in Redis, once a second and never in a tick: checkpoints, the directory, the best scores.

Every method raises `redis.exceptions.RedisError` while Redis is away.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping

from directory import LEASE_SECONDS, Directory, Entry
from match import FORMAT, Match

from stickygw import App

CHECKPOINT_SECONDS = 60
"""How long a match can be resumed whose worker, or gateway, has ended."""

KEPT_SCORES, SHOWN_SCORES = 100, 10


class Store:
    """`app` gives the Redis, and names the keys."""

    def __init__(self, app: App) -> None:
        self._app = app

    @property
    def worker(self) -> str:
        """What this one is called in the `Directory`."""
        return f"{self._app.gateway_id}/{self._app.slot}"

    async def checkpoint(self, id: str) -> bytes | None:
        """The match's last one; None: it is new, or over."""
        data: bytes | None = await self._app.redis.get(self._checkpoint_key(id))
        return data

    async def save(self, matches: Mapping[str, Match], ended: Iterable[str] = ()) -> None:
        """A checkpoint of each of `matches`, none of those that have `ended`, and the scores."""
        pipeline = self._app.redis.pipeline(transaction=False)
        for id, match in matches.items():
            pipeline.set(self._checkpoint_key(id), match.packed(), ex=CHECKPOINT_SECONDS)
        for id in ended:
            pipeline.delete(self._checkpoint_key(id))
        best = {
            tag(session, name): score
            for match in matches.values()
            for session, (name, score) in match.scores().items()
            if score
        }
        if best:
            pipeline.zadd(self._scores_key, best, gt=True)
            pipeline.zremrangebyrank(self._scores_key, 0, -KEPT_SCORES - 1)
        await pipeline.execute()

    async def exchange(self, matches: Mapping[str, Match], directory: Directory) -> None:
        """Tell the others of `matches`, and read into `directory` what they tell."""
        app, now = self._app, time.time()
        own = [(id, len(match.players)) for id, match in matches.items()]
        entry = Entry(now + LEASE_SECONDS, app.public_url, app.slot, own)
        pipeline = app.redis.pipeline(transaction=False)
        pipeline.hset(self._directory_key, self.worker, entry.packed())
        pipeline.hgetall(self._directory_key)
        pipeline.zrevrange(self._scores_key, 0, SHOWN_SCORES - 1, withscores=True)
        _, fields, scores = await pipeline.execute()
        directory.scores = [(who.decode(), int(score)) for who, score in scores]
        forgotten = directory.read(fields, now=now)
        if forgotten:
            await app.redis.hdel(self._directory_key, *forgotten)

    def _checkpoint_key(self, id: str) -> str:
        return self._app.redis_key(f"game:match:{FORMAT}:{id}")  # what older code has written is not even seen

    @property
    def _directory_key(self) -> str:
        return self._app.redis_key("game:matches")

    @property
    def _scores_key(self) -> str:
        return self._app.redis_key("game:scores")


def tag(session: str, name: str) -> str:
    """A name for the table of scores, which two pilots of one name do not share. It gives no session id away."""
    return f"{name}#{hashlib.sha256(session.encode()).hexdigest()[:4]}"
