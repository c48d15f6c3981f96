"""What a subscriber wants, has asked for and has been promised, channel by channel: `Subscriptions`. Pure.

Requests come faster than answers: a channel left and joined again has two commands under way, and only the
answer to the last one says what holds. So the unanswered commands of each channel are counted.
"""

from __future__ import annotations

from collections import Counter


class Subscriptions:
    """The channels of one subscriber across its connections."""

    def __init__(self) -> None:
        self._wanted: set[bytes] = set()
        self._sent: set[bytes] = set()  # what this connection has when the server has read all that was sent
        self._unanswered: Counter[bytes] = Counter()
        self._changed: dict[bytes, None] = {}
        self._owed: set[bytes] = set()

    def want(self, channel: bytes) -> None:
        """Subscribe at the next `take_changes`."""
        self._wanted.add(channel)
        self._changed[channel] = None

    def drop(self, channel: bytes) -> None:
        """Unsubscribe at the next `take_changes`."""
        self._wanted.discard(channel)
        self._owed.discard(channel)
        if channel in self._sent:
            self._changed[channel] = None
        else:  # it was never asked for, and while the store is away nobody takes changes
            self._changed.pop(channel, None)

    def owe(self, channel: bytes) -> None:
        """Somebody counts on `channel` without a confirmation: a gap is to be told once there is one."""
        if channel in self._wanted:
            self._owed.add(channel)

    def owe_unconfirmed(self) -> None:
        """Somebody counts on all that was asked for and is not confirmed."""
        self._owed.update(channel for channel in self._wanted if not self.is_confirmed(channel))

    def is_settled(self, channel: bytes) -> bool:
        """Whether it is confirmed and nothing is owed there."""
        return channel not in self._owed and self.is_confirmed(channel)

    def is_confirmed(self, channel: bytes) -> bool:
        """Whether the server has said that all that was asked holds, and that is a subscription."""
        return channel in self._wanted and channel in self._sent and channel not in self._unanswered

    def take_changes(self) -> tuple[list[bytes], list[bytes]]:
        """What to SUBSCRIBE and what to UNSUBSCRIBE now. What was undone meanwhile appears in neither."""
        changed, self._changed = self._changed, {}
        subscribe = [channel for channel in changed if channel in self._wanted and channel not in self._sent]
        unsubscribe = [channel for channel in changed if channel not in self._wanted and channel in self._sent]
        self._sent.update(subscribe)
        self._sent.difference_update(unsubscribe)
        self._unanswered.update(subscribe)
        self._unanswered.update(unsubscribe)
        return subscribe, unsubscribe

    def answered(self, channel: bytes) -> bool:
        """The server answered one command for `channel`. True: it is confirmed now."""
        if self._unanswered[channel] > 1:
            self._unanswered[channel] -= 1
            return False
        del self._unanswered[channel]
        return self.is_confirmed(channel)

    def lost(self) -> None:
        """The connection is gone: all is to be asked for again, and each channel is owed a gap."""
        self._sent.clear()
        self._unanswered.clear()
        self._changed = dict.fromkeys(self._wanted)
        self._owed = set(self._wanted)

    def settle(self, channel: bytes) -> bool:
        """Whether a gap is owed for `channel` and can be told, since it is confirmed. It is no longer owed
        then."""
        if channel in self._owed and self.is_confirmed(channel):
            self._owed.remove(channel)
            return True
        return False

    def settle_all(self) -> list[bytes]:
        """All channels that `settle` says True of."""
        return [channel for channel in tuple(self._owed) if self.settle(channel)]
