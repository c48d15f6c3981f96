"""Tests of your own application: in process with `AppClient`, or as a real gateway with `gateway`.

With pytest, both are fixtures as soon as stickygw is installed (`stickygw.testing.pytest_plugin`).
"""

from stickygw.testing.app_client import AppClient, HandshakeRefused, TestConnection
from stickygw.testing.gateway import Gateway, GatewayFailed, gateway

__all__ = ["AppClient", "Gateway", "GatewayFailed", "HandshakeRefused", "TestConnection", "gateway"]
