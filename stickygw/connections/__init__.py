"""Sockets, WebSockets and HTTP answers on the event loop. Floor 3."""
