"""Where a client would go now, and why, in sentences: what ``stickygw why`` shows.

The router's own decisions, put into words. Nothing changes by asking: no turn is taken, no number drawn, no key kept;
where chance decides, it says between what. Session ids, signatures and keys' values are credentials: none is repeated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stickygw.routing.cookie import MAX_CANDIDATES, CookieClaim, cookie_values
from stickygw.routing.keys import MAX_KEY_BYTES, Key
from stickygw.routing.load import SlotView
from stickygw.routing.rendezvous import LOAD_FACTOR
from stickygw.routing.request_head import Head, first_values
from stickygw.routing.router import Route, Router, RouteReason
from stickygw.types import Slot

MAX_LISTED = 16
"""Slots of one kind that are told one by one: a gateway may have a thousand."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a client would go: its slot, or None where chance decides; the route's reason; how it came to that.

    A slot that cannot take it now is named all the same: the last of `steps` tells what happens then.
    """

    slot: Slot | None
    reason: str
    steps: list[str]


def explain(
    router: Router,
    *,
    cookie: str | None,
    ip: str | None,
    key: str | None,
    slots: Sequence[SlotView],
    now: float,
    wall: float,
) -> Explanation:
    """Where a client with these would go, and why. What is None it does not have, or is not known.

    `cookie`: the value of our cookie, or whole Cookie lines with whatever is in them; `ip`: its address, as
    `TrustedProxies.client_of` writes it; `key`: the value of the first affinity key that knows it, or else of the first
    that is neither our cookie nor learnt, if there is one. `slots`, `now` and `wall` are as in `Router.route`.
    """
    head = _request(router.cookie_name, cookie)
    claim = router.claim_of(head, wall)
    steps = [f"affinity keys, in the order in which they are tried: {', '.join(kind.text for kind in router.keys)}"]
    if cookie is not None:
        steps += _about_cookie(router, head, claim, wall)
    route = router.known(claim, _key_of(router, head, ip, key, now, steps), slots, now)
    if route is not None:
        steps.append(_belongs(router, route))
    else:
        steps += _about_first_visit(router, slots)
        route = _first_visit(router, claim, slots, ip)
        if route is None:
            return Explanation(None, router.first_visit_reason, steps)
    steps += _from_there(router, route, slots)
    return Explanation(route.slot, route.reason, steps)


# --- what the client brings -------------------------------------------------------------------------------------------


def _request(cookie_name: str, cookie: str | None) -> Head:
    """A request with nothing but these cookies."""
    fields = []
    for line in (cookie or "").splitlines():
        line = line.strip()
        if line[:7].lower() == "cookie:":
            line = line[7:].lstrip()
        # The value of our cookie has no equals sign, and every pair of name and value has one.
        fields.append((b"cookie", (line if "=" in line else f"{cookie_name}={line}").encode()))
    return Head("GET", "/", "/", "", "1.1", fields, 0, False, first_values(fields))


def _key_of(
    router: Router, head: Head, ip: str | None, given: str | None, now: float, steps: list[str]
) -> Callable[[Key], bytes | None]:
    """The client's affinity keys, for the router to ask for; `steps` gets a line for each that it does not have."""
    told = None if given is None else _kind_of(router, given.encode(), now)
    if given is not None and told is None:
        steps.append("no affinity key is set beside the cookie, so the key that is given decides nothing")

    def key_of(kind: Key) -> bytes | None:
        if given is None or kind is not told:
            value = kind.of(head, ip or "")
            absent = f"{kind.text}: none is given; a request that has it goes by it"
        else:
            value = kind.for_value(given.encode())
            absent = f"{kind.text}: one that is empty or longer than {MAX_KEY_BYTES} bytes is no key"
        if value is None:
            steps.append(absent)
        return value

    return key_of


def _kind_of(router: Router, value: bytes, now: float) -> Key | None:
    """The kind of key that `value` is one of, as far as that can be told; None: there is no kind."""
    kinds = [kind for kind in router.keys if not kind.is_own_cookie]
    for kind in kinds:
        key = kind.for_value(value)
        if key is not None and router.knows(key, now):
            return kind
    # An id that was learnt would be known, so it is rather one of a kind that clients choose.
    return next((kind for kind in kinds if kind.text not in router.learnt), next(iter(kinds), None))


def _about_cookie(router: Router, head: Head, claim: CookieClaim | None, wall: float) -> list[str]:
    values = cookie_values(head.fields, router.cookie_name.encode())
    if not values:
        return [f"there is no cookie called {router.cookie_name}"]
    if len(values) > MAX_CANDIDATES:
        return [f"{len(values)} cookies are called {router.cookie_name}; of more than {MAX_CANDIDATES} none counts"]
    if claim is None:
        return [_fault(router, value, wall) for value in values]
    which = "the cookie is genuine" if len(values) == 1 else f"of {len(values)} cookies the newest genuine one counts"
    gateway = "ours" if claim.gateway == router.gateway else f"another ({claim.gateway})"
    issued = f"issued {_duration(wall - claim.issued)} ago" if wall >= claim.issued else "issued in the future"
    return [f"{which}: session {claim.session[:4]}…, gateway {gateway}, slot {claim.slot}, {issued}"]


def _fault(router: Router, value: bytes, wall: float) -> str:
    """Why this cookie of our name, one of some that prove nothing, does not count."""
    verify, lifetime = router.cookie_keys.verify, router.cookie_lifetime
    if verify(value, now=wall, lifetime=math.inf) is None:
        return "the cookie is not genuine: wrong signature; it was altered or cut, or signed with a secret not set here"
    if verify(value, now=wall, lifetime=lifetime) is None:
        return f"the cookie is genuine, but expired: it was issued more than {_duration(lifetime)} ago"
    return "the cookie is genuine, but there is another one for another session, so neither counts"


# --- what is decided --------------------------------------------------------------------------------------------------


def _belongs(router: Router, route: Route) -> str:
    """Why a client that the router knows something of belongs to `route.slot`."""
    key = "" if route.key is None else route.key.partition(b"\x00")[0].decode()
    match route.reason:
        case RouteReason.COOKIE:
            return f"the cookie names slot {route.slot}, which exists"
        case RouteReason.SESSION_HASH if route.claim is not None and route.claim.gateway != router.gateway:
            return f"another gateway's slots mean nothing here: the session's hash says slot {route.slot}"
        case RouteReason.SESSION_HASH:
            return f"the cookie's slot does not exist now: the session's hash says slot {route.slot}"
        case RouteReason.KEY_TABLE:
            minted = ", or was minted there" if key in router.learnt else ""
            return f"{key}: this key is in use, or was until a moment ago, at slot {route.slot}{minted}"
        case RouteReason.KEY_HASH:
            return f"{key}: this key is new here, and its hash says slot {route.slot}"
        case RouteReason.KEY_BOUNDED:
            return (
                f"{key}: this key is new here; the slot of its hash has over {LOAD_FACTOR} times the mean of "
                f"connections, so it goes to the next best, slot {route.slot}"
            )
        case _:
            raise AssertionError(f"{route.reason} is no reason to belong to a slot")


def _first_visit(router: Router, claim: CookieClaim | None, slots: Sequence[SlotView], ip: str | None) -> Route | None:
    """The route of a first visit, or None where it cannot be told."""
    if ip is None and router.first_visit_reason is RouteReason.CLIENT_IP:
        return None
    slot = router.first_visit.foreseen(slots, ip or "")
    if slot is None:
        return None
    return Route(slot, router.first_visit_reason, claim, None, router.cookie_slot(claim, slot))


def _about_first_visit(router: Router, slots: Sequence[SlotView]) -> list[str]:
    candidates = router.first_visit.candidates(slots)
    scored = sorted(zip(router.balance.scores(candidates), candidates, strict=True), key=lambda entry: entry[0])
    competing = {view.slot for view in candidates}
    passed_over = [f"slot {view.slot} ({_state(view)})" for view in slots if view.slot not in competing]
    steps = ["it belongs to no slot yet: a first visit"]
    match router.first_visit_reason:
        case RouteReason.LEAST_LOADED if len(candidates) == 1:
            steps.append(f"slot {candidates[0].slot} is the only one that takes newcomers now")
        case RouteReason.LEAST_LOADED:
            steps.append(
                f"of two random slots the one with the lower score by {router.balance} takes it; one that is fresh "
                "stands back as often as its share is smaller than the other's"
            )
            steps += _listed([f"{_figures(view)}; score {score:.3f}" for score, view in scored])
        case RouteReason.ROUND_ROBIN:
            steps.append("the next slot in turn takes it; one that is fresh has its share of its turns only")
            steps += _listed([f"slot {view.slot}: share {view.share:.0%}" for view in candidates if view.share < 1])
        case _:
            steps.append("the hash of its address says which slot takes it")
    return [*steps, f"passed over: {', '.join(_listed(passed_over))}"] if passed_over else steps


def _from_there(router: Router, route: Route, slots: Sequence[SlotView]) -> list[str]:
    """What happens at the slot of `route`."""
    view = next(view for view in slots if view.slot == route.slot)
    there = f"slot {view.slot} is {_state(view)}"
    if view.is_open:
        is_renewed = route.claim is not None and route.cookie_slot is not None
        renewed = ", and its cookie is written anew" if is_renewed else ""
        return [there, f"it goes to slot {view.slot} ({route.reason}){renewed}"]
    other = router.runner_up(route, slots, exclude=[view.slot])
    elsewhere = "is answered 503: no other can take it" if other is None else f"goes to slot {other.slot} (runner_up)"
    if view.is_drained or view.is_full:
        return [there, f"it does not wait there, and {elsewhere}"]
    return [there, f"it waits there up to slot_wait, then {elsewhere}"]


# --- words ------------------------------------------------------------------------------------------------------------


def _state(view: SlotView) -> str:
    states = (
        (view.is_drained, "drained"),
        (not view.is_ready, "not ready"),
        (view.is_full, "full"),
        (view.is_lagging, "lagging"),
    )
    return ", ".join(word for holds, word in states if holds) or "ready"


def _figures(view: SlotView) -> str:
    load = view.load
    return (
        f"slot {view.slot} ({_state(view)}): {view.connections} connections, lag {load.lag:.3f} s, queue {load.queue}, "
        f"cpu {load.cpu:.0%}, rss {load.rss >> 20} MiB, share {view.share:.0%}"
    )


def _listed(texts: list[str]) -> list[str]:
    left = len(texts) - MAX_LISTED
    return texts if left <= 0 else [*texts[:MAX_LISTED], f"and {left} more"]


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
