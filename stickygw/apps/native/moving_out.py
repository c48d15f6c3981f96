"""Gives this worker's connections to others, each to where it belongs: `MovingOut`, one `Leaving` for each of them."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from stickygw.apps.native.connection import Connection
from stickygw.apps.native.leaving import Leaving, Outcome
from stickygw.apps.native.published import wait_published
from stickygw.apps.native.runtime import Runtime
from stickygw.routing.home import home_of, home_of_key
from stickygw.types import HandOverId, Slot

log = logging.getLogger("stickygw.move")

CHOSEN_PER_TURN = 256
"""Connections whose slot is looked for in one turn of the loop: of each, a hash for every slot (1 µs)."""


class MovingOut:
    """All moves from this worker, side by side. `links` are those to the workers of their slots.

    With one to this worker's own slot everything goes there; otherwise each connection to its `home_of` these slots. No
    link ends before all connections have gone that can: until then the other workers hear over it what is published
    here; nor before each of those workers has waited for the store to have what it published: until then they withhold
    that from who had it here. `on_moved`, `grace_seconds` and `within_seconds` are those of `Leaving`.
    """

    def __init__(
        self,
        runtime: Runtime,
        links: Mapping[Slot, socket.socket],
        *,
        grace_seconds: float,
        within_seconds: float,
        on_moved: Callable[[HandOverId], None],
    ) -> None:
        self._runtime = runtime
        self._slots = tuple(links)
        self._homes: dict[Connection, Slot] = {}
        self._all_gone, self._all_finished = _Meeting(links), _Meeting(links)
        own = runtime.identity.slot
        self._leavings = {
            slot: Leaving(
                runtime,
                link,
                grace_seconds=grace_seconds,
                within_seconds=within_seconds,
                on_moved=on_moved,
                belongs=partial(self._belongs, slot),
                key_belongs=partial(self._key_belongs, slot),
                is_same_slot=slot == own,
                wait_all_gone=partial(self._all_gone.wait, slot),
                wait_all_finished=partial(self._all_finished.wait, slot),
            )
            for slot, link in links.items()
        }

    async def run(self) -> Outcome:
        """Move all that can move. What is left when this returns is served here as before."""
        moves = [asyncio.ensure_future(self._run(slot, leaving)) for slot, leaving in self._leavings.items()]
        try:
            await asyncio.gather(*moves)
        finally:
            for move in moves:
                move.cancel()
        # The next worker may begin to move now, to the same others. What these have heard over a link of ours is to be
        # at the store by then: or that one's connections had a position before it, and the others a record from after.
        await wait_published(self._runtime.bridge)
        return self.outcome

    @property
    def outcome(self) -> Outcome:
        """What has become of the WebSockets so far."""
        outcomes = [leaving.outcome for leaving in self._leavings.values()]
        return Outcome(
            sum(each.moved for each in outcomes),
            sum(each.refused for each in outcomes),
            sum(each.left for each in outcomes)
            + sum(each.is_websocket and each.is_open for each in self._runtime.connections),
        )

    async def _run(self, slot: Slot, leaving: Leaving) -> None:
        """One of them fails alone: what it did not move is left."""
        try:
            await self._choose_homes()
            await leaving.run()
        except Exception:
            log.exception("the move to slot %d failed; what has not gone is closed here", slot)
        finally:
            self._all_gone.come(slot)
            self._all_finished.come(slot)

    async def _choose_homes(self) -> None:
        for number, connection in enumerate(tuple(self._runtime.connections), start=1):
            if isinstance(connection, Connection):
                self._home(connection)
            if number % CHOSEN_PER_TURN == 0:
                await asyncio.sleep(0)

    def _belongs(self, slot: Slot, connection: Connection) -> bool:
        return self._home(connection) == slot

    def _key_belongs(self, slot: Slot, key: bytes) -> bool:
        return home_of_key(key, self._slots) == slot

    def _home(self, connection: Connection) -> Slot:
        home = self._homes.get(connection)
        if home is None:
            offer = connection.offer
            home = self._homes[connection] = home_of(offer.key, connection.session.id, self._slots)
        return home


class _Meeting:
    """Where nobody goes on before all have come."""

    def __init__(self, slots: Iterable[Slot]) -> None:
        self._missing = set(slots)
        self._are_all_here = asyncio.Event()

    async def wait(self, slot: Slot) -> None:
        """Come, and wait for the others. Each `Leaving` has its own end, and has come then: that is the bound."""
        self.come(slot)
        await self._are_all_here.wait()

    def come(self, slot: Slot) -> None:
        """It is not waited for. Idempotent."""
        self._missing.discard(slot)
        if not self._missing:
            self._are_all_here.set()
