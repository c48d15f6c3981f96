"""The status of a gateway as tables for people: what ``status`` prints and ``top`` shows."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group
from rich.table import Table
from rich.text import Text

from stickygw.cli.words import count, delay, duration, printable, size
from stickygw.observability.words import counted
from stickygw.wire.status import SlotStatus, Status, WorkerStatus

SILENT_SECONDS = 3.0
"""A worker speaks every second; one that has not for so long is worth a line."""

MOVE_LABELS = ("moved", "refused", "drained", "lost")

COLUMNS = ("slot", "state", "gen", "pid", "up", "conns", "in/s", "out/s", "CPU", "lag", "RSS", "queued")
_LEFT = ("slot", "state")
_STYLES = {
    "ready": "green",
    "starting": "yellow",
    "draining": "cyan",
    "drained": "cyan",
    "stopping": "magenta",
    "ending": "magenta",
    "backing off": "bold red",
}


def report(status: Status) -> Group:
    """All of it."""
    parts: list[Table | Text] = [*head(status), Text(), workers(rows(status))]
    for title, lines in (("notes", notes(status)), ("counters", _counters(status))):
        if lines:
            parts += [Text(), Text(title, style="bold"), *lines]
    return Group(*parts)


def head(status: Status) -> list[Text]:
    """Three lines about the gateway as a whole."""
    taken = [worker for worker in status["workers"] if worker["is_owner"]]
    each_second = count(sum(worker["received_per_second"] for worker in taken))
    sent = count(sum(worker["sent_per_second"] for worker in taken))
    return [
        Text.assemble(
            (f"stickygw {status['version']}", "bold"),
            f"  {printable(status['target'])}  pid {status['pid']}  up {duration(status['uptime'])}",
        ),
        Text(printable(f"{' '.join(status['addresses'])}  {status['runtime_dir']}")),
        Text.assemble(
            (status["state"], "green" if status["state"] == "running" else "bold yellow"),
            f"  gen {status['generation']}  {counted(status['slots'], 'slot')}"
            f"  {counted(status['connections'], 'connection')}  {status['pending']} pending"
            f"  {each_second} in/s  {sent} out/s",
        ),
    ]


def rows(status: Status) -> list[list[Text]]:
    """One for each worker, a slot's owner first, and one for each slot that has no worker."""
    ordered = sorted(status["workers"], key=lambda worker: (worker["slot"], not worker["is_owner"], worker["worker"]))
    busy = {worker["slot"] for worker in ordered}
    found = [(worker["slot"], _worker(worker)) for worker in ordered]
    found += [(slot["slot"], _idle(slot)) for slot in status["slots_detail"] if slot["slot"] not in busy]
    return [row for _, row in sorted(found, key=lambda pair: pair[0])]


def workers(found: list[list[Text]]) -> Table:
    """The table of `rows`."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in _LEFT else "right", no_wrap=True)
    for row in found:
        table.add_row(*row)
    return table


def notes(status: Status) -> list[Text]:
    """What needs a sentence: what is wrong first, then what the application reports of itself."""
    told = sorted(status["workers"], key=lambda worker: worker["slot"])
    wrong = [Text(printable(line), style="red") for line in _wrong(status["slots_detail"], told)]
    reports = [Text(printable(f"slot {worker['slot']}: {_pairs(worker)}")) for worker in told if worker["report"]]
    return wrong + reports + _moves(status["counters"])


def _moves(counters: dict[str, int]) -> list[Text]:
    """What became of connections whose workers were replaced, or gave up their slots, since the gateway started."""
    moved, refused, drained, lost = (counters.get(f"moves{{{label}}}", 0) for label in MOVE_LABELS)
    if not moved + refused + drained + lost:
        return []
    text = f"moves: {counted(moved, 'connection')} moved, {drained} drained, {refused} refused and closed, {lost} lost"
    return [Text(text)]


def _wrong(slots: list[SlotStatus], told: list[WorkerStatus]) -> Iterator[str]:
    for worker in told:
        if worker["blocked"] is not None:
            yield f"slot {worker['slot']}: blocked in {worker['blocked']}"
        elif worker["silent_for"] >= SILENT_SECONDS and worker["state"] != "starting":
            yield f"slot {worker['slot']}: silent for {duration(worker['silent_for'])}"
    for slot in slots:
        if slot["state"] == "backing off":
            yield f"slot {slot['slot']}: {_back_off(slot)}"


def _back_off(slot: SlotStatus) -> str:
    seconds = slot["next_start_in"]
    when = "" if seconds is None else f", again in {delay(seconds)}"
    why = "" if slot["last_failure"] is None else f": {slot['last_failure']}"
    return f"{counted(slot['restarts'], 'restart')}{when}{why}"


def _worker(worker: WorkerStatus) -> list[Text]:
    state = worker["state"]
    style = "bold red" if worker["blocked"] is not None else _STYLES.get(state, "")
    return [
        Text(str(worker["slot"])),
        Text("blocked" if worker["blocked"] is not None else state, style=style),
        *(
            Text(cell)
            for cell in (
                str(worker["generation"]),
                str(worker["pid"]),
                duration(worker["uptime"]),
                count(worker["connections"]),
                count(worker["received_per_second"]),
                count(worker["sent_per_second"]),
                f"{worker['cpu']:.0%}",
                delay(worker["lag"]),
                size(worker["rss"]),
                count(worker["queued"]),
            )
        ),
    ]


def _idle(slot: SlotStatus) -> list[Text]:
    cells = [Text("–")] * (len(COLUMNS) - 2)
    return [Text(str(slot["slot"])), Text(slot["state"], style=_STYLES.get(slot["state"], "")), *cells]


def _counters(status: Status) -> list[Text]:
    counters = status["counters"]
    width = max((len(str(number)) for number in counters.values()), default=0)
    return [Text(printable(f"{number:>{width}}  {name}")) for name, number in sorted(counters.items())]


def _pairs(worker: WorkerStatus) -> str:
    return " ".join(f"{name}={value}" for name, value in worker["report"].items())
