"""Every setting: its name, meaning, unit, default and bounds. Values come from `stickygw.config.sources`.

The names are the same everywhere: ``header_timeout`` in a file is ``STICKYGW_HEADER_TIMEOUT`` in the
environment and ``--set header_timeout=…`` on the command line; ``[redis] url`` is ``STICKYGW_REDIS_URL``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from stickygw.types import MAX_SLOTS, PREFIX_PATTERN, SlowConsumer


def _listed(value: Any) -> Any:
    """A list written as one text, as a variable has to: a JSON array, or entries with commas between them."""
    if not isinstance(value, str):
        return value
    try:
        entries = json.loads(value)
    except ValueError:
        entries = None  # "[::1]:8000" is no JSON either
    if isinstance(entries, list):
        return entries
    return [entry.strip() for entry in value.split(",") if entry.strip()]


_Entry = TypeVar("_Entry")
Listed = Annotated[tuple[_Entry, ...], BeforeValidator(_listed)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Bytes = Annotated[int, Field(gt=0, le=1 << 30)]

_DOMAIN = r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"
"""A host name of two labels or more, since browsers set no cookie for a whole top-level domain; no address."""


class _Section(BaseModel):
    # The input is hidden: pydantic's own messages would quote a secret.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class RedisSettings(_Section):
    """Where sessions and rooms live."""

    url: SecretStr | None = Field(
        default=None,
        description=(
            "Redis or Valkey: redis://…, rediss://… (TLS) or unix://…; without one, an embedded Valkey "
            "is started, for one machine."
        ),
    )
    prefix: str = Field(
        default="stickygw",
        pattern=PREFIX_PATTERN,
        description=(
            "The first part of every key and channel; gateways that share a Redis and a prefix share "
            "rooms and sessions."
        ),
    )
    sign: bool = Field(
        default=True,
        description=(
            "Sign what goes through rooms with the secret, and take only what is signed so: nobody else who publishes "
            "in that Redis is believed."
        ),
    )
    timeout: Seconds = Field(
        default=1.0,
        description=(
            "Seconds that one command of the session store may take before the store counts as away; the rooms' "
            "bridge has waits of its own."
        ),
    )


class CookieSettings(_Section):
    """The signed cookie that carries session id and slot."""

    name: str = Field(
        default="stickygw",
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        description="The cookie's name. Cookies ignore ports: two gateways on one host want two names.",
    )
    domain: Annotated[str, Field(pattern=_DOMAIN, max_length=253)] | None = Field(
        default=None,
        description=(
            "The cookie's Domain attribute: this domain and all below it get the cookie, and each of them can plant "
            "one; none: only the host that set it."
        ),
    )
    path: str = Field(
        default="/",
        pattern=r"^/[!-:<-~]*$",
        max_length=1024,
        description="The cookie's Path attribute: requests of other paths come without it, WebSockets too.",
    )
    same_site: Literal["Lax", "Strict", "None"] = Field(
        default="Lax",
        description=(
            'The cookie\'s SameSite attribute. "None", for pages of other sites, needs TLS in front: trusted_proxies, '
            "or a name that begins with __Host- or __Secure-."
        ),
    )
    partitioned: bool = Field(
        default=False,
        description=(
            "The cookie's Partitioned attribute: one session for each site in whose pages ours are embedded. Needs TLS "
            "in front, as same_site None does."
        ),
    )


class SessionSettings(_Section):
    """How long a session lives, and what becomes of its changes while its store is away."""

    ttl: Annotated[int, Field(gt=0)] = Field(
        default=14 * 86_400, description="Seconds a session is kept after its last use (rolling)."
    )
    lifetime: Annotated[int, Field(gt=0)] = Field(
        default=90 * 86_400,
        description="Seconds after which a session's cookie ends, used or not (absolute).",
    )
    touch_interval: Annotated[float, Field(ge=0.1)] | None = Field(
        default=None,
        description=(
            "Seconds in which a session that is in use has its life extended at most once, below ttl; none: a quarter "
            "of ttl, at most 60."
        ),
    )
    store_down: Literal["refuse", "queue"] = Field(
        default="refuse",
        description=(
            "What becomes of changes to a session while its store is away: refuse: saving fails, and they are tried "
            "again after the next handler; queue: up to 1000 sessions of each worker are kept in memory until the "
            "store takes them, and lost, counted and logged, if the worker ends before. Either way a client whose "
            "session is not in memory gets a 503."
        ),
    )
    token: bool = Field(
        default=False,
        description=(
            "For clients without a cookie jar: take the cookie's value as ?session=VALUE too, but not where a document "
            "is loaded, or as the subprotocol stickygw.session.VALUE, beside one that is spoken. The application does "
            "not see either."
        ),
    )


class Settings(_Section):
    """All settings of one gateway."""

    bind: Listed[str] = Field(
        default=("127.0.0.1:8000",),
        min_length=1,
        description=("Addresses to listen on: HOST:PORT, [IPv6]:PORT or unix:/path. Port 0 lets the system choose."),
    )
    workers: Annotated[int, Field(ge=1, le=MAX_SLOTS)] | Literal["auto", "auto-1"] = Field(
        default="auto",
        description=(
            'Worker processes, each with a slot of its own; "auto": one for each CPU this process may use, by its '
            'affinity mask and its control group\'s quota; "auto-1": one fewer, at least 1.'
        ),
    )
    keys: Listed[str] = Field(
        default=("cookie",),
        min_length=1,
        description=(
            "Affinity keys, tried in order: cookie, cookie:NAME, header:NAME, query:NAME, path:/pattern/{part}, ip."
        ),
    )
    learn: Listed[str] = Field(
        default=(),
        description=(
            "Ids that the application mints and its clients send from then on: engineio, header:NAME, cookie:NAME. The "
            "worker that mints one keeps who brings it; each implies its key."
        ),
    )
    first_visit: Literal["least_loaded", "round_robin", "ip"] = Field(
        default="least_loaded",
        description="Which slot a client without any key gets; least_loaded: the better of two random ones.",
    )
    balance_by: Listed[str] = Field(
        default=("connections", "lag"),
        min_length=1,
        description=(
            "What least_loaded compares: connections, lag (of the event loop), queue (messages that wait), cpu, rss; "
            "each may have a weight: connections:2."
        ),
    )
    lag_limit: Seconds = Field(
        default=0.25,
        description="Seconds that a worker's event loop may be late before its slot gets no first visits.",
    )
    slow_start: Annotated[float, Field(ge=0, le=3600)] = Field(
        default=10.0,
        description="Seconds over which a fresh worker's share of first visits grows to a full one; 0: at once.",
    )
    secret: Listed[SecretStr] = Field(
        default=(),
        description="Keys that sign cookies, at least 32 bytes each; the newest first signs, all verify.",
    )
    gateway_id: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")] | None = Field(
        default=None,
        description=("8 hex digits that name this gateway in its cookies; made once and kept in the state directory."),
    )
    public_url: str | None = Field(
        default=None,
        description=(
            "The URL at which clients reach this gateway, and no other of those that share a name and a Redis: "
            "https://eu1.example.com, without a path. For the application (App.public_url), which tells it to clients."
        ),
    )
    trusted_proxies: Listed[str] = Field(
        default=(),
        description=(
            'Peers whose PROXY protocol header and X-Forwarded-* fields are believed: addresses, networks, or "unix".'
        ),
    )
    origins: Listed[str] = Field(
        default=("same-host",),
        description=(
            'Origins whose pages may open a WebSocket: "same-host", "https://example.com", or "*" for '
            "all. A client that sends none is no browser and may."
        ),
    )
    compression: bool = Field(default=False, description="Offer permessage-deflate, without context takeover.")
    health_path: str = Field(
        default="/healthz",
        pattern=r"^/[!-~]*$",
        description="A plain GET of this path is answered 200 by a ready worker.",
    )
    runtime_dir: Path | None = Field(
        default=None,
        description=(
            "Sockets and the lock of the running gateway; default $XDG_RUNTIME_DIR or the temporary "
            "folder, + stickygw-UID/PORT."
        ),
    )
    state_dir: Path | None = Field(
        default=None,
        description=(
            "What outlives a reboot: own secret, gateway id, embedded Valkey's data; default $XDG_STATE_HOME or "
            "~/.local/state, + stickygw/PORT."
        ),
    )
    factory: bool = Field(
        default=False, description="The target is a function without arguments that makes the application."
    )
    app_dir: Path | None = Field(
        default=None, description="The folder in which modules are looked for first; default: the current directory."
    )
    root_path: str = Field(
        default="",
        pattern=r"^(/[!-~]*[!-.0-~])?$",
        description="The path under which a proxy in front serves the application: the ASGI root_path.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severe log records shown."
    )
    log_format: Literal["auto", "text", "json"] = Field(
        default="auto",
        description="Log records as text or as one JSON object a line; auto: text on a terminal, else JSON.",
    )
    access_log: bool = Field(default=True, description="Log one line for each connection, at its end.")
    watch: bool = Field(
        default=False, description="Reload when a Python file of the application changes: for development."
    )

    header_timeout: Seconds = Field(
        default=10.0, description="Seconds from accept until the request head must be complete; else 408."
    )
    start_timeout: Seconds = Field(default=30.0, description="Seconds a worker may take to be ready.")
    stop_timeout: Seconds = Field(
        default=30.0,
        description=(
            "Seconds that the connections have in a stop before what is left is cut; after Ctrl-C 1.5 at most. The "
            "embedded Valkey may then take up to 5 more, after Ctrl-C 0.3."
        ),
    )
    move_grace: Seconds = Field(
        default=5.0,
        description=(
            "Seconds that a handler which is at work may take before its connection, which then cannot move to its "
            "slot's next worker, is drained; at most half of drain_timeout."
        ),
    )
    drain_timeout: Seconds = Field(
        default=30.0,
        description=(
            "Seconds that a worker's connections have in a reload, restart, drain or scale-down, before what is left "
            "is cut."
        ),
    )
    drain_spread: Annotated[float, Field(ge=0, le=86_400)] | None = Field(
        default=None,
        description=(
            "Seconds over which a draining worker closes its WebSockets (1012); none: 500 of them a second, and at "
            "most drain_timeout."
        ),
    )
    heartbeat_timeout: Annotated[float, Field(ge=2, le=3600)] = Field(
        default=10.0,
        description=(
            "Seconds that a worker may say nothing, since a handler blocks its event loop, before it is ended with its "
            "traceback in the log, and started again."
        ),
    )
    max_age: Annotated[float, Field(ge=1)] | None = Field(
        default=None,
        description="Seconds after which a worker is replaced by a fresh one, at the latest; none: never.",
    )
    max_served: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Connections after which a worker is replaced, at the latest; none: never."
    )
    max_rss: Annotated[int, Field(ge=1 << 20)] | None = Field(
        default=None, description="Bytes of resident memory at which a worker is replaced, at the latest; none: never."
    )
    offload_processes: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1, description="Processes, and as many threads, of each worker for `app.offload`."
    )
    offload_queue: Annotated[int, Field(ge=1)] = Field(
        default=64, description="Calls of `app.offload` that may wait or run in one worker; more are refused."
    )
    worker_orphan_timeout: Seconds = Field(
        default=600.0, description="Seconds a worker goes on serving after its primary died, if no other adopts it."
    )
    adopt: bool = Field(
        default=True,
        description=(
            "Whether workers that a killed primary has left are taken over with their connections; otherwise they are "
            "ended first."
        ),
    )
    key_linger: Seconds = Field(
        default=60.0, description="Seconds an affinity key keeps its slot after its last connection."
    )
    slot_wait: Seconds = Field(
        default=2.0,
        description=(
            "Seconds a client waits for its slot, whose worker restarts or does not answer, before it is served by "
            "another, or, where no other can, gets 503."
        ),
    )
    slot_queue: Annotated[int, Field(ge=1)] = Field(
        default=1024,
        description=(
            "Connections that may wait in the primary for one slot; more get 503. Beside them, some 280 may be on "
            "their way to its worker."
        ),
    )
    max_pending: Annotated[int, Field(ge=1)] = Field(
        default=4096,
        description=(
            "Connections whose head is not complete yet, in all; more get 503, or are closed if they have sent "
            "nothing. At most half of the descriptors that the primary may open."
        ),
    )
    max_pending_per_address: Annotated[int, Field(ge=1)] = Field(
        default=256,
        description="The same, for one client address; the peers in trusted_proxies are not counted so.",
    )
    max_connections: Annotated[int, Field(ge=1)] = Field(
        default=10_000,
        description=(
            "Connections of one worker; a full one is passed over. At most the descriptors that a process may open, "
            "less 128."
        ),
    )
    max_message: Bytes = Field(
        default=1 << 20, description="Bytes of one incoming message; a longer one closes with 1009."
    )
    outbox_bytes: Bytes = Field(
        default=1 << 20, description="Bytes that may wait for a slow client before it is closed with 1013."
    )
    slow_consumer: SlowConsumer = Field(
        default="disconnect",
        description=(
            "What a client that lets more than outbox_bytes wait means for what is published in its rooms; disconnect: "
            "it is closed with 1013; drop_oldest, drop_newest: such messages to it are dropped, which is counted, and "
            "it is not closed for outbox_seconds, only when it answers no ping, or takes nothing for ping_interval and "
            "ping_timeout together. App.configure_rooms says it for single rooms. What it sends to a user "
            "counts as published in a room; what it sends to one connection or session is never dropped."
        ),
    )
    outbox_seconds: Seconds = Field(
        default=10.0,
        description="Seconds that bytes may wait for a slow client before it is closed with 1013.",
    )
    ping_interval: Seconds = Field(default=20.0, description="Seconds between pings of a quiet connection.")
    ping_timeout: Seconds = Field(
        default=20.0, description="Seconds a ping may stay unanswered before the connection is closed."
    )

    redis: RedisSettings = RedisSettings()
    cookie: CookieSettings = CookieSettings()
    session: SessionSettings = SessionSettings()

    def to_wire(self) -> dict[str, Any]:
        """Plain values, secrets revealed: for the settings' descriptor and the link only, never for a log."""
        return {name: _plain(value) for name, value in self.model_dump().items()}

    @classmethod
    def from_wire(cls, values: dict[str, Any]) -> Settings:
        """What `to_wire` gave."""
        return cls.model_validate(values)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value) if isinstance(value, Path) else value
