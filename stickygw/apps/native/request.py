"""What the application may know of the request that opened a connection."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import parse_qsl

from websockets.datastructures import Headers

MAX_QUERY_FIELDS = 100
"""More fields of a query string are an error for the parser; the target itself is at most 8 KiB."""


@dataclass(frozen=True)
class Request:
    """The opening request. `path` and `query_string` are as they stand in the request target.

    `client` is the client's address, behind trusted proxies too ("" on a Unix socket); `is_secure`: its side is TLS.
    """

    path: str
    query_string: str = field(repr=False)  # this and the fields may carry credentials, and reprs reach logs
    headers: Headers = field(repr=False)
    client: str
    is_secure: bool
    path_params: dict[str, str]
    subprotocol: str | None = None

    @cached_property
    def query(self) -> dict[str, str]:
        """The query's fields, percent-decoded; of a name that stands twice, the last. Empty if it has over 100."""
        try:
            return dict(parse_qsl(self.query_string, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS))
        except ValueError:
            return {}
