"""``stickygw top``: the workers of a running gateway, live, with keys to steer it."""

from __future__ import annotations

import select
import sys
import time
from typing import cast

import click
from rich.console import Console
from rich.layout import Layout
from rich.live import Live
from rich.text import Text

from stickygw.cli.gateway import on_gateway
from stickygw.cli.terminal import Keyboard
from stickygw.cli.top_keys import Keys, Order
from stickygw.cli.top_screen import screen
from stickygw.cli.words import printable
from stickygw.errors import CommandError, OperatorError
from stickygw.ipc.control_client import ControlClient
from stickygw.wire.control import Result
from stickygw.wire.status import Status

REFRESH_SECONDS = 1.0
STATUS_SECONDS = 3.0


@click.command()
@on_gateway
def top(gateway: ControlClient) -> None:
    """Watch the workers, refreshed every second.

    Keys: r reloads, + and - scale by one, d and a slot's number drains it, q quits.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("top needs a terminal; `stickygw status` does not")
    watch = Watch(gateway)
    console = Console(highlight=False)
    live = Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
    try:
        with Keyboard(sys.stdin.fileno()) as keyboard, live:
            while not watch.is_over:
                live.update(watch.picture(console.height), refresh=True)
                watch.wait(keyboard)
    except (KeyboardInterrupt, EOFError):
        pass  # Ctrl-C and a terminal that is closed are ways to leave
    finally:
        watch.close()


class Watch:
    """What ``top`` knows: the last status, and the order that is being carried out, one at a time.

    An order has a connection of its own, so that its effects show while it lasts. Who leaves does not stop it.
    """

    def __init__(self, gateway: ControlClient) -> None:
        """`gateway` answers; raises `CommandError` if it does not."""
        self._gateway = gateway
        self._keys = Keys()
        self._order = ""
        self._ordering: ControlClient | None = None
        self._news = Text()
        self._refresh()

    @property
    def is_over(self) -> bool:
        """Whether the user wants to leave."""
        return self._keys.is_over

    def picture(self, height: int) -> Layout:
        """The screen now, for a terminal of `height` lines."""
        prompt = self._keys.prompt
        return screen(self._status, self._news if prompt is None else Text(prompt), height=height)

    def wait(self, keyboard: Keyboard) -> None:
        """Return when there is something new: a key, word of the order, or a status. Raises `NoGatewayError`."""
        sources: list[Keyboard | ControlClient] = [keyboard] if self._ordering is None else [keyboard, self._ordering]
        ready, _, _ = select.select(sources, [], [], max(0.0, self._refresh_at - time.monotonic()))
        if keyboard in ready:
            for key in keyboard.pressed():
                self._press(key)
        if self._ordering is not None and self._ordering in ready:
            self._listen(self._ordering)
        if time.monotonic() >= self._refresh_at:
            self._refresh_or_say()

    def close(self) -> None:
        """Let the gateway go. Idempotent."""
        self._gateway.close()
        self._end_order()

    def _refresh(self) -> None:
        self._status = cast(Status, self._gateway.request("status", timeout=STATUS_SECONDS))
        self._refresh_at = time.monotonic() + REFRESH_SECONDS

    def _refresh_or_say(self) -> None:
        """A connection that is lost is made anew, once. Raises `NoGatewayError` if it cannot be: the gateway ended."""
        try:
            try:
                self._refresh()
            except CommandError:
                if not self._gateway.is_closed:
                    raise
                self._gateway = ControlClient(self._gateway.path)
                self._refresh()
        except CommandError as error:
            self._refresh_at = time.monotonic() + REFRESH_SECONDS
            self._say(str(error), style="bold red")

    def _press(self, key: str) -> None:
        order = self._keys.press(key, slots=self._status["slots"])
        if order is None:
            return
        if self._ordering is not None:
            self._say(f"{order}: not yet, {self._order} is under way", style="yellow")
            return
        self._give(order)

    def _give(self, order: Order) -> None:
        self._order = str(order)
        self._say(f"{order} …")
        try:
            self._ordering = ControlClient(self._gateway.path)
            self._ordering.send(order.do, order.arguments)
        except OperatorError as error:
            self._fail(error)

    def _listen(self, ordering: ControlClient) -> None:
        try:
            for reply in ordering.replies_nowait():
                if isinstance(reply, Result):
                    self._say(f"{self._order}: {reply.facts['message']}", style="green")
                    self._end_order()
                    return
                self._say(f"{self._order}: {reply.text}")
        except CommandError as error:
            self._fail(error)

    def _fail(self, error: OperatorError) -> None:
        self._say(f"{self._order}: {error}", style="bold red")
        self._end_order()

    def _end_order(self) -> None:
        if self._ordering is not None:
            self._ordering.close()
            self._ordering = None

    def _say(self, line: str, style: str = "") -> None:
        self._news = Text(printable(line), style=style)
