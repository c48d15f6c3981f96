"""States, and copies of messages, that are too long for a datagram: they travel in a memory file as last descriptor."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from functools import partial

from stickygw.ipc.move_link import MoveLink
from stickygw.wire.move import MAX_STATE_BYTES, Copy, MoveError, MoveMessage

log = logging.getLogger("stickygw.move")

MAX_COPY_BYTES = 64 * 1024 * 1024
"""Of one message that was published: more than any sensible bound of messages."""


class StateLost(ValueError):
    """The memory file of a message has not come, or has more bytes than are read."""


def send_state(link: MoveLink, message: Callable[[bytes], MoveMessage], state: bytes, fds: Sequence[int] = ()) -> None:
    """Send ``message(state)`` with `fds`; what is longer than `MAX_STATE_BYTES`, as ``message(b"")`` with a file.

    Raises `MoveError`, and OSError when no descriptor or no memory can be had.
    """
    if len(state) <= MAX_STATE_BYTES:
        link.send(message(state), fds)
        return
    memory = os.memfd_create("stickygw-state", os.MFD_CLOEXEC)
    try:
        rest = memoryview(state)
        while rest:  # less is written where files may not be as long, or memory is short: the next write says so
            rest = rest[os.write(memory, rest) :]
        link.send(message(b""), (*fds, memory), file_bytes=len(state))
    finally:
        os.close(memory)


def send_copy(link: MoveLink, channel: bytes, data: bytes) -> None:
    """Send what was published, however long. On a link that is full, or where there is neither memory nor a descriptor,
    it is left out: the next one there shows a hole."""
    if link.is_full:
        return
    try:
        send_state(link, partial(Copy, channel), data)
    except (MoveError, OSError) as error:
        log.error("move: a message is lost to who has moved: %s", error)


def read_copy(data: bytes, fds: Sequence[int]) -> bytes | None:
    """What was published, of a `Copy` that came with `fds`. None: it was lost on the way, and the next one shows a
    hole."""
    if data:
        return data
    try:
        return read_state(fds, max_bytes=MAX_COPY_BYTES)
    except (StateLost, OSError) as error:
        log.error("move: a message is lost to who has moved: %s", error)
        return None


def read_state(fds: Sequence[int], *, max_bytes: int) -> bytes:
    """The state in the memory file, which is the last of `fds`. Raises `StateLost`, and OSError."""
    if not fds:
        raise StateLost("its state was lost: this worker has as many descriptors as it may")
    size = os.fstat(fds[-1]).st_size
    if size > max_bytes:
        raise StateLost(f"a state of {size} bytes, at most {max_bytes} are read")
    return os.pread(fds[-1], size, 0)
