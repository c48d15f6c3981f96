"""`SessionMiddleware`: sessions for any ASGI application, with a gateway or without."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

from pydantic import ValidationError
from redis.asyncio.connection import parse_url

from stickygw.config.checks import MAKE_SECRET, host_prefix_problems, touch_interval_problems
from stickygw.config.settings import CookieSettings, RedisSettings, SessionSettings
from stickygw.errors import OutsideGateway, SessionEnded, SessionUnavailable, SettingsError
from stickygw.middleware.client import Client, CookieClient, GatewayClient
from stickygw.middleware.cookies import Cookies
from stickygw.middleware.exchange import Exchange, Message, Receive, Scope, Send
from stickygw.middleware.standalone import Standalone
from stickygw.routing.cookie import CookieKeys
from stickygw.routing.set_cookie import CookieOptions
from stickygw.sessions.base import SessionStore
from stickygw.sessions.request_session import RequestSession
from stickygw.sessions.service import SessionService
from stickygw.sessions.visit import visiting

log = logging.getLogger("stickygw.sessions")

AsgiApp = Callable[[Scope, Receive, Send], Any]

_OPTIONS = {"name": "cookie_name"}
"""How settings are called here that have another name in a gateway."""

_NO_URL = (
    'not the URL of a Redis or Valkey, as in "redis://user:password@host:6379/0"; "/", "?", "#", "@", ":" and "%" in '
    "a password are written percent-encoded"
)

_ENDS = ("lifespan.shutdown.complete", "lifespan.shutdown.failed")


class SessionMiddleware:
    """Makes ``scope["session"]`` a `RequestSession`: it is Starlette's ``request.session`` and ``websocket.session``.

    In an application that `stickygw run` serves it needs no arguments: store, cookie and `Session` object are the
    gateway's. Elsewhere `secret` and `store` are needed:

    * `secret`: what signs the cookies, at least 32 bytes, or several, of which the first signs and all are accepted.
    * `store`: the URL of a Redis or Valkey, or a `SessionStore`, be it a `MemorySessionStore` for one process alone.
    * `prefix`: the first part of every key; `timeout`: seconds for one call to the store, in both cases for a URL.
    * `ttl`: seconds a session is kept after its last use. `lifetime`: seconds after which its cookie ends, used or not.
      `touch_interval`: seconds in which its life is extended at most once; None: a quarter of `ttl`, at most 60.
    * `store_down`: what becomes of changes while the store is away: they are refused, or queued in this process.
    * `cookie_name`, `domain`, `path`, `same_site`, `partitioned`: the cookie's. `https_only`: whether it is Secure;
      None: as the scheme of each request says, for which a server behind a proxy has to know the proxy.

    `autoload`: whether a session is loaded before the application is called, of all requests or of those for whose
    scope it says so. Otherwise a handler does it: ``await request.session.load()``. A request without a session, or
    with one that is in memory and current, needs no round trip in either case.

    With the store away a request whose session has to be loaded is answered 503 with Retry-After, and so is one whose
    changes could be neither saved nor queued, in the place of its own answer: they are given up. A request that wrote
    to a session which ended meanwhile is answered 409. Raises `SettingsError` for what is not allowed.
    """

    def __init__(
        self,
        app: AsgiApp,
        *,
        secret: str | Sequence[str] = (),
        store: str | SessionStore | None = None,
        prefix: str = "stickygw",
        timeout: float = 1.0,
        ttl: int = 14 * 86_400,
        lifetime: int = 90 * 86_400,
        touch_interval: float | None = None,
        store_down: Literal["refuse", "queue"] = "refuse",
        cookie_name: str = "stickygw",
        domain: str | None = None,
        path: str = "/",
        same_site: Literal["Lax", "Strict", "None"] = "Lax",
        partitioned: bool = False,
        https_only: bool | None = None,
        autoload: bool | Callable[[Scope], bool] = True,
    ) -> None:
        self._app = app
        self._autoload = autoload if callable(autoload) else lambda scope: autoload
        self._cookies: Cookies | None = None
        self._standalone: Standalone | None = None
        if not secret and store is None:
            return  # a gateway's are used
        if store is None:
            raise SettingsError(
                'store: needed beside secret; the URL of a Redis or Valkey ("redis://…"), or a SessionStore'
            )
        try:
            if isinstance(store, str):
                parse_url(store)
        except ValueError:  # whose text may have a part of the password
            raise SettingsError(f"store: {_NO_URL}") from None
        try:
            cookie = CookieSettings(
                name=cookie_name, domain=domain, path=path, same_site=same_site, partitioned=partitioned
            )
            session = SessionSettings(ttl=ttl, lifetime=lifetime, touch_interval=touch_interval, store_down=store_down)
            redis = RedisSettings(prefix=prefix, timeout=timeout)
        except ValidationError as error:
            raise _settings_error(error) from None
        if problems := [*host_prefix_problems(cookie), *touch_interval_problems(session)]:
            raise SettingsError("\n".join(f"{name}: allowed: {allowed}" for name, _, allowed in problems))
        try:
            keys = CookieKeys([one.encode() for one in ([secret] if isinstance(secret, str) else secret)])
        except ValueError as error:
            raise SettingsError(f"secret: {error}; make one with {MAKE_SECRET}") from None
        options = CookieOptions(cookie_name, domain, path, same_site, partitioned)
        self._cookies = Cookies(keys, options, lifetime, is_secure=https_only)
        self._standalone = Standalone(lambda: _service(store, redis, session))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] in ("http", "websocket"):
            client = self._client_of(scope)
            await self._serve(scope, Exchange(scope, receive, send, client), client.session)
        elif scope["type"] == "lifespan":
            try:
                await self._app(scope, receive, self._ending(send))
            finally:
                await self._stop()
        else:
            await self._app(scope, receive, send)

    def _client_of(self, scope: Scope) -> Client:
        visit = visiting.get(None)
        if visit is not None:
            return GatewayClient(visit)
        if self._cookies is None or self._standalone is None:
            raise OutsideGateway(
                "without a gateway SessionMiddleware has to know what signs the cookies, and where sessions are kept: "
                'add_middleware(SessionMiddleware, secret=…, store="redis://…")'
            )
        return CookieClient(scope, self._cookies, self._standalone.sessions())

    async def _serve(self, scope: Scope, exchange: Exchange, session: RequestSession) -> None:
        if not session.is_known or self._autoload(scope):
            try:
                await session.load()
            except (SessionUnavailable, SessionEnded) as error:
                log.warning("a request is refused: %s", error)
                await exchange.refuse(error)
                return
        scope["session"] = session
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except BaseException:
            await exchange.finish_after_error()
            raise
        else:
            await exchange.finish()
        finally:
            try:
                session.release()
            finally:
                await exchange.end()

    def _ending(self, send: Send) -> Send:
        """`send` of a lifespan: the sessions end behind the application, and before the server may go."""

        async def sending(message: Message) -> None:
            if message["type"] in _ENDS:
                await self._stop()
            await send(message)

        return sending

    async def _stop(self) -> None:
        if self._standalone is not None:
            await self._standalone.stop()


def _service(store: str | SessionStore, redis: RedisSettings, session: SessionSettings) -> SessionService:
    if isinstance(store, str):
        return SessionService.over_redis(store, prefix=redis.prefix, timeout=redis.timeout, settings=session)
    return SessionService(store, timeout=redis.timeout, settings=session)


def _settings_error(error: ValidationError) -> SettingsError:
    """Without the values: one of them may be a secret."""
    problems = [(_OPTIONS.get(str(problem["loc"][0]), problem["loc"][0]), problem["msg"]) for problem in error.errors()]
    return SettingsError("\n".join(f"{option}: {message}" for option, message in problems))
