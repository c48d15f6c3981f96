"""What a gateway's log says, once it says it: its lines reach a test a moment after what they tell."""

from __future__ import annotations

from support.gateway import Gateway
from support.waiting import wait_until


async def logged(gateway: Gateway, first: str, last: str) -> str:
    """Wait for a line with `first` in it and, behind it, a line that is `last`; both, and what is between them.

    Lines below a record, those of a traceback, count without their indentation.
    """

    def found() -> str | None:
        lines = [line.removeprefix("  ") for line in gateway.log.splitlines()]
        start = next((number for number, line in enumerate(lines) if first in line), len(lines))
        if last not in lines[start:]:
            return None
        return "\n".join(lines[start : lines.index(last, start) + 1])

    try:
        await wait_until(found)
    except TimeoutError:
        raise AssertionError(f"no line with {first!r}, and behind it {last!r}, in\n{gateway.log}") from None
    text = found()
    assert text is not None
    return text


def whole_log(gateway: Gateway, *, exit_code: int = 0) -> str:
    """Stop `gateway`, which ends with `exit_code` and leaves no process; all that it has said."""
    assert gateway.stop() == exit_code
    gateway.wait_for_line("\0")  # no line has it: this returns at the end of the log
    return gateway.log


def assert_quiet(gateway: Gateway) -> None:
    """Stop `gateway`: nothing that its clients did was worth a warning."""
    # How many CPUs this machine has is not the clients' doing.
    log = "\n".join(line for line in whole_log(gateway).splitlines() if "they will take turns" not in line)
    for word in ("Traceback", "ERROR", "WARNING"):
        assert word not in log
