"""What both kinds of publisher do alike: number and sign what they send, over connections that send nothing twice."""

from __future__ import annotations

import json
import os
import re
import secrets
import threading
from collections.abc import Iterator, Sequence
from typing import Any
from weakref import WeakSet

from redis.exceptions import ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from stickygw.bridge.addresses import channel_of
from stickygw.bridge.base import Publication
from stickygw.bridge.sequences import Numbering
from stickygw.config.redacted import line_of
from stickygw.errors import PublishError
from stickygw.publisher.letters import Parts
from stickygw.routing.cookie import MIN_SECRET_BYTES
from stickygw.types import PREFIX_PATTERN
from stickygw.wire.envelope import ORIGIN_BYTES, Envelope, EnvelopeKeys

Command = tuple[str, bytes, bytes]
"""``PUBLISH``, a channel and an envelope."""


class Sender:
    """A sender as receivers know it: its origin and its numbers. Its `lock` is held while its commands are sent, since
    a number that comes behind a higher one is dropped."""

    def __init__(self, secret: str | bytes | None, prefix: str) -> None:
        if not re.fullmatch(PREFIX_PATTERN, prefix):  # of "a:room", rooms would be rooms of "a"
            raise ValueError(f"a prefix is text that matches {PREFIX_PATTERN}, not {prefix!r:.80}")
        self._keys = EnvelopeKeys([] if secret is None else [_newest(secret)])
        self._prefix = prefix
        self.begin()
        _senders.add(self)

    def begin(self) -> None:
        """Be a new sender."""
        self.lock = threading.Lock()
        self._origin = secrets.token_bytes(ORIGIN_BYTES)
        self._numbering = Numbering()

    def commands(self, parts: Parts) -> list[Command]:
        """The commands that publish `parts`, with the next numbers."""
        return [self._command(channel_of(self._prefix, address), publication) for address, publication in parts]

    def _command(self, channel: bytes, publication: Publication) -> Command:
        number = self._numbering.next(channel)
        envelope = Envelope(
            self._origin, number, publication.opcode, publication.payload, publication.to, publication.group
        )
        return "PUBLISH", channel, self._keys.encode(channel, envelope)


_senders: WeakSet[Sender] = WeakSet()


def _begin_all() -> None:
    """In a forked process: with the parent's origin its messages would be taken for repetitions of the parent's."""
    for sender in list(_senders):
        sender.begin()


os.register_at_fork(after_in_child=_begin_all)


def _newest(secret: str | bytes) -> bytes:
    """What signs: `bytes` as they are; of a `str` the first entry, as the setting ``secret`` reads ``STICKYGW_SECRET``:
    separated by commas, or a JSON list. Raises `ValueError` for what no gateway takes."""
    if isinstance(secret, str):
        secret = next(_entries(secret), "").encode()
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(
            f"a secret has at least {MIN_SECRET_BYTES} bytes, not {len(secret)}; for gateways that sign nothing: None"
        )
    return secret


def _entries(text: str) -> Iterator[str]:
    try:
        entries = json.loads(text)
    except ValueError:
        entries = None
    if isinstance(entries, list):
        return (entry for entry in entries if isinstance(entry, str))
    return (entry for entry in map(str.strip, text.split(",")) if entry)


def connection_options(retry: object, timeout: float | None) -> dict[str, Any]:
    """What a connection is like: each step of it takes `timeout` seconds at most, and nothing is sent twice."""
    return {
        "protocol": 2,
        # With these, redis-py would not look whether a connection that was idle has ended.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        "retry": retry,
        "retry_on_error": [],
        "retry_on_timeout": False,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "health_check_interval": 0,
        "decode_responses": False,
    }


def check_answers(refused: Sequence[ResponseError], count: int) -> None:
    """Raise `PublishError` if any of `count` commands was `refused`: an uncertain one if the others were not."""
    if refused:
        which = "it" if count == 1 else f"{len(refused)} of {count}"
        raise PublishError(f"the store refused {which}: {line_of(refused[0])}", is_uncertain=len(refused) < count)


def unreachable(why: Exception | str) -> PublishError:
    """Nothing was sent."""
    return PublishError(f"not published, the store was not reached: {line_of(why)}", is_uncertain=False)


def unanswered(why: Exception | str) -> PublishError:
    """Something was sent, perhaps."""
    return PublishError(f"the store has not answered, so it may be published or not: {line_of(why)}", is_uncertain=True)
