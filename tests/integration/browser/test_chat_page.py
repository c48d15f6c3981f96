"""The chat as two people see it, in Chromium, served by two worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from support.chat_page import ChatPage
from support.gateway import Gateway

NewVisitor = Callable[[str], ChatPage]


def test_visitors_on_different_workers_see_each_others_messages(gateway: Gateway, new_visitor: NewVisitor) -> None:
    ada = new_visitor(gateway.url)
    grace = new_visitor(gateway.url)
    assert {ada.served["worker"], grace.served["worker"]} == {"1 of 2", "2 of 2"}

    ada.say("hello from Ada")
    grace.wait_for_text("hello from Ada")
    grace.say("<b>hello</b> from Grace")
    ada.wait_for_text("<b>hello</b> from Grace")
    ada.wait(lambda: ada.typed == "", "the message box is not empty")


@pytest.mark.long
def test_a_reload_keeps_name_and_worker(gateway: Gateway, new_visitor: NewVisitor) -> None:
    page = new_visitor(gateway.url)
    page.rename("Ada")
    before = page.served
    for visit in ("2", "3", "4"):
        page.reload()
        assert page.name == "Ada"
        assert page.served == before | {"visit": visit}


@pytest.mark.long
def test_a_restarted_gateway_finds_the_page_again_with_its_name_and_worker(
    gateway: Gateway, new_visitor: NewVisitor
) -> None:
    page = new_visitor(gateway.url)
    page.rename("Ada")
    before = page.served

    gateway.stop()
    page.wait(lambda: page.state in ("waiting", "connecting"), "the page has not noticed")
    page.say("written while away")
    assert page.typed == "written while away"
    gateway.start()
    page.wait_connected()

    assert page.name == "Ada"
    assert page.served == before | {"visit": "2"}
    assert "The connection is lost." in page.log
    assert "written while away" not in page.log, "what was not sent is not said"
    assert page.typed == "written while away"


@pytest.mark.long
def test_a_page_of_another_origin_is_refused(gateway: Gateway, new_visitor: NewVisitor, tmp_path: Path) -> None:
    visitor = new_visitor(gateway.url)  # its cookie goes out with whatever its browser sends to this host
    with foreign_page(tmp_path) as url:
        visitor.driver.get(url)
        events = visitor.driver.execute_async_script(
            """
            const [url, done] = arguments;
            const seen = [];
            const socket = new WebSocket(url);
            for (const type of ["open", "message", "error"]) socket.addEventListener(type, () => seen.push(type));
            socket.addEventListener("close", ({ code }) => done([...seen, code]));
            """,
            f"{gateway.ws_url}/ws/lobby",
        )
        console = visitor.console()
    assert events == ["error", 1006]
    assert "403" in console


@contextmanager
def foreign_page(folder: Path) -> Iterator[str]:
    """An empty page of another port of the same host: another origin with the same cookies."""
    (folder / "site").mkdir()
    (folder / "site" / "index.html").write_text("<!doctype html><title>elsewhere</title>", "utf-8")
    handler = partial(QuietHandler, directory=str(folder / "site"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


class QuietHandler(SimpleHTTPRequestHandler):
    """Logs nothing."""

    def log_message(self, format: str, *arguments: object) -> None:
        pass
