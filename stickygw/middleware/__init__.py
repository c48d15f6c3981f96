"""Sessions as ASGI middleware, with a gateway or without. Start reading at `session_middleware`."""
