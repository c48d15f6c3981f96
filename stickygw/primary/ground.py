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
from stickygw.primary.runtime_dir import open_runtime_dir, open_state_dir, own_gateway_id, own_secret, port_name
from stickygw.primary.valkey import EmbeddedValkey, find_binary

log = logging.getLogger("stickygw.primary")


class Ground:
    """Bound, locked and started by `prepare`; given back by `close`. `settings` are complete from `prepare` on."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.listeners: list[Listener] = []
        self.valkey: EmbeddedValkey | None = None
        """The store, if it is the embedded one."""
        self._at_end = ExitStack()

    async def prepare(self) -> None:
        """Bind the addresses, lock the directories, see to a store. Raises `OperatorError`."""
        descriptors = raise_descriptor_limit()
        self.listeners = bind(self.settings.bind)
        for listener in self.listeners:
            self._at_end.callback(listener.close)
        self._open_directories(self.listeners[0])
        if self.settings.redis.url is None:
            await self._start_valkey()
        self._set(
            max_connections=connections_within(descriptors, self.settings.max_connections),
            max_pending=pending_within(descriptors, self.settings.max_pending),
        )

    def close(self) -> None:
        """Give everything back; an embedded store that still runs is killed. Idempotent."""
        self._at_end.close()

    def _open_directories(self, first: Listener) -> None:
        """Lock the directories, and complete the settings by what is kept in them."""
        settings = self.settings
        name = port_name(first.port, first.path)
        runtime = open_runtime_dir(settings.runtime_dir, port_name=name)
        self._at_end.callback(runtime.close)
        self._set(runtime_dir=runtime.path)
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
