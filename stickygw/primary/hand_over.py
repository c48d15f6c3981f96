"""Gives connections to workers, and takes care of those that a worker could not take.

The primary keeps its own copy of a socket until the worker says that it has it. As long as the head is unread nobody
has served the connection, so one that was declined, or offered to a worker that died, is routed again: nothing is lost.

A worker answers an offer when its loop turns. One that leaves an offer without an answer for `slot_wait` stalls: it
gets no more. After `HUNG_SECONDS` it hangs, and is ended, so that its offers can be routed again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import assert_never

from stickygw.ipc.link import Link
from stickygw.observability.counters import Counters
from stickygw.primary.deadlines import Deadlines
from stickygw.primary.lane import HandOver, Lane
from stickygw.primary.opening import Opening
from stickygw.primary.refusal import Refusals, TurnedAway
from stickygw.routing.router import Route, Router, SlotView
from stickygw.types import HandOverId, Slot
from stickygw.wire.link import Declined, Ended, Taken

log = logging.getLogger("stickygw.hand_over")

MAX_HOPS = 2
"""So often a connection is routed again before it gets 503: one that kills its workers must not kill them all."""
FLUSH_AGAIN_SECONDS = 0.02
HUNG_SECONDS = 10.0
"""A worker that has not answered an offer for so long is hung."""

_TURNED_AWAY = {
    TurnedAway.SLOT_QUEUE_FULL: "Too many connections wait for this worker.",
    TurnedAway.NO_SLOT: "No worker can take this connection now.",
    TurnedAway.TOO_MANY_HOPS: "No worker took this connection.",
    TurnedAway.STOPPING: "The gateway stops.",
}


class HandOvers:
    """All slots, and each connection from its route until it is over.

    A connection waits at most `slot_wait` in the queue of each slot that it is routed to (at most `MAX_HOPS` + 1), and
    at most `hung_seconds`, or `slot_wait` if that is longer, for the answer to an offer: then `on_hung(slot, seconds)`
    is called, for each such offer, and has to end the slot's worker. In the stop nobody hangs: it has its own deadline.
    """

    def __init__(
        self,
        slots: int,
        *,
        router: Router,
        refusals: Refusals,
        counters: Counters,
        slot_wait: float,
        slot_queue: int,
        max_connections: int,
        on_hung: Callable[[Slot, float], None],
        hung_seconds: float = HUNG_SECONDS,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock = self._loop.time
        self._lanes = [Lane(Slot(slot), max_connections=max_connections) for slot in range(slots)]
        self._views: list[SlotView] = [lane.view() for lane in self._lanes]
        self._changed: set[Lane] = set()
        """Lanes that are not as `_views` shows them."""
        self._router = router
        self._refusals = refusals
        self._counters = counters
        self._slot_queue = slot_queue
        self._ids = count(1)
        self._waits: Deadlines[HandOver] = Deadlines(slot_wait, on_expired=self._waited_long_enough)
        self._answers: Deadlines[HandOver] = Deadlines(slot_wait, on_expired=self._not_answered)
        # From the stall on, and not from the offer: after a pause of the primary itself both times would be over at
        # once, with the answers unread in the link.
        self._hangs: Deadlines[HandOver] = Deadlines(max(0.0, hung_seconds - slot_wait), on_expired=self._hung)
        self._hung_seconds = max(hung_seconds, slot_wait)
        self._on_hung = on_hung
        self._is_stopping = False

    @property
    def views(self) -> list[SlotView]:
        """What the router is to see of the slots now."""
        for lane in self._changed:
            self._views[lane.slot] = lane.view()
        self._changed.clear()
        return self._views

    @property
    def connections(self) -> int:
        """Those with workers, and those on their way."""
        return sum(lane.connections for lane in self._lanes)

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
        lane = self._lanes[route.slot]
        if lane.is_full:
            # Full may stay full for hours: nobody waits for it.
            self._detour(hand_over)
        else:
            self._send_or_queue(lane, hand_over)

    # --- what the supervisor tells ------------------------------------------------------------------------------------

    def slot_is_up(self, slot: Slot, link: Link) -> None:
        """The slot has a worker that is ready."""
        lane = self._lanes[slot]
        lane.link = link
        lane.is_flush_due = False  # what was due was the dead worker's
        self._flush(lane)
        self._changed.add(lane)

    def slot_is_down(self, slot: Slot) -> None:
        """The slot's worker is gone, and all that it said has been told: what it left untaken goes to its successor."""
        lane = self._lanes[slot]
        lane.link = None
        now = self._clock()
        for key in lane.taken.values():
            if key is not None:
                self._router.ended(key, slot, now)
        lane.taken.clear()
        left = list(lane.in_flight.values())
        for hand_over in left:
            self._answered(lane, hand_over.id)
        for hand_over in reversed(left):  # each in front of the one before, so that the first stays first
            self._save(lane, hand_over)
        self._changed.add(lane)

    def received(self, slot: Slot, message: Taken | Declined | Ended) -> None:
        """The slot's worker said this about its connections."""
        lane = self._lanes[slot]
        match message:
            case Taken():
                self._take(lane, message.ids)
            case Ended():
                self._end(lane, message.ids)
            case Declined():
                hand_over = self._answered(lane, message.id)
                if hand_over is not None:
                    self._counters.add("hand_overs", f"declined_{message.why}")
                    self._detour(hand_over)
                    self._changed.add(lane)
            case _:
                assert_never(message)

    # --- the end ------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Take no more: who waits gets 503, and so does who is declined from now on."""
        self._is_stopping = True
        self._waits.clear()
        # The stop has a deadline of its own.
        self._answers.clear()
        self._hangs.clear()
        for lane in self._lanes:
            while lane.queue:
                self._turn_away(lane.queue.popitem(last=False)[1], TurnedAway.STOPPING)
            self._changed.add(lane)

    def close(self) -> None:
        """Close our copies of what is still in flight. Idempotent."""
        self.stop()
        for lane in self._lanes:
            lane.link = None
            for hand_over in lane.in_flight.values():
                hand_over.sock.close()
            lane.in_flight.clear()

    # --- steps --------------------------------------------------------------------------------------------------------

    def _send_or_queue(self, lane: Lane, hand_over: HandOver) -> None:
        if self._is_stopping:
            self._turn_away(hand_over, TurnedAway.STOPPING)
        elif lane.queue or not self._offer(lane, hand_over):
            self._queue(lane, hand_over)
        self._changed.add(lane)

    def _offer(self, lane: Lane, hand_over: HandOver) -> bool:
        if not lane.send(hand_over):
            return False
        if not self._is_stopping:
            self._answers.add(hand_over)
        return True

    def _answered(self, lane: Lane, identifier: HandOverId) -> HandOver | None:
        """The worker has answered this offer, or never will. None: it was none of its offers."""
        hand_over = lane.in_flight.pop(identifier, None)
        if hand_over is not None:
            self._answers.remove(hand_over)
            if identifier in lane.overdue:
                self._hangs.remove(hand_over)
                lane.overdue.discard(identifier)
                if lane.is_ready:
                    self._changed.add(lane)
                    self._flush(lane)  # those who came while it stalled
        return hand_over

    def _not_answered(self, hand_over: HandOver) -> None:
        lane = self._lanes[hand_over.route.slot]
        lane.overdue.add(hand_over.id)
        self._hangs.add(hand_over)
        self._changed.add(lane)

    def _hung(self, hand_over: HandOver) -> None:
        self._on_hung(hand_over.route.slot, self._hung_seconds)

    def _queue(self, lane: Lane, hand_over: HandOver) -> None:
        if len(lane.queue) >= self._slot_queue:
            self._turn_away(hand_over, TurnedAway.SLOT_QUEUE_FULL)
            return
        self._counters.add("hand_overs", "queued")
        lane.queue[hand_over.id] = hand_over
        self._waits.add(hand_over)
        if lane.link is not None and lane.is_ready and not lane.is_flush_due:
            lane.is_flush_due = True
            lane.link.wait_writable(partial(self._flush_now, lane, lane.link))

    def _flush_now(self, lane: Lane, link: Link) -> None:
        if lane.link is link:  # or else its worker is gone, and what waits is flushed to the next
            lane.is_flush_due = False
            self._flush(lane)

    def _flush(self, lane: Lane) -> None:
        sent = 0
        while lane.queue:
            hand_over = next(iter(lane.queue.values()))
            if self._follow(lane, hand_over):
                continue
            if not self._offer(lane, hand_over):
                break
            del lane.queue[hand_over.id]
            self._waits.remove(hand_over)
            sent += 1
        # One that stalls is flushed when it has answered, one without a link when it has one.
        if lane.queue and lane.link is not None and lane.is_ready and not lane.is_flush_due:
            lane.is_flush_due = True
            if sent:
                lane.link.wait_writable(partial(self._flush_now, lane, lane.link))
            else:
                # Writable and yet refused: too many descriptors are in flight (ETOOMANYREFS). Waiting for
                # writability would spin.
                self._loop.call_later(FLUSH_AGAIN_SECONDS, self._flush_now, lane, lane.link)

    def _take(self, lane: Lane, ids: list[HandOverId]) -> None:
        for identifier in ids:
            hand_over = self._answered(lane, identifier)
            if hand_over is not None:
                lane.taken[identifier] = hand_over.key
                if hand_over.key is not None:
                    self._router.taken(hand_over.key, lane.slot)
                hand_over.sock.close()
                self._counters.add("hand_overs", "taken")

    def _end(self, lane: Lane, ids: list[HandOverId]) -> None:
        now = self._clock()
        for identifier in ids:
            key = lane.taken.pop(identifier, None)
            if key is not None:
                self._router.ended(key, lane.slot, now)
        self._changed.add(lane)

    def _save(self, lane: Lane, hand_over: HandOver) -> None:
        """The worker that had the offer died. Wait for its successor, if nobody has read the head."""
        if not hand_over.is_untouched():
            self._counters.add("hand_overs", "lost")
            self._release(hand_over)
            hand_over.sock.close()
        elif self._is_stopping:
            self._turn_away(hand_over, TurnedAway.STOPPING)
        elif hand_over.hops >= MAX_HOPS:
            self._turn_away(hand_over, TurnedAway.TOO_MANY_HOPS)
        elif len(lane.queue) >= self._slot_queue:
            self._turn_away(hand_over, TurnedAway.SLOT_QUEUE_FULL)
        else:
            self._counters.add("hand_overs", "saved")
            hand_over.hops += 1
            lane.queue[hand_over.id] = hand_over
            lane.queue.move_to_end(hand_over.id, last=False)
            self._waits.add(hand_over)

    def _waited_long_enough(self, hand_over: HandOver) -> None:
        lane = self._lanes[hand_over.route.slot]
        del lane.queue[hand_over.id]
        self._counters.add("hand_overs", "slot_wait")
        self._detour(hand_over)
        self._changed.add(lane)

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
        self._send_or_queue(self._lanes[route.slot], hand_over)

    def _turn_away(self, hand_over: HandOver, reason: TurnedAway) -> None:
        self._release(hand_over)
        self._refusals.refuse(hand_over.sock, 503, reason, _TURNED_AWAY[reason])

    def _release(self, hand_over: HandOver) -> None:
        if hand_over.key is not None:
            self._router.given_up(hand_over.key, self._clock())
            hand_over.key = None
