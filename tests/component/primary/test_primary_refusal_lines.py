"""A refused connection has its access line; of a flood, the first ones of each second."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import pytest
from primary_rig import Rig

from stickygw.primary.refusal import MAX_LINES_PER_SECOND

MakeRig = Callable[..., Awaitable[Rig]]
BAD = b"GET / HTTP/9.9\r\n\r\n"


async def refused(rig: Rig) -> None:
    client = await rig.client(BAD)
    assert (await client.read_to_end()).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(("is_unix", "name"), [(False, "127.0.0.1"), (True, "unix")])
async def test_a_refusal_is_told_with_client_reason_and_status(
    make_rig: MakeRig, caplog: pytest.LogCaptureFixture, is_unix: bool, name: str
) -> None:
    caplog.set_level(logging.INFO, "stickygw.access")
    await refused(await make_rig(slots=1, is_unix=is_unix))
    [record] = caplog.records
    told = {key: value for key, value in vars(record)["fields"].items() if value is not None}
    assert told == {"client": name, "reason": "bad_version", "kind": "refused", "status": 400}


async def test_a_flood_is_counted_and_not_logged(make_rig: MakeRig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rig = await make_rig(slots=1)
    rig.refusals._loop = Still(rig.refusals._loop)  # type: ignore[assignment]
    for _ in range(MAX_LINES_PER_SECOND + 5):
        await refused(rig)
    assert rig.counters.value("refusals", "bad_version") == MAX_LINES_PER_SECOND + 5
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("stickygw.")]
    assert lines == ["access"] * MAX_LINES_PER_SECOND + ["more are refused in this second than are logged"]


class Still:
    """The loop, at a time that does not go on."""

    def __init__(self, loop: object) -> None:
        self._loop = loop

    def time(self) -> float:
        return 7.5

    def __getattr__(self, name: str) -> object:
        return getattr(self._loop, name)
