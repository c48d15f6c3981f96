"""The gateway of the integration tests is the one that users test with; here are the applications it runs."""

from pathlib import Path

from stickygw.testing.gateway import Gateway, GatewayFailed
from stickygw.testing.gateway import gateway as running_gateway

__all__ = ["CHAT", "ECHO", "IN_TURNS", "ROOT", "Gateway", "GatewayFailed", "running_gateway"]

ROOT = Path(__file__).resolve().parents[2]
CHAT = f"{ROOT / 'examples' / 'chat' / 'app.py'}:app"
ECHO = f"{ROOT / 'examples' / 'echo' / 'app.py'}:app"

IN_TURNS = ("--first-visit", "round_robin", "--set", "slow_start=0")
"""First visits go to one slot after the other, from the beginning on."""
