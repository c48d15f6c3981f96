"""Gives connections to workers, and takes care of those that a worker could not take.

The primary keeps its own copy of a socket until the worker says that it has it. As long as the head is unread nobody
has served the connection, so one that was declined, or offered to a worker that died, is routed again: nothing is lost.

A worker answers an offer when its loop turns. One that leaves an offer without an answer for `slot_wait` stalls: it
gets no more until it answers. (A loop that does not turn at all sends no heartbeats, and its worker is ended for that.)
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from functools import partial
from itertools import count
from typing import assert_never

from stickygw.ipc.link import Link
from stickygw.observability.counters import Counters
from stickygw.primary.deadlines import Deadlines
from stickygw.primary.lane import Lane
from stickygw.primary.offered import HandOver
from stickygw.primary.opening import Opening
from stickygw.primary.refusal import Refusals, TurnedAway
from stickygw.primary.slots import Slots
from stickygw.primary.taker import Taker
from stickygw.primary.takers import Takers
from stickygw.routing.load import Load
from stickygw.routing.router import Route, Router, SlotView
from stickygw.types import HandOverId, Slot, WorkerId
from stickygw.wire.link import Came, Declined, Ended, Taken

log = logging.getLogger("stickygw.hand_over")

MAX_HOPS = 2
"""So often a connection is routed again before it gets 503: one that kills its workers must not kill them all."""

_TURNED_AWAY = {
    TurnedAway.SLOT_QUEUE_FULL: "Too many connections wait for this worker.",
    TurnedAway.NO_SLOT: "No worker can take this connection now.",
    TurnedAway.TOO_MANY_HOPS: "No worker took this connection.",
    TurnedAway.STOPPING: "The gateway stops.",
}


class HandOvers:
    """All slots, and each connection from its route until it is over.

    A connection waits at most `slot_wait` in the queue of each slot that it is routed to (at most `MAX_HOPS` + 1). In
    the stop nobody waits: it has its own deadline.
    """

    def __init__(
        self,
        *,
        router: Router,
        refusals: Refusals,
        counters: Counters,
        slot_wait: float,
        slot_queue: int,
        max_connections: int,
        lag_limit: float,
        slow_start: float,
    ) -> None:
        self._clock = asyncio.get_running_loop().time
        self._slots = Slots(max_connections=max_connections, lag_limit=lag_limit, slow_start=slow_start)
        self.takers = Takers(router, self._slots, counters, on_taken=self._take)
        """Whose each connection is that a worker has."""
        self._router = router
        self._refusals = refusals
        self._counters = counters
        self._slot_queue = slot_queue
        # Connections keep the ids that an earlier primary gave them: each one's begin at a random place.
        self._ids = count(secrets.randbits(30) << 32)
        self._waits: Deadlines[HandOver] = Deadlines(slot_wait, on_expired=self._waited_long_enough)
        self._answers: Deadlines[HandOver] = Deadlines(slot_wait, on_expired=self._not_answered)
        self._is_stopping = False

    @property
    def views(self) -> list[SlotView]:
        """What the router is to see of the slots now."""
        return self._slots.views

    @property
    def connections(self) -> int:
        """Those with workers, and those on their way."""
        waiting = sum(len(lane.queue) for lane in self._slots)
        return waiting + sum(taker.connections for taker in self.takers)

    @property
    def underway(self) -> int:
        """Those that no worker has yet."""
        waiting = sum(len(lane.queue) for lane in self._slots)
        return waiting + sum(len(taker.in_flight) for taker in self.takers)

    def connections_of(self, worker: WorkerId) -> int:
        """Those that a worker has, and those on their way to it."""
        taker = self.takers.get(worker)
        return taker.connections if taker is not None else 0

    # --- what the intake brings ---------------------------------------------------------------------------------------

    def place(self, opening: Opening, head_size: int, route: Route, *, host: str, port: int, is_secure: bool) -> None:
        """Bring `opening`'s connection to `route.slot`. It is owned here from now on."""
        hand_over = HandOver(
            HandOverId(next(self._ids)),
            opening.sock,
            opening.data[:head_size],
            host,
            port,
            is_secure,
            route,
            self._router.connected(route, self._clock()),
        )
        lane = self._slots[route.slot]
        if lane.view.is_full or lane.is_drained:
            # Full may stay full for hours, and so may drained: nobody waits for it.
            self._detour(hand_over)
        else:
            self._send_or_queue(lane, hand_over)

    # --- what the supervisor tells ------------------------------------------------------------------------------------

    def open_slot(self, slot: Slot) -> None:
        """The slot exists from now on."""
        self._slots.open(slot)

    def close_slot(self, slot: Slot) -> None:
        """The slot does not exist any more; who waits for it goes elsewhere."""
        self._send_elsewhere(self._slots.close(slot))

    def set_drained(self, slot: Slot, is_drained: bool) -> None:
        """Whether the slot, which exists, gets nobody."""
        lane = self._slots[slot]
        lane.is_drained = is_drained
        self._slots.look(slot)
        if is_drained:
            self._send_elsewhere(lane)

    def worker_is_up(self, worker: WorkerId, slot: Slot, link: Link) -> None:
        """The slot belongs to this worker, which is ready. The one before it keeps what it has, and gets no more."""
        lane = self._slots[slot]
        lane.taker = self.takers.come(worker, slot, link)
        lane.is_flush_due = False  # what was due was for the worker before
        self._slots.look(slot)
        self._flush(lane)

    def worker_is_down(self, worker: WorkerId) -> None:
        """The worker is gone, and all that it said has been told: what it left untaken goes to the slot's next one."""
        taker = self.takers.gone(worker)
        if taker is None:
            return
        lane = self._slots.get(taker.slot)
        if lane is not None and lane.taker is taker:
            lane.taker = None
            self._slots.look(lane.slot)
        left = list(taker.in_flight.values())
        for hand_over in left:
            self._answered(taker, hand_over.id)
        for hand_over in reversed(left):  # each in front of the one before, so that the first stays first
            self._save(lane, hand_over)
        if lane is not None:
            self._flush(lane)
            lane.count()

    def heard(self, worker: WorkerId, load: Load) -> None:
        """The worker's event loop turns, and this is its load."""
        taker = self.takers.get(worker)
        if taker is not None:
            taker.heard_at, taker.load = self._clock(), load
            self._slots.look(taker.slot)

    def received(self, worker: WorkerId, message: Taken | Declined | Ended | Came) -> None:
        """The worker said this about its connections."""
        taker = self.takers.get(worker)
        if taker is None:
            return
        match message:
            case Taken():
                self._take(taker, message.ids)
            case Ended():
                self.takers.ended(taker, message.ids)
            case Declined():
                self._declined(taker, message)
            case Came():
                self.takers.moved_to(taker, message.ids)
            case _:
                assert_never(message)

    # --- the end ------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Take no more: who waits gets 503, and so does who is declined from now on."""
        self._is_stopping = True
        self._waits.clear()
        self._answers.clear()
        self._slots.stop()
        for lane in self._slots:
            while lane.queue:
                self._turn_away(lane.queue.popitem(last=False)[1], TurnedAway.STOPPING)
            lane.count()

    def close(self) -> None:
        """Close our copies of what is still in flight. Idempotent."""
        self.stop()
        for lane in self._slots:
            lane.taker = None
        self.takers.close()

    # --- steps --------------------------------------------------------------------------------------------------------

    def _send_elsewhere(self, lane: Lane) -> None:
        while lane.queue:
            _, hand_over = lane.queue.popitem(last=False)
            self._waits.remove(hand_over)
            self._detour(hand_over)

    def _send_or_queue(self, lane: Lane, hand_over: HandOver) -> None:
        if self._is_stopping:
            self._turn_away(hand_over, TurnedAway.STOPPING)
        elif lane.queue or not self._offer(lane, hand_over):
            self._queue(lane, hand_over)
        lane.count()

    def _offer(self, lane: Lane, hand_over: HandOver) -> bool:
        taker = lane.taker
        if taker is None or not taker.offer(hand_over):
            return False
        if not self._is_stopping:
            self._answers.add(hand_over)
        return True

    def _answered(self, taker: Taker, identifier: HandOverId) -> HandOver | None:
        """The worker has answered this offer, or never will. None: it was none of its offers."""
        hand_over = taker.in_flight.pop(identifier, None)
        if hand_over is not None:
            hand_over.taker = None
            self._answers.remove(hand_over)
            if identifier in taker.overdue:
                taker.overdue.discard(identifier)
                lane = self._slots.get(taker.slot)
                if lane is not None and lane.taker is taker and lane.is_ready:
                    lane.count()
                    self._flush(lane)  # those who came while it stalled
        return hand_over

    def _not_answered(self, hand_over: HandOver) -> None:
        taker = hand_over.taker
        if taker is not None:
            taker.overdue.add(hand_over.id)
            self._slots.count(taker.slot)

    def _declined(self, taker: Taker, message: Declined) -> None:
        hand_over = self._answered(taker, message.id)
        if hand_over is None:
            return
        self._counters.add("hand_overs", f"declined_{message.why}")
        lane = self._slots.get(taker.slot)
        if lane is not None and lane.taker is not taker and not lane.is_drained and hand_over.hops < MAX_HOPS:
            hand_over.hops += 1
            self._send_or_queue(lane, hand_over)  # the slot has another worker now, or will have
        else:
            self._detour(hand_over)
            self._slots.count(taker.slot)

    def _queue(self, lane: Lane, hand_over: HandOver) -> None:
        if len(lane.queue) >= self._slot_queue:
            self._turn_away(hand_over, TurnedAway.SLOT_QUEUE_FULL)
            return
        self._counters.add("hand_overs", "queued")
        lane.queue[hand_over.id] = hand_over
        self._waits.add(hand_over)
        self._flush_later(lane)

    def _flush_later(self, lane: Lane) -> None:
        """When its link takes a datagram again. One that stalls is flushed when it has answered, a lane without a
        worker when it has one."""
        if lane.taker is not None and lane.is_ready and not lane.is_flush_due:
            lane.is_flush_due = True
            lane.taker.link.wait_writable(partial(self._flush_now, lane, lane.taker))

    def _flush_now(self, lane: Lane, taker: Taker) -> None:
        if lane.taker is taker:  # or else its worker is gone, and what waits is flushed to the next
            lane.is_flush_due = False
            self._flush(lane)

    def _flush(self, lane: Lane) -> None:
        while lane.queue:
            hand_over = next(iter(lane.queue.values()))
            if self._follow(lane, hand_over):
                continue
            if not self._offer(lane, hand_over):
                break
            del lane.queue[hand_over.id]
            self._waits.remove(hand_over)
        if lane.queue:
            self._flush_later(lane)

    def _take(self, taker: Taker, ids: list[HandOverId]) -> None:
        for identifier in ids:
            hand_over = self._answered(taker, identifier)
            if hand_over is not None:
                taker.taken[identifier] = hand_over.key
                if hand_over.key is not None:
                    self._router.taken(hand_over.key, taker.slot)
                hand_over.sock.close()
                self._counters.add("hand_overs", "taken")

    def _save(self, lane: Lane | None, hand_over: HandOver) -> None:
        """The worker that had the offer died. Wait for its successor, if nobody has read the head."""
        if not hand_over.is_untouched():
            self._counters.add("hand_overs", "lost")
            self._release(hand_over)
            hand_over.sock.close()
        elif self._is_stopping:
            self._turn_away(hand_over, TurnedAway.STOPPING)
        elif hand_over.hops >= MAX_HOPS:
            self._turn_away(hand_over, TurnedAway.TOO_MANY_HOPS)
        elif lane is None or lane.is_drained:
            self._detour(hand_over)
        elif len(lane.queue) >= self._slot_queue:
            self._turn_away(hand_over, TurnedAway.SLOT_QUEUE_FULL)
        else:
            self._counters.add("hand_overs", "saved")
            hand_over.hops += 1
            lane.queue[hand_over.id] = hand_over
            lane.queue.move_to_end(hand_over.id, last=False)
            self._waits.add(hand_over)

    def _waited_long_enough(self, hand_over: HandOver) -> None:
        lane = self._slots[hand_over.route.slot]
        del lane.queue[hand_over.id]
        self._counters.add("hand_overs", "slot_wait")
        self._detour(hand_over)
        lane.count()

    def _detour(self, hand_over: HandOver) -> None:
        """Its slot could not take it: go to the runner-up, if there is one and it was not sent about too often."""
        if self._is_stopping:
            self._turn_away(hand_over, TurnedAway.STOPPING)
            return
        if hand_over.hops >= MAX_HOPS:
            self._turn_away(hand_over, TurnedAway.TOO_MANY_HOPS)
            return
        hand_over.hops += 1
        hand_over.tried += (hand_over.route.slot,)
        route = self._router.runner_up(hand_over.route, self.views, exclude=hand_over.tried)
        if route is None:
            self._turn_away(hand_over, TurnedAway.NO_SLOT)
            return
        self._reroute(hand_over, route)

    def _follow(self, lane: Lane, hand_over: HandOver) -> bool:
        """While it waited, its key's other connections may have gone elsewhere: send it after them. Whether it went."""
        if hand_over.key is None or hand_over.hops >= MAX_HOPS:
            return False
        route = self._router.followed(hand_over.route, self.views)
        if route is None:
            return False
        hand_over.hops += 1
        del lane.queue[hand_over.id]
        self._waits.remove(hand_over)
        self._reroute(hand_over, route)
        return True

    def _reroute(self, hand_over: HandOver, route: Route) -> None:
        self._release(hand_over)
        hand_over.route = route
        hand_over.key = self._router.connected(route, self._clock())
        self._counters.add("routes", route.reason)
        log.debug("route client=%s slot=%d reason=%s", hand_over.host, route.slot, route.reason)
        self._send_or_queue(self._slots[route.slot], hand_over)

    def _turn_away(self, hand_over: HandOver, reason: TurnedAway) -> None:
        self._release(hand_over)
        self._refusals.refuse(hand_over.sock, 503, reason, _TURNED_AWAY[reason])

    def _release(self, hand_over: HandOver) -> None:
        if hand_over.key is not None:
            self._router.given_up(hand_over.key, self._clock())
            hand_over.key = None
