"""`App.send_to_session` and `App.disconnect` refuse what no session, user or connection can be called."""

from __future__ import annotations

from typing import Any

import pytest

from stickygw import App
from stickygw.errors import RoomNameError
from stickygw.testing import AppClient


@pytest.mark.parametrize("id", ["", "s" * 300, "\ud800", 7])
async def test_what_is_no_id_is_refused(id: Any) -> None:
    app = App()
    async with AppClient(app):
        with pytest.raises(ValueError, match="a session's id "):
            app.send_to_session(id, "hello")
        with pytest.raises(ValueError, match="a session's id "):
            app.disconnect(session=id)
        with pytest.raises(ValueError, match="a connection's id "):
            app.disconnect(connection=id)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, ValueError),
        ({"session": "5e55", "connection": "c0"}, ValueError),
        ({"session": "", "user": ""}, ValueError),
        ({"user": ""}, RoomNameError),
        ({"user": "ada", "code": 1006}, ValueError),
        ({"session": "5e55", "reason": "r" * 124}, ValueError),
        ({"connection": "c0", "reason": "\ud800"}, ValueError),
    ],
)
async def test_what_nobody_can_order_is_refused(options: Any, error: type[Exception]) -> None:
    app = App()
    async with AppClient(app):
        with pytest.raises(error):
            app.disconnect(**options)
