"""Plain HTTP at a native application: health, files, and whose browser gets a cookie."""

import asyncio
import email.utils
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.client import Client
from support.gateway import Gateway
from support.logs import whole_log
from support.observed import is_held
from support.raw import Answer, Raw, exchange, get, head, parsed

APPS = Path(__file__).parent / "apps"
BIG = os.urandom(1024) * 5 * 1024


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pages, and what must not be seen around it."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.txt").write_text("secret")
    folder = outside / "site"
    for name, text in {
        "index.html": "<h1>home</h1>",
        "style.css": "h1 {}",
        "app.js": "1;",
        "data.json": "{}",
        "icon.svg": "<svg/>",
        "dot.png": "png",
        "unknown.kind-of-its-own": "bytes",
        "sub/index.html": "<h1>sub</h1>",
        "sub/ä b.txt": "umlaut",
        ".env": "secret",
        ".git/config": "secret",
        "sub/.hidden": "secret",
    }.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (folder / "big.bin").write_bytes(BIG)
    (folder / "link-out.txt").symlink_to(outside / "secret.txt")
    (folder / "folder-out").symlink_to(outside)
    (folder / "link-in.txt").symlink_to(folder / "style.css")
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "pipe")
    return folder


@pytest.fixture(scope="module")
def gateway(site: Path) -> Iterator[Gateway]:
    with Gateway(f"{APPS / 'pages.py'}:app", workers=2, environment={"SITE": str(site)}) as gateway:
        yield gateway
        assert "Traceback" not in whole_log(gateway)


NAVIGATION = ("Sec-Fetch-Mode", "navigate")


# Health


async def test_a_ready_gateway_says_that_it_is_well(gateway: Gateway) -> None:
    answer = await get(gateway.port, "/healthz")
    assert answer.status == 200
    health = json.loads(answer.body)
    assert health["status"] == "ok"
    assert health["slot"] in (0, 1)
    assert answer.get("Content-Type") == "application/json"
    assert answer.get("Cache-Control") == "no-store"
    assert answer.cookie is None


async def test_a_balancers_check_without_host_is_answered(gateway: Gateway) -> None:
    assert (await exchange(gateway.port, b"GET /healthz HTTP/1.0\r\n\r\n")).status == 200
    assert (await exchange(gateway.port, b"OPTIONS * HTTP/1.0\r\n\r\n")).status == 200


async def test_head_of_the_health_path_has_the_length_and_no_body(gateway: Gateway) -> None:
    answer = await get(gateway.port, "/healthz", method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.get("Content-Length") or "") > 0


# Files


@pytest.mark.parametrize(
    ("path", "content_type", "body"),
    [
        ("/", "text/html; charset=utf-8", b"<h1>home</h1>"),
        ("/index.html", "text/html; charset=utf-8", b"<h1>home</h1>"),
        ("/?a=1/../b", "text/html; charset=utf-8", b"<h1>home</h1>"),
        ("/style.css", "text/css; charset=utf-8", b"h1 {}"),
        ("/app.js?v=2", "text/javascript; charset=utf-8", b"1;"),
        ("/data.json", "application/json; charset=utf-8", b"{}"),
        ("/icon.svg", "image/svg+xml; charset=utf-8", b"<svg/>"),
        ("/dot.png", "image/png", b"png"),
        ("/unknown.kind-of-its-own", "application/octet-stream", b"bytes"),
        ("/sub/", "text/html; charset=utf-8", b"<h1>sub</h1>"),
        ("/sub/%C3%A4%20b.txt", "text/plain; charset=utf-8", b"umlaut"),
        ("/link-in.txt", "text/css; charset=utf-8", b"h1 {}"),
    ],
)
async def test_a_file_is_served_as_what_it_is(gateway: Gateway, path: str, content_type: str, body: bytes) -> None:
    answer = await get(gateway.port, path)
    assert (answer.status, answer.body) == (200, body)
    assert answer.get("Content-Type") == content_type
    assert answer.get("Content-Length") == str(len(body))
    assert answer.get("X-Content-Type-Options") == "nosniff"
    assert answer.get("Cache-Control") == "no-cache"
    assert email.utils.parsedate_to_datetime(answer.get("Last-Modified") or "")


async def test_head_of_a_file_is_its_head_without_its_body(gateway: Gateway) -> None:
    whole, answer = await get(gateway.port, "/big.bin"), await get(gateway.port, "/big.bin", method="HEAD")
    assert whole.body == BIG
    assert (answer.status, answer.body, answer.fields) == (200, b"", whole.fields)


async def test_an_unchanged_file_is_304_and_a_changed_one_is_sent(gateway: Gateway, site: Path) -> None:
    (site / "changing.txt").write_text("one")
    first = await get(gateway.port, "/changing.txt")
    tag = first.get("ETag")
    assert tag is not None
    again = await get(gateway.port, "/changing.txt", ("If-None-Match", tag))
    assert (again.status, again.body, again.get("ETag")) == (304, b"", tag)
    # A proxy that compresses makes the validator weak; a browser may know several.
    assert (await get(gateway.port, "/changing.txt", ("If-None-Match", f'"x", W/{tag}'))).status == 304
    (site / "changing.txt").write_text("two!")
    changed = await get(gateway.port, "/changing.txt", ("If-None-Match", tag))
    assert (changed.status, changed.body) == (200, b"two!")


@pytest.mark.parametrize(
    "path",
    [
        "/nothing.txt",
        "/sub",  # a folder is not a file
        "/style.css/",
        "/style.css/x",
        "/../secret.txt",
        "/sub/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/%2E%2E%2Fsecret.txt",
        "/..%2fsecret.txt",
        "/sub/..%2f..%2fsecret.txt",
        "/..%5csecret.txt",
        "/%252e%252e/secret.txt",
        "/.%2e/secret.txt",
        "//../secret.txt",
        "/%c0%ae%c0%ae/secret.txt",
        "/index.html%00.txt",
        "/link-out.txt",
        "/folder-out/secret.txt",
        "/loop",
        "/pipe",
        "/.env",
        "/.git/config",
        "/%2egit/config",
        "/sub/.hidden",
        "/" + "a" * 5000,
        "/" + "a/" * 2000,
    ],
)
async def test_what_is_no_file_below_the_folder_is_404(gateway: Gateway, path: str) -> None:
    answer = await get(gateway.port, path, NAVIGATION)
    assert answer.status == 404
    assert b"secret" not in answer.body
    assert answer.cookie is None


async def test_an_absolute_path_inside_the_target_leads_nowhere_else(gateway: Gateway, site: Path) -> None:
    for path in (f"//{site.parent}/secret.txt", f"/%2f{site.parent}/secret.txt"):
        assert (await get(gateway.port, path)).status == 404


async def test_a_slow_reader_gets_the_whole_file(gateway: Gateway) -> None:
    async with Raw(gateway.port, receive_buffer=16 * 1024) as raw:
        await raw.send(head("GET", "/big.bin"))
        data = await raw.receive(32 * 1024)
        assert is_held(gateway.port, raw.port)
        while is_held(gateway.port, raw.port):
            data += await raw.receive(16 * 1024)
        # The gateway has left the rest to the kernel: that has to arrive all the same.
        while piece := await raw.receive(32 * 1024):
            data += piece
    answer = parsed(data)
    assert answer.status == 200
    assert answer.body == BIG


async def test_a_reader_that_leaves_half_way_disturbs_nobody(gateway: Gateway) -> None:
    async with Raw(gateway.port, receive_buffer=16 * 1024) as raw:
        await raw.send(head("GET", "/big.bin"))
        await raw.receive()
        raw.reset()
    assert (await get(gateway.port, "/style.css")).status == 200


async def test_a_request_behind_the_first_is_not_answered(gateway: Gateway) -> None:
    answer = await exchange(gateway.port, head("GET", "/style.css") + head("GET", "/app.js"))
    assert answer.get("Connection") == "close"
    assert answer.body == b"h1 {}"


# What is not plain reading


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE"])
async def test_other_methods_are_told_that_this_is_for_websockets(gateway: Gateway, method: str) -> None:
    answer = await get(gateway.port, "/", ("Content-Length", "0"), method=method)
    assert answer.status == 426
    assert b"WebSocket" in answer.body
    assert answer.get("Upgrade") == "websocket"


async def test_an_application_without_files_tells_a_browser_what_it_is_for() -> None:
    with Gateway(f"{APPS / 'probe.py'}:app", workers=1) as gateway:
        answer = await get(gateway.port, "/", NAVIGATION)
        assert (await get(gateway.port, "/healthz")).status == 200
    assert answer.status == 426
    assert b"WebSocket" in answer.body
    assert answer.cookie is None


@pytest.mark.parametrize("size", [10, 300_000, 3_000_000])
async def test_who_sends_a_body_gets_the_whole_answer(gateway: Gateway, size: int) -> None:
    async with Raw(gateway.port) as raw:
        await raw.send(head("POST", "/", fields=[("Content-Length", str(size))]) + b"x" * size)
        answer = await raw.answer()  # a reset would raise
    assert answer.status == 426
    assert b"WebSocket" in answer.body


async def test_who_still_sends_after_the_answer_is_not_reset(gateway: Gateway) -> None:
    async with Raw(gateway.port) as raw:
        await raw.send(head("POST", "/", fields=[("Content-Length", "300000")]))
        assert (await raw.answer()).status == 426
        for _ in range(3):
            await asyncio.sleep(0.1)  # a slow sender, well within the time that the gateway lingers
            await raw.send(b"x" * 100_000)
            await raw.wait_arrived()  # a reset would raise


async def test_a_chunked_body_gets_the_whole_answer(gateway: Gateway) -> None:
    request = head("POST", "/", fields=[("Transfer-Encoding", "chunked")]) + b"5\r\nhello\r\n0\r\n\r\n"
    assert (await exchange(gateway.port, request)).status == 426


# The cookie


@pytest.mark.parametrize(
    "fields",
    [
        [NAVIGATION],
        [NAVIGATION, ("Accept", "*/*")],
        [("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")],  # a browser without Fetch Metadata
    ],
)
async def test_a_document_navigation_gets_a_cookie_that_no_cache_keeps(
    gateway: Gateway, fields: list[tuple[str, str]]
) -> None:
    answer = await get(gateway.port, "/", *fields)
    assert answer.status == 200
    assert answer.cookie is not None
    assert (answer.get("Cache-Control") or "").split(", ")[0] == "private"


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/", []),
        ("/", [("Accept", "*/*")]),
        ("/", [("Sec-Fetch-Mode", "cors"), ("Accept", "text/html")]),
        ("/style.css", [("Sec-Fetch-Mode", "no-cors"), ("Accept", "text/css,*/*;q=0.1")]),
        ("/app.js", [("Sec-Fetch-Mode", "no-cors")]),
        ("/dot.png", [("Accept", "image/*,*/*;q=0.8")]),
        ("/healthz", [NAVIGATION]),
        ("/nothing", [NAVIGATION]),
    ],
)
async def test_what_is_no_document_navigation_gets_no_cookie(
    gateway: Gateway, path: str, fields: list[tuple[str, str]]
) -> None:
    answer = await get(gateway.port, path, *fields)
    assert answer.cookie is None
    assert "private" not in (answer.get("Cache-Control") or "")


async def page(gateway: Gateway, cookie: str | None = None) -> Answer:
    return await get(gateway.port, "/", NAVIGATION, *([("Cookie", cookie)] if cookie else []))


async def test_the_pages_cookie_leads_its_websocket_to_the_same_slot_and_session(gateway: Gateway) -> None:
    slots = set()
    for _ in range(8):
        first = await page(gateway)
        assert first.cookie is not None
        assert (await page(gateway, first.cookie)).cookie is None  # it has one
        client = Client(gateway.ws_url, headers={"Origin": gateway.url})
        client.cookie = first.cookie
        async with client:
            answer = await client.ask(who=True)
        assert client.cookies_set == 0
        _, _, session, _, slot, _, _ = first.cookie.partition("=")[2].split(".")
        assert (answer["slot"], answer["session"]) == (int(slot), session)
        slots.add(int(slot))
    assert slots <= {0, 1}


async def test_a_cookie_that_does_not_hold_is_replaced_on_the_page(gateway: Gateway) -> None:
    first = await page(gateway)
    assert first.cookie is not None
    second = await page(gateway, first.cookie + "x")
    assert second.cookie is not None
    assert second.cookie.split(".")[2] != first.cookie.split(".")[2]


async def test_a_304_that_sets_a_cookie_is_private_too(gateway: Gateway) -> None:
    tag = (await page(gateway)).get("ETag")
    assert tag is not None
    answer = await get(gateway.port, "/", NAVIGATION, ("If-None-Match", tag))
    assert answer.status == 304
    assert answer.cookie is not None
    assert (answer.get("Cache-Control") or "").startswith("private")
