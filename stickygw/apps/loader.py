"""From a target, ``module:attribute`` or ``path/to/file.py:attribute``, to the application that it names."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from stickygw.apps.kinds import can_make, why_not_asgi
from stickygw.config.catalogue import nearest
from stickygw.errors import TargetError

if TYPE_CHECKING:
    from stickygw.apps.native.app import App

DEFAULT_ATTRIBUTE = "app"


@dataclass(frozen=True, slots=True)
class Target:
    """Where an application is: `attribute` of an importable `module`, or of a `file` (absolute)."""

    module: str
    file: Path | None
    attribute: str

    def __str__(self) -> str:
        return f"{self.file or self.module}:{self.attribute}"


def parse_target(text: str, *, directory: Path) -> Target:
    """The target in `text`; a file's path is taken from `directory`.

    Raises `TargetError` when it is none, or names a file that is not there.
    """
    place, colon, attribute = text.rpartition(":")
    if not colon:
        place, attribute = text, DEFAULT_ATTRIBUTE
    if not (place and all(part.isidentifier() for part in attribute.split("."))):
        raise TargetError(f"{text!r} is no target; write module:attribute or path/to/file.py:attribute")
    if place.endswith(".py") or "/" in place:
        return Target(Path(place).stem, _existing(directory / place, text), attribute)
    if not all(part.isidentifier() for part in place.split(".")):
        raise TargetError(f"{place!r} is no module name; write module:attribute or path/to/file.py:attribute")
    return Target(place, None, attribute)


def load_target(target: str, *, directory: Path, app_dir: Path | None = None, is_factory: bool = False) -> App:
    """The application that `target` names; its module is imported. An ASGI application becomes an `App` around it.

    From now on modules are looked for first in `app_dir`, else in the folder of a file target, else in `directory`;
    relative paths are taken from `directory`. `is_factory`: the target is a function that makes the application.
    Raises `TargetError`; when the application's own code failed, its exception is the error's cause.
    """
    where = parse_target(target, directory=directory)
    home = where.file.parent if where.file else directory.absolute()
    folders = [str(home)] if app_dir is None else [str(_existing_folder(directory / app_dir)), str(home)]
    sys.path[:] = [*dict.fromkeys(folders), *(entry for entry in sys.path if entry not in folders)]
    module = _import_file(where.module, where.file) if where.file else _import_module(where.module, Path(folders[0]))
    found = _attribute(module, where)
    return _app_of(_made_by(found, where) if is_factory else found, where, is_factory)


def _existing_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise TargetError(f"--app-dir: there is no folder {folder}")
    return folder.absolute()


def _made_by(factory: object, where: Target) -> object:
    if not can_make(factory):
        raise TargetError(f"--factory: {where} cannot be called without arguments")
    assert callable(factory)
    try:
        made = factory()
    except (Exception, SystemExit) as error:
        raise TargetError(f"--factory: {where} failed with {type(error).__name__}: {error}") from error
    if inspect.iscoroutine(made):
        made.close()
        raise TargetError(
            f"--factory: {where} is async; a factory is a plain function, what waits belongs to a lifespan"
        )
    return made


def _existing(file: Path, text: str) -> Path:
    if file.is_file():
        return file.absolute()
    similar = nearest(file.name, (path.name for path in file.parent.glob("*.py")))
    hint = f"; did you mean {file.with_name(similar)}?" if similar else ""
    raise TargetError(f"{text}: there is no file {file}{hint}")


def _import_module(name: str, directory: Path) -> ModuleType:
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise _import_failed(name, error) from error  # the module is there, one that it imports is not
        raise TargetError(_not_found(error.name, directory)) from None
    except (Exception, SystemExit) as error:
        raise _import_failed(name, error) from error


def _not_found(missing: str, directory: Path) -> str:
    message = f"there is no module {missing!r} in {directory} or among the installed packages"
    similar = nearest(missing, (path.stem for path in directory.glob("*.py")))
    return message + (f"; did you mean the file {similar}.py?" if similar else "")


def _import_file(name: str, file: Path) -> ModuleType:
    """Import `file` under its own name, so that the modules beside it can import it too."""
    loaded = sys.modules.get(name)
    if loaded is not None:
        if getattr(loaded, "__file__", None) == str(file):
            return loaded
        raise TargetError(f"{file} has the name of the module {name!r}, which stickygw uses itself; rename the file")
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise TargetError(f"{file} is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _import_failed(str(file), error) from error
    return module


def _import_failed(what: str, error: BaseException) -> TargetError:
    return TargetError(f"importing {what} failed with {type(error).__name__}: {error}")


def _attribute(module: ModuleType, where: Target) -> object:
    found: object = module
    for name in where.attribute.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            similar = next(iter(_apps_in(module)), None) or nearest(name, vars(module))
            hint = f"; did you mean {where.file or where.module}:{similar}?" if similar else ""
            raise TargetError(f"{where.file or where.module} has no {where.attribute!r}{hint}") from None
    return found


def _apps_in(module: ModuleType) -> list[str]:
    from stickygw.apps.native.app import App

    return [name for name, value in vars(module).items() if isinstance(value, App)]


def _app_of(found: object, where: Target, is_made: bool) -> App:
    from stickygw.apps.native.app import App

    if isinstance(found, App):
        return found
    why = why_not_asgi(found)
    if why is None:
        assert callable(found)
        return App(http=found)
    kind = type(found)
    what = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    made = "what it returns, " if is_made else ""
    raise TargetError(f"{where} is neither a stickygw.App nor an ASGI application: {made}a {what}, {why}")
