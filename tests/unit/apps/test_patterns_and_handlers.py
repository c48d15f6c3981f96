"""Path patterns capture whole segments; a path gets the first handler of each kind that serves it."""

import pytest

from stickygw import App
from stickygw.apps.native.patterns import PathPattern


@pytest.mark.parametrize(
    ("pattern", "path", "parts"),
    [
        ("/ws/{room}", "/ws/lobby", {"room": "lobby"}),
        ("/ws/{room}", "/ws/a%20b", {"room": "a b"}),
        ("/ws/{room}", "/ws/a%2Fb", {"room": "a/b"}),
        ("/ws/{room}", "/ws/", None),
        ("/ws/{room}", "/ws/a/b", None),
        ("/ws/{room}", "/ws", None),
        ("/a.b/{x}-{y}", "/a.b/1-2", {"x": "1", "y": "2"}),
        ("/a.b", "/aXb", None),
        ("/", "/", {}),
    ],
)
def test_match(pattern: str, path: str, parts: dict[str, str] | None) -> None:
    assert PathPattern(pattern).match(path) == parts


@pytest.mark.parametrize("pattern", ["ws", "/{a}/{a}", "/{1}", "/{", "/}x"])
def test_a_pattern_that_cannot_work_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="path pattern"):
        PathPattern(pattern)


def test_paths_are_those_of_on_connect() -> None:
    app = App()

    @app.on_connect("/ws/{room}")
    def enter(conn, room): ...

    @app.on_message
    def said(conn, message): ...

    found = app.handlers.for_path("/ws/lobby")
    assert found is not None
    assert found.connect is not None
    assert found.connect.arguments == {"room": "lobby"}
    assert found.message is not None
    assert found.message.arguments == {}
    assert found.parts == {"room": "lobby"}
    assert app.handlers.for_path("/other") is None


def test_without_on_connect_the_paths_are_those_of_on_message() -> None:
    app = App()

    @app.on_message("/echo")
    def said(conn, message): ...

    assert app.handlers.for_path("/echo") is not None
    assert app.handlers.for_path("/") is None


def test_the_first_match_wins_and_parts_go_to_who_names_them() -> None:
    app = App()

    @app.handler("/a/{x}")
    async def first(conn, x): ...

    @app.handler("/{any}/{x}")
    async def second(conn, **parts): ...

    found = app.handlers.for_path("/a/1")
    assert found is not None
    assert found.coroutine is not None
    assert found.coroutine.function is first
    other = app.handlers.for_path("/b/1")
    assert other is not None
    assert other.coroutine is not None
    assert other.coroutine.arguments == {"any": "b", "x": "1"}


def test_an_application_that_does_not_run_says_so() -> None:
    with pytest.raises(RuntimeError, match="not running"):
        _ = App().slot


def test_a_static_folder_that_is_not_there_is_an_error_at_once() -> None:
    with pytest.raises(ValueError, match="not a folder"):
        App(static="/no/such/folder")
