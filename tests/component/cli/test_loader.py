from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from stickygw.apps.loader import load_target, parse_target
from stickygw.apps.native.app import App
from stickygw.errors import TargetError

AN_APP = "from stickygw.apps.native.app import App\napp = App()\n"


@pytest.fixture(autouse=True)
def _modules_as_before() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def write(folder: Path, name: str, text: str = AN_APP) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def why_not(target: str, folder: Path) -> str:
    with pytest.raises(TargetError) as caught:
        load_target(target, directory=folder)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("chat", "chat:app"),
        ("chat:other", "chat:other"),
        ("pack.chat:holder.app", "pack.chat:holder.app"),
        ("here.py", "{folder}/here.py:app"),
        ("./here.py:other", "{folder}/here.py:other"),
        ("{folder}/here.py", "{folder}/here.py:app"),
    ],
)
def test_a_target_is_a_module_or_a_file_with_an_attribute(tmp_path: Path, text: str, normal: str) -> None:
    write(tmp_path, "here.py")
    target = parse_target(text.format(folder=tmp_path), directory=tmp_path)
    assert str(target) == normal.format(folder=tmp_path)
    assert parse_target(str(target), directory=Path("/")) == target


@pytest.mark.parametrize("text", ["", ":", ":app", "a:", "a-b", "a:b-c", "a:b:c", "a b:app", "a..b:app"])
def test_what_is_no_target_is_told_how_to_write_one(text: str) -> None:
    with pytest.raises(TargetError, match=r"write module:attribute or path/to/file\.py:attribute"):
        parse_target(text, directory=Path("/"))


def test_a_missing_file_is_an_error_that_names_a_similar_one(tmp_path: Path) -> None:
    write(tmp_path, "chatt.py")
    with pytest.raises(TargetError, match=r"there is no file .*/chat\.py; did you mean .*/chatt\.py\?"):
        parse_target("chat.py:app", directory=tmp_path)


def test_a_file_is_loaded_with_the_modules_beside_it(tmp_path: Path) -> None:
    write(tmp_path, "sub/beside_it.py", "name = 'beside'")
    write(tmp_path, "sub/file_target.py", "import beside_it\n" + AN_APP)
    assert isinstance(load_target("sub/file_target.py", directory=tmp_path), App)
    assert sys.path[0] == str(tmp_path / "sub")


def test_a_file_loaded_twice_is_one_module(tmp_path: Path) -> None:
    file = write(tmp_path, "twice_loaded.py")
    assert load_target(str(file), directory=tmp_path) is load_target("twice_loaded:app", directory=tmp_path)
    assert load_target(str(file), directory=tmp_path) is sys.modules["twice_loaded"].app


def test_a_module_is_loaded_from_the_directory_before_all_others(tmp_path: Path) -> None:
    write(tmp_path, "pack_of_test/__init__.py", "")
    write(tmp_path, "pack_of_test/inner.py", AN_APP + "class holder: pass\nholder.app = app\n")
    assert isinstance(load_target("pack_of_test.inner:holder.app", directory=tmp_path), App)
    assert sys.path[0] == str(tmp_path)


def test_a_file_with_the_name_of_a_loaded_module_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "json.py")
    assert "rename the file" in why_not("json.py", tmp_path)
    assert sys.modules["json"].__file__ != str(tmp_path / "json.py")


@pytest.mark.parametrize(
    "text",
    [
        "async def app(scope, receive, send): ...",
        "async def app(*arguments): ...",
        "class Asgi:\n  async def __call__(self, scope, receive, send): ...\napp = Asgi()",
        "class app:\n  def __init__(self, scope, receive, send): ...\n  def __await__(self): ...",
        "import functools\nasync def one(more, scope, receive, send): ...\napp = functools.partial(one, 1)",
        "from fastapi import FastAPI\napp = FastAPI()",
        "from starlette.applications import Starlette\napp = Starlette()",
        "import socketio\napp = socketio.ASGIApp(socketio.AsyncServer(async_mode='asgi'))",
    ],
)
def test_an_asgi_application_becomes_an_app_around_it(tmp_path: Path, text: str) -> None:
    write(tmp_path, "asgi_target.py", text)
    loaded = load_target("asgi_target.py", directory=tmp_path)
    assert loaded.http is sys.modules["asgi_target"].app
    assert loaded.handlers.count == 0


def test_a_factory_makes_the_application(tmp_path: Path) -> None:
    write(
        tmp_path,
        "factory_target.py",
        AN_APP + "def make(kind=1): return app\nasync def asgi(scope, receive, send): ...",
    )
    made = load_target("factory_target:make", directory=tmp_path, is_factory=True)
    assert made is sys.modules["factory_target"].app
    assert load_target("factory_target.py:asgi", directory=tmp_path).http is sys.modules["factory_target"].asgi


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("def app(scope): ...", "cannot be called without arguments"),
        ("app = 3", "cannot be called without arguments"),
        ("def app(): raise KeyError('x')", "failed with KeyError"),
        ("def app(): return 3", "what it returns, a int, cannot be called"),
        ("async def app(): ...", "a factory is a plain function"),
    ],
)
def test_a_factory_that_makes_none_is_told_of(tmp_path: Path, text: str, why: str) -> None:
    write(tmp_path, "no_factory_in_it.py", text)
    with pytest.raises(TargetError) as caught:
        load_target("no_factory_in_it.py", directory=tmp_path, is_factory=True)
    assert why in str(caught.value)


def test_modules_are_looked_for_in_the_app_dir_first(tmp_path: Path) -> None:
    write(tmp_path, "inner/in_app_dir.py", "import beside_app_dir\n" + AN_APP)
    write(tmp_path, "inner/beside_app_dir.py", "")
    assert isinstance(load_target("in_app_dir", directory=tmp_path, app_dir=Path("inner")), App)
    assert sys.path[:2] == [str(tmp_path / "inner"), str(tmp_path)]
    with pytest.raises(TargetError, match="--app-dir: there is no folder"):
        load_target("in_app_dir", directory=tmp_path, app_dir=Path("outer"))


def test_a_missing_module_is_an_error_that_names_a_similar_file(tmp_path: Path) -> None:
    write(tmp_path, "lobby_chat.py")
    why = why_not("loby_chat:app", tmp_path)
    assert why.startswith(f"there is no module 'loby_chat' in {tmp_path}")
    assert why.endswith("did you mean the file lobby_chat.py?")


def test_a_missing_attribute_is_an_error_that_names_the_app_or_a_similar_name(tmp_path: Path) -> None:
    file = write(tmp_path, "attribute_less.py", AN_APP.replace("app =", "gateway ="))
    assert why_not("attribute_less.py", tmp_path) == f"{file} has no 'app'; did you mean {file}:gateway?"
    file = write(tmp_path, "app_less.py", "def make_app(): ...")
    assert why_not("app_less.py:makeapp", tmp_path) == f"{file} has no 'makeapp'; did you mean {file}:make_app?"
    assert why_not("app_less.py:other", tmp_path) == f"{file} has no 'other'"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("app = 3", "neither a stickygw.App nor an ASGI application: a int, cannot be called"),
        ("from stickygw.apps.native.app import App as app", "a type, is a class; name an instance of it"),
        ("def app(): ...", "a function, takes no arguments; if it makes the application, add --factory"),
        (
            "def app(environ, start_response): ...",
            "seems to be a WSGI application; wrap it: a2wsgi.WSGIMiddleware(app)",
        ),
        ("class Wsgi:\n  def __call__(self, env, start): ...\napp = Wsgi()", "seems to be a WSGI application"),
        (
            "class app:\n  def __init__(self, scope): ...\n  async def __call__(self, receive, send): ...",
            "is an ASGI 2",
        ),
        ("async def app(scope): ...", "is an ASGI 2 application"),
        ("async def app(scope, receive, send, more): ...", "takes 4 arguments, and an ASGI application three"),
    ],
)
def test_what_is_no_app_is_told_what_it_seems_to_be(tmp_path: Path, text: str, why: str) -> None:
    write(tmp_path, "no_app_in_it.py", text)
    assert why in why_not("no_app_in_it.py", tmp_path)


@pytest.mark.parametrize("target", ["raising_module", "raising_module.py"])
def test_an_exception_while_importing_keeps_its_traceback(tmp_path: Path, target: str) -> None:
    write(tmp_path, "raising_module.py", "def fail():\n    raise RuntimeError('own words')\n\nfail()")
    with pytest.raises(TargetError, match="failed with RuntimeError: own words") as caught:
        load_target(target, directory=tmp_path)
    assert "raising_module.py" in "".join(traceback.format_exception(caught.value.__cause__))
    assert "raising_module" not in sys.modules


@pytest.mark.parametrize("target", ["quitting_module", "quitting_module.py"])
def test_a_module_that_exits_while_importing_does_not_end_the_process(tmp_path: Path, target: str) -> None:
    write(tmp_path, "quitting_module.py", "raise SystemExit(0)")
    assert "failed with SystemExit" in why_not(target, tmp_path)


def test_a_module_that_misses_another_one_is_not_called_missing_itself(tmp_path: Path) -> None:
    write(tmp_path, "needy_module.py", "import no_such_module_anywhere")
    assert why_not("needy_module", tmp_path) == (
        "importing needy_module failed with ModuleNotFoundError: No module named 'no_such_module_anywhere'"
    )
