"""What kind of application an object is, by how it can be called. It is not called to find out."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from inspect import Parameter
from typing import Any

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_WSGI_NAMES = (["environ", "start_response"], ["env", "start_response"])


def why_not_asgi(found: object) -> str | None:
    """What an object that should be an ASGI 3 application is instead, as the end of a sentence; None: it is one."""
    if not callable(found):
        return "cannot be called"
    required, most = _positional(found)
    if required is None:
        return None  # written in C, perhaps: calling it will tell
    if required == ["scope"]:
        return (
            "is an ASGI 2 application (it is called with the scope alone); wrap it: "
            "asgiref.compatibility.guarantee_single_callable"
        )
    if required in _WSGI_NAMES or (len(required) == 2 and most == 2):
        return "seems to be a WSGI application; wrap it: a2wsgi.WSGIMiddleware(app), or asgiref.wsgi.WsgiToAsgi(app)"
    if isinstance(found, type) and len(required) <= 3 and not hasattr(found, "__await__"):
        return "is a class; name an instance of it, or a function that makes one with --factory"
    if not required and most == 0:
        return "takes no arguments; if it makes the application, add --factory"
    if len(required) > 3 or most < 3:
        return f"takes {len(required)} arguments, and an ASGI application three: scope, receive and send"
    return None


def can_make(found: object) -> bool:
    """Whether `found` can be called without arguments."""
    if not callable(found):
        return False
    return not _positional(found)[0]


def _positional(found: Callable[..., Any]) -> tuple[list[str] | None, float]:
    """The arguments that a call has to give by position, and how many it may give; None: nobody knows."""
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return None, 0
    required = [one.name for one in parameters if one.kind in _POSITIONAL and one.default is Parameter.empty]
    if any(one.kind is Parameter.VAR_POSITIONAL for one in parameters):
        return required, float("inf")
    return required, sum(one.kind in _POSITIONAL for one in parameters)
