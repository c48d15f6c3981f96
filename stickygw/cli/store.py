"""Is Redis there? Asked once, before anything is started, so that a wrong URL is one clear line."""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue

from stickygw.config.redacted import line_of, redacted
from stickygw.errors import StoreError

ANSWER_SECONDS = 3.0


def require_redis(url: str, *, origin: str) -> None:
    """Raise `StoreError` unless the Redis at `url` answers a PING within `ANSWER_SECONDS`.

    `origin` says who gave the URL. The password never shows.
    """
    # In a thread: a socket's time limit bounds neither looking up a name nor trying several addresses of it.
    outcome: SimpleQueue[str | None] = SimpleQueue()
    threading.Thread(target=lambda: outcome.put(_failure(url)), daemon=True).start()
    try:
        failure = outcome.get(timeout=ANSWER_SECONDS)
    except Empty:
        failure = f"no answer within {ANSWER_SECONDS:g} s"
    if failure is not None:
        raise StoreError(f"redis.url: cannot use the Redis at {redacted(url)} (from {origin}): {failure}")


def _failure(url: str) -> str | None:
    """Why the Redis at `url` gives no answer; None: it does."""
    from redis import Redis, RedisError
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    try:
        with Redis.from_url(
            url,
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
        ) as client:
            client.ping()
    except (RedisError, OSError, ValueError, TypeError) as error:  # TypeError: ?unknown=option in the URL
        return line_of(error)
    return None
