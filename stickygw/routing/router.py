"""Which slot a connection goes to, and why. Every decision carries its reason.

Time, randomness and what the slots look like come in from outside; what is done about the decision is the
primary's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from stickygw.routing.cookie import CookieClaim, CookieKeys, claim_of
from stickygw.routing.first_visit import ByAddress, FirstVisit, LeastLoaded, RoundRobin
from stickygw.routing.home import home_of_key, home_of_session
from stickygw.routing.keys import Key
from stickygw.routing.load import DEFAULT_BALANCE, Balance, SlotView, in_service
from stickygw.routing.rendezvous import pick_bounded
from stickygw.routing.request_head import Head
from stickygw.routing.table import KeyTable
from stickygw.types import GatewayId, Slot

__all__ = ["Route", "RouteReason", "Router", "SlotView"]


class RouteReason(StrEnum):
    """Why a connection goes to its slot: the log word and the metric label."""

    COOKIE = "cookie"
    """The signed cookie names it."""
    KEY_TABLE = "key_table"
    """The affinity key is there already."""
    KEY_HASH = "key_hash"
    """The affinity key's hash: it is new, its slot is gone, or the table is full."""
    KEY_BOUNDED = "key_bounded"
    """The same, but a better slot had too much."""
    SESSION_HASH = "session_hash"
    """The session id's hash: the cookie's slot is gone, or is another gateway's."""
    LEAST_LOADED = "least_loaded"
    """Nothing known: the better of two random slots."""
    ROUND_ROBIN = "round_robin"
    """Nothing known: the next slot."""
    CLIENT_IP = "client_ip"
    """Nothing known: the address's hash."""
    RUNNER_UP = "runner_up"
    """The slot first chosen could not take it."""


@dataclass(frozen=True, slots=True)
class Route:
    """A decision.

    `claim`: what the client's cookie proves, whatever decided. `key`: the affinity key, if one decided.
    `cookie_slot`: what the worker's answer is to name in a cookie, be it its own slot in a new one, or the old one's in
    one whose key will be retired; None: the client's own is right.
    """

    slot: Slot
    reason: RouteReason
    claim: CookieClaim | None
    key: bytes | None
    cookie_slot: Slot | None


class Router:
    """The routing rules of one gateway.

    `learnt` are the keys of ids that the application mints: one that is known names state in one worker, so they come
    first. `keys` are tried after them, in order; `first_visit` is "least_loaded", "round_robin" or "ip", for clients
    without any; `cookie_lifetime` is in seconds; `random(n)` gives an int from 0 to n-1; `balance` says which slot has
    least to do; `reads_token`: see `claim_of`. Raises `ValueError` for another `first_visit`.
    """

    def __init__(
        self,
        *,
        gateway: GatewayId,
        keys: Sequence[Key],
        first_visit: str,
        cookie_name: str,
        cookie_keys: CookieKeys,
        cookie_lifetime: float,
        table: KeyTable,
        random: Callable[[int], int],
        balance: Balance = DEFAULT_BALANCE,
        learnt: Sequence[Key] = (),
        reads_token: bool = False,
    ) -> None:
        self.gateway = gateway
        self.learnt = frozenset(key.text for key in learnt)
        self.keys = (*learnt, *(key for key in keys if key.text not in self.learnt))
        self.cookie_name = cookie_name
        self.cookie_keys = cookie_keys
        self.cookie_lifetime = cookie_lifetime
        self.balance = balance
        self._reads_token = reads_token
        self._table = table
        self._by_load = LeastLoaded(balance, random)
        first_visits: dict[str, tuple[RouteReason, FirstVisit]] = {
            "least_loaded": (RouteReason.LEAST_LOADED, self._by_load),
            "round_robin": (RouteReason.ROUND_ROBIN, RoundRobin(random)),
            "ip": (RouteReason.CLIENT_IP, ByAddress()),
        }
        if first_visit not in first_visits:
            raise ValueError(f"first_visit is one of {', '.join(first_visits)}, not {first_visit!r}")
        self.first_visit_reason, self.first_visit = first_visits[first_visit]

    def route(self, head: Head, client_ip: str, slots: Sequence[SlotView], *, now: float, wall: float) -> Route:
        """The slot for a request.

        `slots` are all that exist, at least one; `now` is monotonic, `wall` Unix seconds. The slot may be not
        ready: a client waits for the slot it belongs to, and `runner_up` says where it goes when it has waited long
        enough. It may be full or drained: then `runner_up` says so at once. Call `connected` as soon as the connection
        is on its way, so that the next with the same key finds it.
        """
        claim = self.claim_of(head, wall)
        known = self.known(claim, lambda key: key.of(head, client_ip), slots, now)
        if known is not None:
            return known
        slot = self.first_visit.choose(slots, client_ip)
        return Route(slot, self.first_visit_reason, claim, None, self.cookie_slot(claim, slot))

    def claim_of(self, head: Head, wall: float) -> CookieClaim | None:
        """What the cookies of our name in `head`, or its tokens, prove at `wall`, or None."""
        return claim_of(
            head,
            name=self.cookie_name,
            keys=self.cookie_keys,
            now=wall,
            lifetime=self.cookie_lifetime,
            reads_token=self._reads_token,
        )

    def known(
        self, claim: CookieClaim | None, key_of: Callable[[Key], bytes | None], slots: Sequence[SlotView], now: float
    ) -> Route | None:
        """The slot for a client that belongs to one, or None: it is a first visit. Nothing changes by asking.

        `key_of` gives its affinity keys; it is asked for one after the other until there is one. An id of a learnt kind
        that nobody has minted here, or that is forgotten, has the last word: its hash, so that its requests meet.
        """
        unknown: bytes | None = None
        for key in self.keys:
            if key.is_own_cookie:
                if claim is not None:
                    return self._by_cookie(claim, slots)
            elif (value := key_of(key)) is not None:
                if key.text not in self.learnt or self.knows(value, now):
                    return self._by_key(value, claim, slots, now)
                unknown = unknown or value
        return None if unknown is None else self._by_key(unknown, claim, slots, now)

    def knows(self, key: bytes, now: float) -> bool:
        """Whether an affinity key has a slot already, so that its hash is not asked."""
        return self._table.get(key, now) is not None

    def learn(self, key: bytes, slot: Slot, now: float) -> bool:
        """The worker of `slot` has minted the id of `key`: requests that bring it go there. Whether there was room."""
        return self._table.learn(key, slot, now)

    def runner_up(self, route: Route, slots: Sequence[SlotView], *, exclude: Collection[Slot]) -> Route | None:
        """Where to go instead of `route.slot`: a slot not in `exclude` that is open, or None.

        Those that belong together meet there too: where the key's connections are, or where all of them go now. It
        is a detour: a cookie that there is stays as it is.
        """
        candidates = [view for view in slots if view.is_open and view.slot not in exclude]
        if not candidates:
            return None
        if route.key is not None:
            kept = self._table.get_live(route.key)
            slot = (
                kept if kept is not None and _exists(kept, candidates) else home_of_key(route.key, _numbers(candidates))
            )
        elif route.claim is not None:
            slot = home_of_session(route.claim.session, _numbers(candidates))
        else:
            slot = self._by_load.choose(candidates, "")
        return Route(slot, RouteReason.RUNNER_UP, route.claim, route.key, self.cookie_slot(route.claim, slot))

    def followed(self, route: Route, slots: Sequence[SlotView]) -> Route | None:
        """Where to go instead of `route.slot`, because the key's other connections have gone there meanwhile.

        None: they have not, or it cannot take them. Asked for a connection that has waited for its slot.
        """
        if route.key is None:
            return None
        kept = self._table.get_live(route.key)
        if kept == route.slot or not any(view.slot == kept and view.is_open for view in slots):
            return None
        assert kept is not None
        return Route(kept, RouteReason.RUNNER_UP, route.claim, route.key, self.cookie_slot(route.claim, kept))

    def least_loaded(self, slots: Sequence[SlotView]) -> Slot | None:
        """The slot that has least to do of those that are ready and in service, or None: there is none."""
        candidates = [view for view in slots if view.is_ready and not view.is_drained]
        return self.balance.least(candidates).slot if candidates else None

    def connected(self, route: Route, now: float) -> bytes | None:
        """A connection is on its way by `route`. The key that it is counted under, or None.

        Such a key is owed `given_up`, or `taken` and then `ended`.
        """
        if route.key is None:
            return None
        is_detour = route.reason is RouteReason.RUNNER_UP
        return route.key if self._table.connected(route.key, route.slot, now, is_detour=is_detour) else None

    def adopt(self, key: bytes, slot: Slot, now: float) -> bool:
        """The worker of `slot` has a connection with `key` from before our time. Whether it is owed `ended`."""
        return self._table.adopt(key, slot, now)

    def taken(self, key: bytes, slot: Slot) -> None:
        """A connection for which `connected` gave `key` has reached the worker of `slot`."""
        self._table.taken(key, slot)

    def moved(self, key: bytes, old: Slot, new: Slot, now: float) -> None:
        """A connection with `key` that had reached the worker of `old` has that of `new` now."""
        self._table.moved(key, old, new, now)

    def given_up(self, key: bytes, now: float) -> None:
        """A connection for which `connected` gave `key` does not reach its slot."""
        self._table.given_up(key, now)

    def ended(self, key: bytes, slot: Slot, now: float) -> None:
        """A connection with `key` that had reached the worker of `slot` is over."""
        self._table.ended(key, slot, now)

    def _by_cookie(self, claim: CookieClaim, slots: Sequence[SlotView]) -> Route:
        if claim.gateway != self.gateway:
            # Its hint speaks of another gateway's slots, and that gateway wants it back unchanged.
            slot = home_of_session(claim.session, _numbers(in_service(slots)))
            return Route(slot, RouteReason.SESSION_HASH, claim, None, None)
        if _exists(claim.slot, slots):
            return Route(claim.slot, RouteReason.COOKIE, claim, None, self.cookie_slot(claim, claim.slot))
        # The session's id, not a new choice: two tabs that come back at once have to meet.
        slot = home_of_session(claim.session, _numbers(in_service(slots)))
        return Route(slot, RouteReason.SESSION_HASH, claim, None, slot)

    def _by_key(self, key: bytes, claim: CookieClaim | None, slots: Sequence[SlotView], now: float) -> Route:
        slot = self._table.get(key, now)
        reason = RouteReason.KEY_TABLE
        if slot is not None and not _exists(slot, slots):
            # Its connections, and what there is of it, have gone there. Loads would say something else.
            slot = home_of_key(key, _numbers(in_service(slots)))
            reason = RouteReason.KEY_HASH
        elif slot is None:
            slot, is_second_choice = pick_bounded(key, {view.slot: view.connections for view in in_service(slots)})
            reason = RouteReason.KEY_BOUNDED if is_second_choice else RouteReason.KEY_HASH
        return Route(slot, reason, claim, key, self.cookie_slot(claim, slot))

    def cookie_slot(self, claim: CookieClaim | None, slot: Slot) -> Slot | None:
        """What a cookie is to name on a route to `slot`. A detour, or another key, never changes the slot of one that
        is good; another gateway's is that gateway's to renew."""
        if claim is None:
            return slot
        return claim.slot if claim.is_by_older_key and claim.gateway == self.gateway else None


def _exists(slot: Slot, slots: Sequence[SlotView]) -> bool:
    return slot in [view.slot for view in slots]  # cheaper than any() with a generator, and every cookie asks


def _numbers(slots: Sequence[SlotView]) -> list[Slot]:
    return [view.slot for view in slots]
