"""What a gateway stands on: addresses, private directories, a store. With them its settings are complete."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import Any

from pydantic import SecretStr

from stickygw.config.settings import Settings
from stickygw.errors import SettingsError
from stickygw.primary.limits import connections_within, pending_within, raise_descriptor_limit
from stickygw.primary.listener import Listener, bind
from stickygw.primary.orphans import Orphans
from stickygw.primary.runtime_dir import open_runtime_dir, open_state_dir, own_gateway_id, own_secret, port_name
from stickygw.primary.valkey import EmbeddedValkey, find_binary
from stickygw.primary.whereabouts import known_name

log = logging.getLogger("stickygw.primary")


class Ground:
    """Bound, locked and started by `prepare`; given back by `close`. `settings` are complete from `prepare` on."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.listeners: list[Listener] = []
        self.valkey: EmbeddedValkey | None = None
        """The store, if it is the embedded one."""
        self._orphans: Orphans | None = None
        self._at_end = ExitStack()

    @property
    def orphans(self) -> Orphans:
        """What a killed primary has left."""
        assert self._orphans is not None, "the ground is prepared"
        return self._orphans

    async def prepare(self) -> None:
        """Lock the directories, bind the addresses or take them over, see to a store. Raises `OperatorError`."""
        descriptors = raise_descriptor_limit()
        name = known_name(self.settings)
        if name is not None:
            await self._open_runtime_dir(name)
            self.listeners = self.orphans.listeners(self.settings.bind)
        self.listeners = self.listeners or bind(self.settings.bind)
        for listener in self.listeners:
            self._at_end.callback(listener.close)
        name = port_name(self.listeners[0].port, self.listeners[0].path)
        if self._orphans is None:
            await self._open_runtime_dir(name)
        self._open_state_dir(name)
        if self.settings.redis.url is None:
            await self._start_valkey()
        self._set(
            max_connections=connections_within(descriptors, self.settings.max_connections),
            max_pending=pending_within(descriptors, self.settings.max_pending),
        )

    async def end_orphans(self, seconds: float) -> None:
        """The start is given up for good: end the workers that it was to adopt, SIGTERM and SIGKILL after `seconds`.
        Cancelled, it kills them. Raises `RuntimeDirError`: one lives on all the same."""
        if self._orphans is not None:
            await self._orphans.end(seconds)
            for listener in self.listeners:
                listener.keeps_file = False

    def close(self) -> None:
        """Give everything back; an embedded store that still runs is killed. Idempotent."""
        self._at_end.close()

    async def _open_runtime_dir(self, name: str) -> None:
        runtime = open_runtime_dir(self.settings.runtime_dir, port_name=name)
        self._at_end.callback(runtime.close)
        self._set(runtime_dir=runtime.path)
        self._orphans = Orphans(runtime.path)
        self._at_end.callback(self._orphans.close)
        if not (self.settings.adopt or self._orphans.is_own):  # without it, too, an upgrade ends nobody
            await self._orphans.end(self.settings.stop_timeout)
        await self._orphans.wait()

    def _open_state_dir(self, name: str) -> None:
        """Complete the settings by what is kept there."""
        settings = self.settings
        if settings.redis.url is not None and not settings.secret:
            raise SettingsError("secret: needed with redis.url, since all gateways at one Redis must share it")
        if settings.redis.url is not None and settings.gateway_id is not None:
            return  # nothing is to be kept
        state = open_state_dir(settings.state_dir, port_name=name)
        self._at_end.callback(state.close)
        self._set(
            state_dir=state.path,
            secret=settings.secret or (SecretStr(own_secret(state)),),
            gateway_id=settings.gateway_id or own_gateway_id(state),
        )

    async def _start_valkey(self) -> None:
        settings = self.settings
        assert settings.runtime_dir is not None
        assert settings.state_dir is not None
        self.valkey = EmbeddedValkey(
            binary=find_binary(), runtime_dir=settings.runtime_dir, state_dir=settings.state_dir
        )
        self._at_end.callback(self.valkey.kill)
        await self.valkey.start()
        self._set(redis=settings.redis.model_copy(update={"url": SecretStr(self.valkey.url)}))

    def _set(self, **changes: Any) -> None:
        self.settings = self.settings.model_copy(update=changes)
