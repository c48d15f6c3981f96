"""The functions an application registered, and which of them a path gets."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from stickygw.apps.native.patterns import PathPattern
from stickygw.apps.native.schedule import Job

Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Handler:
    """A registered function. `parts` are the path parts it takes by name; without a pattern it serves every path."""

    function: Function
    pattern: PathPattern | None
    is_async: bool
    parts: frozenset[str]

    @classmethod
    def of(cls, function: Function, pattern: PathPattern | None) -> Handler:
        """`function` with the path parts of `pattern` that it has parameters for."""
        parameters = inspect.signature(function).parameters
        names = frozenset(pattern.names if pattern else ())
        takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
        parts = names if takes_any else names & parameters.keys()
        return cls(function, pattern, inspect.iscoroutinefunction(function), parts)


@dataclass(frozen=True, slots=True)
class BoundHandler:
    """A handler with the path parts of one connection."""

    function: Function
    is_async: bool
    arguments: dict[str, str]


@dataclass(frozen=True, slots=True)
class PathHandlers:
    """What one connection's path gets."""

    connect: BoundHandler | None
    message: BoundHandler | None
    disconnect: BoundHandler | None
    coroutine: BoundHandler | None
    parts: dict[str, str]


@dataclass(slots=True)
class Handlers:
    """All functions of an application, in the order of their registration."""

    start: list[Function] = field(default_factory=list)
    stop: list[Function] = field(default_factory=list)
    handshake: list[Function] = field(default_factory=list)
    error: list[Function] = field(default_factory=list)
    gap: list[Function] = field(default_factory=list)
    every: list[Job] = field(default_factory=list)
    move_out: list[Function] = field(default_factory=list)
    move_in: list[Function] = field(default_factory=list)
    key_out: list[Function] = field(default_factory=list)
    key_in: list[Function] = field(default_factory=list)
    tell: dict[str, Function] = field(default_factory=dict)
    connect: list[Handler] = field(default_factory=list)
    message: list[Handler] = field(default_factory=list)
    disconnect: list[Handler] = field(default_factory=list)
    coroutine: list[Handler] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many functions there are."""
        return sum(len(getattr(self, name)) for name in self.__slots__)

    def for_path(self, path: str) -> PathHandlers | None:
        """The first of each kind that serves `path`; None: no such path.

        Which paths exist is said by ``on_connect`` and ``handler``; an application without either has the paths of
        its ``on_message``.
        """
        connect, coroutine, message = (_first(kind, path) for kind in (self.connect, self.coroutine, self.message))
        if not (connect or coroutine) and (self.connect or self.coroutine or not message):
            return None
        disconnect = _first(self.disconnect, path)
        parts = next((found[1] for found in (connect, coroutine, message) if found and found[1]), {})
        return PathHandlers(_bound(connect), _bound(message), _bound(disconnect), _bound(coroutine), parts)


def _bound(found: tuple[Handler, dict[str, str]] | None) -> BoundHandler | None:
    if found is None:
        return None
    handler, captured = found
    arguments = {name: value for name, value in captured.items() if name in handler.parts}
    return BoundHandler(handler.function, handler.is_async, arguments)


def _first(handlers: list[Handler], path: str) -> tuple[Handler, dict[str, str]] | None:
    for handler in handlers:
        if handler.pattern is None:
            return handler, {}
        captured = handler.pattern.match(path)
        if captured is not None:
            return handler, captured
    return None
