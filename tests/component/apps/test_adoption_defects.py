"""Whatever goes wrong while a connection is adopted, the old worker has an answer, and nothing of it is left here."""

from __future__ import annotations

import os
from typing import Any

import pytest
from support.joined_workers import Joined, joined
from support.waiting import wait_until

from stickygw import App, Connection
from stickygw.wire.link import Offer


class Admitted:
    """How many connections the new worker has room for, and has ended."""

    def __init__(self) -> None:
        self.count = 0
        self.ended = 0

    def admit(self, offer: Offer) -> Any:
        self.count += 1
        return self._end

    def _end(self) -> None:
        self.ended += 1


def echo() -> App:
    app = App()

    @app.on_connect
    async def enter(conn: Connection) -> None:
        await conn.join("hall")

    @app.on_message
    async def said(conn: Connection, message: str) -> None:
        await conn.send(message)

    return app


PLACES = {
    "its session": lambda workers: (workers.new.sessions, "adopt"),
    "its socket": lambda workers: (workers.coming, "_revived"),
    "its end of session": lambda workers: (workers.new.sessions, "watch"),
    "its rooms": lambda workers: (workers.coming._rooms, "arrive"),
}


def break_once(monkeypatch: pytest.MonkeyPatch, workers: Joined, place: str) -> None:
    where, name = PLACES[place](workers)
    as_it_is = getattr(where, name)

    def broken(*args: object, **more: object) -> None:
        monkeypatch.setattr(where, name, as_it_is)
        raise RuntimeError("what nobody thought of")

    monkeypatch.setattr(where, name, broken)


@pytest.mark.parametrize("place", PLACES)
async def test_a_defect_costs_one_connection_and_is_in_the_log(
    place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    admitted = Admitted()
    before = len(os.listdir("/proc/self/fd"))
    async with (
        joined(echo(), echo()) as workers,
        workers.old.connect("/") as one,
        workers.old.connect("/") as other,
    ):
        for client in (one, other):
            await client.send("a")
            assert await client.receive() == "a"
        workers.begin()
        monkeypatch.setattr(workers.coming, "_admit", admitted.admit)
        break_once(monkeypatch, workers, place)
        outcome = await workers.outcome()
        assert (outcome.moved, outcome.refused, outcome.left) == (1, 1, 0)
        assert len(workers.new.runtime.connections) == 1
        assert workers.new.sessions.session_count == 1
        assert admitted.count - admitted.ended == 1
        assert len(workers.new.runtime.hub.members_of("hall")) == 1
        await wait_until(lambda: 1012 in (one.close_code, other.close_code))
        survivor = other if one.close_code == 1012 else one
        await survivor.send("b")
        assert await survivor.receive() == "b"
    assert "move: a connection cannot be taken" in caplog.text
    assert "what nobody thought of" in caplog.text
    assert len(os.listdir("/proc/self/fd")) == before
