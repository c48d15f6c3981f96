"""The application state of affinity keys that come from another worker, and who waits for them: `ComingKeys`."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

from stickygw.apps.native.key_state import MAX_KEY_STATE_BYTES, NoKeyState, text_of, unpack_key_state
from stickygw.apps.native.runtime import Runtime, settled
from stickygw.ipc.memory_file import StateLost, read_state
from stickygw.ipc.move_link import MoveLink
from stickygw.wire.move import KeyRefused, KeyTaken

log = logging.getLogger("stickygw.move")

MAX_WHY_CHARACTERS = 500
"""Of the reason that the other side is told."""

MAX_BYTES = MAX_KEY_STATE_BYTES + 64 * 1024
"""Of one key's state, with what is around the values."""


class ComingKeys:
    """One move's keys, at the worker they come to. It is one of `Runtime.coming_keys` while somebody may wait.

    `on_taking` is called with each before its ``on_key_in``.
    """

    def __init__(self, runtime: Runtime, link: MoveLink, *, on_taking: Callable[[bytes], None]) -> None:
        self._runtime = runtime
        self._link = link
        self._on_taking = on_taking
        self._hooks = runtime.app.handlers.key_in
        self._is_complete = False
        self._list = runtime.loop.create_future()
        """Done when the list of keys is complete."""
        self._expected: dict[bytes, asyncio.Future[None] | None] = {}
        """Those that are listed and not here, and what is done when they are, once somebody waits."""
        self._taking: set[bytes] = set()
        """Those of them for which ``on_key_in`` runs."""
        self._given_up: set[bytes] = set()
        """Those that somebody has waited for in vain: each cost a client a whole wait, so they are few."""
        self._is_over = False
        runtime.coming_keys.add(self)

    # What comes

    def listed(self, keys: list[bytes], *, is_complete: bool) -> None:
        """These are the old worker's, and will come."""
        for key in keys:
            if key not in self._given_up and not self._is_over:
                self._expected.setdefault(key)
        if is_complete:
            self._complete()

    def came(self, key: bytes, state: bytes, fds: list[int], *, why_not: str = "") -> None:
        """Its state; `why_not` says that it can't be read, if not "". The descriptors are the callee's."""
        try:
            if why_not:
                raise NoKeyState(why_not)
            if key in self._given_up:
                raise NoKeyState("it came late: the application has begun it anew")
            values = unpack_key_state(state or read_state(fds, max_bytes=MAX_BYTES))
            if len(values) > len(self._hooks):
                raise NoKeyState("there is no on_key_in for it")
        except (NoKeyState, StateLost, OSError) as error:
            self._refuse(key, str(error))
        else:
            self._taking.add(key)
            self._on_taking(key)
            self._runtime.spawn(self._take(key, values))
        finally:
            for fd in fds:
                os.close(fd)

    def stays(self, key: bytes) -> None:
        """It does not come."""
        self._open(key)

    def end(self) -> None:
        """Nothing more comes: who waits, waits only for hooks that run. Idempotent."""
        self._is_over = True
        self._complete()
        for key in tuple(self._expected):
            if key not in self._taking:
                self._open(key)
        self._leave_if_done()

    async def _take(self, key: bytes, values: list[object]) -> None:
        runtime = self._runtime
        values += [None] * (len(self._hooks) - len(values))  # the code before had fewer
        try:
            async with asyncio.timeout(runtime.settings.move_grace):
                for function, value in zip(self._hooks, values, strict=True):
                    await settled(function(text_of(key), value))
        except Exception as error:
            log.exception("on_key_in raised; the key's connections are not taken")
            self._taking.discard(key)
            self._refuse(key, f"on_key_in raised {type(error).__name__}: {error}")
        else:
            self._taking.discard(key)
            runtime.keys.came(key)
            self._link.send(KeyTaken(key))
            self._open(key)
        self._leave_if_done()

    def _refuse(self, key: bytes, why: str) -> None:
        self._link.send(KeyRefused(key, why[:MAX_WHY_CHARACTERS]))
        self._open(key)

    # Who waits

    async def wait(self, key: bytes, until: float) -> None:
        """Wait until it is known that `key` is not among them, or is here; to be served anew if not `until` then (the
        loop's time). Only ``on_key_in`` that has begun is waited for to its end, for `move_grace` at most."""
        while (gate := self._gate(key)) is not None:
            seconds = None if key in self._taking else max(0.0, until - self._runtime.loop.time())
            done, _ = await asyncio.wait([gate], timeout=seconds)
            if not done and key not in self._taking:
                log.warning("move: a key's state has not come in time; the application begins it anew")
                self._runtime.counters.add("keys_given_up")
                self._given_up.add(key)
                self._open(key)
                return

    def _gate(self, key: bytes) -> asyncio.Future[None] | None:
        if key in self._given_up:
            return None
        if not self._is_complete and key not in self._expected:
            return self._list
        if key not in self._expected:
            return None
        gate = self._expected[key]
        if gate is None:
            gate = self._expected[key] = self._runtime.loop.create_future()
        return gate

    def _open(self, key: bytes) -> None:
        gate = self._expected.pop(key, None)
        if gate is not None:
            gate.set_result(None)

    def _complete(self) -> None:
        self._is_complete = True
        if not self._list.done():
            self._list.set_result(None)

    def _leave_if_done(self) -> None:
        if self._is_over and not self._taking:
            self._runtime.coming_keys.discard(self)
