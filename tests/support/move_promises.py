"""What is promised to the clients of a `MoveWorld`, whoever publishes and moves, whatever is slow, cut off or dies:
`PromisingWorld`."""

from __future__ import annotations

from support.move_world import CLIENTS, NEW, OLD, OTHER, Message, MoveWorld
from support.moving_workers import Client, Connection


class PromisingWorld(MoveWorld):
    """`keeps_promises` at any time, `ends_well` at last."""

    def keeps_promises(self) -> None:
        for client in self.clients:
            self.comes_once_in_order(client, client.got)
            self.comes_once_in_order(client, client.orders)
            self.is_its_own(client)
        self.nothing_fails()

    def comes_once_in_order(self, client: Client, numbers: list[int]) -> None:
        """Orders may overtake messages, which wait for the end of a turn. Where the old worker has lost some, and was
        told, the new one may have recorded them: they come late then, behind what the old one heard of other rooms."""
        assert len(set(numbers)) == len(numbers), f"{client.name} got {numbers}"
        last: dict[tuple[Client, tuple[str, ...]], int] = {}
        for message in (self.messages[number - 1] for number in numbers):
            way = message.sender, () if self.is_calm else message.addresses
            assert last.get(way, 0) < message.number, f"{client.name} got {numbers}"
            last[way] = message.number

    def is_its_own(self, client: Client) -> None:
        for message in (self.messages[number - 1] for number in client.got + client.orders):
            assert message.is_order == (message.number in client.orders)
            assert client is not message.excluded
            if message.to:
                assert client.name == message.to
                continue
            stays = [stay for stay in client.stays if stay.address in message.addresses]
            assert any(stay.end is None or stay.end > message.sent_at for stay in stays)
            if message.is_local:
                assert client in message.near

    def nothing_fails(self) -> None:
        for worker in self.workers:
            assert worker.counters.total("deliver_failed") == 0
            if self.is_calm:
                assert worker.counters.total("bridge_old") == 0
        if self.is_calm and not self.was_full:
            assert self.gaps == 0

    @property
    def was_full(self) -> bool:
        """Whether a record was."""
        return any(link.record.was_full for link in self.links)

    def refused(self, connection: Connection) -> None:
        """It has been given what was published beside it before it was known to be refused."""
        client = connection.client
        assert self.link is not None
        for message in self.messages[: self.published_before]:
            if (
                message.worker is self.link.old
                and message.near.get(client) == "here"
                and client is not message.excluded
            ):
                stays = [stay for stay in client.stays if stay.address in message.addresses and stay.end is None]
                if message.to == client.name or any(stay.start <= message.sent_at for stay in stays):
                    assert message.number in client.got + client.orders
        super().refused(connection)

    def missed(self) -> list[tuple[str, int, str]]:
        """What clients should have, and have not: whose name, which message, and why it should."""
        return [
            (client.name, message.number, why)
            for client in self.clients
            for message in self.messages
            if not client.is_lost
            and client.refused_at is None
            and client is not message.excluded
            and message.number not in client.got + client.orders
            and (why := self.why_due(client, message))
        ]

    def why_due(self, client: Client, message: Message) -> str:
        """Why `client` should have it; "": it need not."""
        if message.to:
            # Who is in no room is told nothing, not even that a record was full.
            is_due = client.name == message.to and not self.was_full and (self.is_calm or self.is_near(client, message))
            return "to it" if is_due else ""
        if message.is_local and (message.near.get(client, "on its way") == "on its way" or self.has_died):
            return ""
        for address in message.addresses:
            stay = client.stay_in(address)
            if stay is None or stay.start > message.sent_at:
                continue
            # Where whatever comes first counts, what is newer may come by the store before a copy of what that lost.
            may_be_told = self.was_full or any(not link.is_same_slot for link in self.links)
            if self.is_near(client, message) and not (may_be_told and stay.told >= message.sent_at):
                return f"near in {address!r}"
            if (
                stay.sure is not None
                and stay.sure <= message.sent_at
                and stay.told < message.sent_at
                and not message.worker.is_dead
            ):
                return f"in {address!r}"
        return ""

    def is_near(self, client: Client, message: Message) -> bool:
        where = message.near.get(client)
        return where == "here" or (where is not None and not self.has_died and (where == "linked" or self.is_calm))

    def ends_well(self) -> None:
        """In the end everybody has got everything, and who is left has moved."""
        try:
            for number in (OLD, NEW, OTHER):
                self.mend(number)
            self.finish()
            link = self.link
            if link is not None:
                for _ in range(4):
                    for number in (OLD, NEW, OTHER):
                        self.settle(number)
                    self.finish()
                    self.move(set(range(CLIENTS)))
                    self.finish()
                assert not link.old.connections
                self.finish_move()
                self.finish()
                for worker in self.workers:
                    assert not worker.audience._withheld
                    assert not worker.audience._held
            self.keeps_promises()
            assert self.missed() == []
        finally:
            self.bounds.undo()
