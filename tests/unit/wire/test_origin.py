"""Which origins may open a WebSocket."""

import pytest

from stickygw.wire.origin import is_origin_allowed


@pytest.mark.parametrize(
    ("origin", "host", "allowed", "verdict"),
    [
        (None, "example.com", ["same-host"], True),
        ("http://example.com", "example.com", ["same-host"], True),
        ("http://example.com", "Example.COM:80", ["same-host"], True),
        ("https://example.com", "example.com:443", ["same-host"], True),
        ("http://[::1]:8000", "[::1]:8000", ["same-host"], True),
        ("http://127.0.0.1:8000", "127.0.0.1:8001", ["same-host"], False),
        ("http://localhost:8000", "127.0.0.1:8000", ["same-host"], False),
        ("http://example.com.evil.org", "example.com", ["same-host"], False),
        ("http://evil.org/example.com", "example.com", ["same-host"], False),
        ("http://example.com@evil.org", "example.com", ["same-host"], False),
        ("null", "example.com", ["same-host"], False),
        ("", "example.com", ["same-host"], False),
        ("https://app.example", "api.example", ["same-host", "https://app.example"], True),
        ("https://app.example", "app.example", ["https://other.example"], False),
        ("https://any.example", "x", ["*"], True),
    ],
)
def test_origin(origin: str | None, host: str, allowed: list[str], verdict: bool) -> None:
    assert is_origin_allowed(origin, host, allowed) is verdict
