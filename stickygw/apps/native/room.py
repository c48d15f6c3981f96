"""`Room`: one room, as an application asks for it by name."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stickygw.apps.native.app import App
    from stickygw.bridge.hub import Member


class Room:
    """The room called `name`, whether anybody is in it or not."""

    __slots__ = ("_app", "name")

    def __init__(self, app: App, name: str) -> None:
        self._app = app
        self.name = name

    def __repr__(self) -> str:
        return f"<Room {self.name!r}>"

    def publish(self, message: Any, *, exclude: Member | None = None) -> Awaitable[None]:
        """`App.publish` to it."""
        return self._app.publish(self.name, message, exclude=exclude)

    def publish_local(self, message: Any, *, exclude: Member | None = None) -> None:
        """Send `message` to its members in this worker only."""
        self._app.runtime.audience.publish_local(self.name, self._app.codec.encode(message), exclude)

    @property
    def local_members(self) -> tuple[Member, ...]:
        """Its members in this worker, in the order of joining: connections, and ASGI WebSockets' `Rooms`."""
        return self._app.runtime.hub.members_of(self.name)
