"""The standard streams of a worker whose primary is gone, and with it perhaps who read them."""

from __future__ import annotations

import logging
import os
import select

log = logging.getLogger("stickygw.worker")

STREAMS = (1, 2)
"""Standard output and error."""


def leave_dead_streams() -> None:
    """Write to /dev/null from now on what nobody reads any more.

    Else each ``print`` of the application would raise `BrokenPipeError`, in the middle of a handler. Without a
    descriptor for it they stay as they are.
    """
    for number in STREAMS:
        try:
            if _is_dead(number):
                take_stream(number, os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))
        except OSError as error:
            log.error("stream %d is read by nobody and stays: %s", number, error)


def take_stream(number: int, fd: int) -> None:
    """Make `fd`, which is owned here, the stream `number` of `STREAMS`. Children inherit it, too."""
    try:
        if number in STREAMS:
            os.dup2(fd, number)
    finally:
        os.close(fd)


def _is_dead(number: int) -> bool:
    """Whether it is a pipe or a socket that nobody reads (poll(2): POLLERR for the writing end of such a pipe)."""
    poll = select.poll()
    poll.register(number, 0)
    events = [event for _, event in poll.poll(0)]
    return any(event & (select.POLLERR | select.POLLHUP) for event in events)
