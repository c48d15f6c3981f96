"""What a running application knows of its gateway among others, and of the store that they share: `InGateway`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stickygw.apps.native.minted import mint, minter_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from stickygw.apps.native.runtime import Runtime
    from stickygw.types import GatewayId


class InGateway:
    """A part of `App`. All of it raises `RuntimeError` outside a worker."""

    @property
    def runtime(self) -> Runtime:
        """What runs the application: `App` has it. Raises `RuntimeError` outside a worker."""
        raise NotImplementedError

    @property
    def gateway_id(self) -> GatewayId:
        """8 hex digits: which gateway this is, of those that share a Redis. The same in all its workers."""
        return self.runtime.identity.gateway

    @property
    def public_url(self) -> str | None:
        """The setting ``public_url``: where clients reach this gateway and no other. None: not set."""
        return self.runtime.settings.public_url

    def mint_id(self) -> str:
        """A new id that says which gateway has minted it: `gateway_id`, a dot and 128 random bits, URL-safe."""
        return mint(self.gateway_id)

    def minted_here(self, id: str) -> bool:
        """Whether `id` is of `mint_id`'s form and names this gateway. It is not signed: a client may have made it up.
        If not, ``on_handshake`` can send its client elsewhere: `Refuse.misdirected`."""
        return minter_of(id) == self.gateway_id

    # In Redis

    @property
    def redis(self) -> Redis:
        """A client of the gateway's Redis, the embedded Valkey too, for what the application itself keeps there.

        It is a `redis.asyncio.Redis` of this worker's, connects when it is used, and is closed after ``on_stop``. Its
        answers are bytes. What is not there within ``redis.timeout`` seconds raises `redis.exceptions.RedisError`, and
        nothing is retried: for blocking commands and subscriptions make a client of your own. Call all keys
        by `redis_key`. Raises `OutsideGateway` in an `AppClient` without ``redis_url=``.
        """
        return self.runtime.own_redis.client

    def redis_key(self, name: str) -> str:
        """The key called `name` in Redis: ``<redis.prefix>:app:<name>``, which nothing of the gateway's has. Gateways
        that share the prefix share it. Raises `ValueError` for no name."""
        return self.runtime.own_redis.key(name)
