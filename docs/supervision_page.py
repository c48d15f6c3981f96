"""The page about supervision: what the words mean, the picture and the table of a worker's life, and every deadline."""

from __future__ import annotations

from collections import defaultdict

from member_texts import member_texts

from stickygw.config.catalogue import SETTINGS
from stickygw.primary import orphans
from stickygw.supervision import backoff, operations, roster
from stickygw.supervision.lifecycle import TRANSITIONS, Order, Sign, State
from stickygw.supervision.spread import CLIENTS_PER_SECOND
from stickygw.worker import main as worker

INTRODUCTION = """\
# Supervision

<!-- Written by docs/generate.py from the code: do not edit. -->

The primary keeps a worker process in each *slot*. A slot is a number, and clients belong to slots: a process that dies,
or that a deploy replaces, takes nobody's place away. The worker that gets a slot's new connections is its *owner*.

- A slot has at most one owner, and at most two processes: while a worker is replaced, the next one starts beside the
  owner, and the one before it drains beside the next.
- A worker owns its slot when its application has started, not when its process exists. The one before it drains from
  then on, so that a replacement never leaves a slot empty.
- The worker before it moves its live WebSockets to the owner, as [live-move.md](explanation/live-move.md) tells, and
  closes only what cannot move. One whose slot goes, or is drained, moves them to the owners of all other slots in
  service. Slots go one by one, the last one first, each when the one before has given away what it could.
- A worker that dies is started again, whatever else is going on. An application that cannot start ends the gateway only
  if no worker has been ready since the gateway began.
- Commands and recycling are done one at a time, slot by slot. {waiting} commands may wait; further ones are refused.
- A replacement that does not become ready ends its command: the worker before it serves on, slots that were done stay
  as they are, and a failed scale-up takes all its new slots back.
- The last slot that serves cannot be drained or taken away.
- While the primary itself stood still, nobody counts as silent.
- In a stop nothing is started, and what commands still wait for is refused.
- Workers outlive a primary that is killed. The next one finds each in its slot, ready or draining as it was, and goes
  on from there; [operations.md](operations.md#when-the-primary-dies-and-upgrades) tells the rest.
"""

EXPIRY = """\
A worker expires at `max_age`, `max_served` or `max_rss`, or up to {share:.0%} before, by chance: those that started
together do not expire together. It is replaced when every slot that is not drained has an owner. A `max_rss` that a
fresh worker is over already does not count for it, and is called too low in the log.\
"""


def supervision_page() -> str:
    """The page as Markdown."""
    waiting = operations.MAX_WAITING_COMMANDS
    parts = [INTRODUCTION.format(waiting=waiting), "## The life of a worker process\n", diagram(), states()]
    parts += ["\n## What is done\n", transitions(), "\n## How long\n", waits()]
    return "\n".join(parts) + "\n"


def diagram() -> str:
    """The table as a picture: an arrow for each pair of states, and one around all for what ends each of them."""
    assert all((state, Sign.IS_GONE) in TRANSITIONS for state in State if state is not State.GONE)
    arrows: dict[tuple[State, State], list[str]] = defaultdict(list)
    for (state, sign), (following, order) in TRANSITIONS.items():
        if following is not State.GONE:
            arrows[state, following].append(sign if order is None else f"{sign} / {order}")
    lines = ["```mermaid", "stateDiagram-v2", "    state alive {", f"        [*] --> {State.STARTING}"]
    lines += [f"        {start} --> {end} : {'<br/>'.join(labels)}" for (start, end), labels in arrows.items()]
    lines += ["    }", f"    alive --> {State.GONE} : {Sign.IS_GONE}", f"    {State.GONE} --> [*]", "```\n"]
    return "\n".join(lines)


def states() -> str:
    """What each state means."""
    texts = member_texts(State)
    return "\n".join(["| state | meaning |", "|---|---|", *(f"| {state} | {texts[state.name]} |" for state in State)])


def transitions() -> str:
    """The whole table: what happens, in which state, which state follows and what is done."""
    living = [state for state in State if state is not State.GONE]
    lines = ["| what happens | " + " | ".join(living) + " |", "|---" * (len(living) + 1) + "|"]
    for sign in Sign:
        lines.append("| " + " | ".join([sign, *(_cell(state, sign) for state in living)]) + " |")
    return "\n".join([*lines, "", "A dash: it changes nothing."])


def _cell(state: State, sign: Sign) -> str:
    if (state, sign) not in TRANSITIONS:
        return "–"
    following, order = TRANSITIONS[state, sign]
    return str(following) if order is None else f"{following}, {_order(order)}"


def _order(order: Order) -> str:
    return f"`{order}`" if order.startswith("SIG") else order


def waits() -> str:
    """Every wait with its end."""
    spread = f"{CLIENTS_PER_SECOND} connections a second, or `drain_spread`; at most `drain_timeout`"
    rows = [
        ("a worker that starts", _setting("start_timeout"), "`SIGABRT`: the log shows where it stands"),
        ("a worker of which nothing is heard", _setting("heartbeat_timeout"), "`SIGABRT`, likewise"),
        ("a worker that drains", f"{_setting('drain_timeout')} + {roster.CUT_SECONDS:g} s", "`SIGKILL`"),
        ("workers in a stop", f"{_setting('stop_timeout')}, or less after Ctrl-C", "`SIGKILL`"),
        (
            "a worker that says that it cannot start, or that got `SIGTERM`",
            f"{roster.GIVING_UP_SECONDS:g} s",
            "`SIGKILL`",
        ),
        ("a worker that got `SIGABRT`, or whose link is closed", f"{roster.ENDING_SECONDS:g} s", "`SIGKILL`"),
        ("a worker that got `SIGKILL`", f"{roster.ENDING_SECONDS:g} s", "`SIGKILL` again"),
        (
            "a handler that is at work, when its connection is to move",
            _setting("move_grace"),
            "its connection is closed (1012)",
        ),
        (
            "the next slot of a reload, for the clients of the one before it that could not move",
            spread,
            "its next worker is started",
        ),
        (
            "a slot whose worker died",
            f"nothing; then {backoff.FIRST_DELAY_SECONDS:g} s, doubled with each death up to "
            f"{backoff.LONGEST_DELAY_SECONDS:g} s, less up to {1 - backoff.LEAST_SHARE:.0%} by chance; after "
            f"{backoff.QUIET_SECONDS:g} s without a death nothing again",
            "its next worker is started",
        ),
        (
            "an expired worker whose replacement did not start",
            f"{operations.RECYCLE_AGAIN_SECONDS:g} s",
            "another replacement is tried",
        ),
        (
            "a worker without a primary",
            _setting("worker_orphan_timeout"),
            "it closes its connections (1001), and ends",
        ),
        (
            "such a one, if its application does not end, or blocks its event loop",
            f"{worker.ORPHAN_STOP_SECONDS + worker.GIVING_UP_SECONDS:g} s more",
            "it ends all the same (exit status `FORCED_STOP`)",
        ),
        (
            "a worker that is told to stop, and does not, without a primary",
            f"{worker.GIVING_UP_SECONDS:g} s beyond its time, `stop_timeout` after SIGTERM",
            "likewise",
        ),
        (
            "a primary that starts, for workers of a killed one",
            f"{orphans.KNOCK_SECONDS:g} s",
            "it begins without those who have not come; they are adopted when they come",
        ),
    ]
    table = ["| what waits | how long | then |", "|---|---|---|", *("| " + " | ".join(row) + " |" for row in rows)]
    return "\n".join([*table, "", EXPIRY.format(share=roster.EXPIRY_JITTER)])


def _setting(name: str) -> str:
    return f"`{name}` ({SETTINGS[name].default:g} s)"
