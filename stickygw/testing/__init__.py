"""Tests of your own application: in process with `AppClient`, or as a real gateway with `running_gateway`.

With pytest, both are fixtures as soon as stickygw is installed (`stickygw.testing.pytest_plugin`). The names here are
loaded when they are first used: pytest imports this package in every run, of whatever project.

An ASGI application is tested as ``AppClient(App(http=asgi_app))``: `AppClient.connect` and `AppClient.request` reach
its WebSockets and its HTTP, and there `stickygw.current`, `stickygw.asgi.rooms` and `stickygw.asgi.session` work as in
a worker. Meanwhile `current` and `rooms` work also for whoever calls the application in the test's own event loop, such
as httpx's ``ASGITransport``. Starlette's `TestClient` calls it in another thread and loop: there they raise
`stickygw.OutsideGateway`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stickygw.testing.app_client import AppClient, HandshakeRefused, TestConnection
    from stickygw.testing.gateway import Gateway, GatewayFailed
    from stickygw.testing.gateway import gateway as running_gateway
    from stickygw.testing.http_exchange import TestAnswer

__all__ = [
    "AppClient",
    "Gateway",
    "GatewayFailed",
    "HandshakeRefused",
    "TestAnswer",
    "TestConnection",
    "running_gateway",
]

_HOMES = {
    "AppClient": ("app_client", "AppClient"),
    "Gateway": ("gateway", "Gateway"),
    "GatewayFailed": ("gateway", "GatewayFailed"),
    "HandshakeRefused": ("app_client", "HandshakeRefused"),
    "TestAnswer": ("http_exchange", "TestAnswer"),
    "TestConnection": ("app_client", "TestConnection"),
    # Under its own name it would hide the module `gateway`, or be hidden by it, as the order of imports has it.
    "running_gateway": ("gateway", "gateway"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'stickygw.testing' has no attribute {name!r}")
    module, inner = _HOMES[name]
    value = getattr(import_module(f"stickygw.testing.{module}"), inner)
    globals()[name] = value
    return value
