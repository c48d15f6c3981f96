"""The addresses that the gateway listens on: TCP over IPv4 and IPv6, and Unix sockets. Accepting is `acceptor`'s."""

from __future__ import annotations

import socket
import stat
from collections.abc import Iterable
from pathlib import Path

from stickygw.config.address import Address, AddressKind, parse_address
from stickygw.errors import BindError

DEFER_ACCEPT_SECONDS = 1
"""A TCP connection is not shown before its first byte, for about so long: most heads are whole at the first look."""


class Listener:
    """One bound socket that listens; `url` is how a client names it, with the real port."""

    __slots__ = ("_identity", "keeps_file", "path", "sock", "url")

    def __init__(self, sock: socket.socket, *, url: str, path: Path | None = None, keeps_file: bool = False) -> None:
        self.sock = sock
        self.url = url
        self.path = path
        self.keeps_file = keeps_file
        """Whether workers that are not ours yet serve at a Unix socket's file: it stays when we close."""
        self._identity = _identity(path) if path else None

    @property
    def port(self) -> int | None:
        """The TCP port, None for a Unix socket."""
        return None if self.path else int(self.sock.getsockname()[1])

    @property
    def is_reachable(self) -> bool:
        """Whether clients find it: not if a Unix socket's file was removed, or replaced by one that is no socket."""
        return self.path is None or (self._identity is not None and self.path.is_socket())

    def close(self) -> None:
        """Close the socket; a Unix socket's file goes too, unless it is kept, or another has taken the name since."""
        self.sock.close()
        if self.path and not self.keeps_file and self._identity is not None and _identity(self.path) == self._identity:
            self.path.unlink(missing_ok=True)


def bind(addresses: Iterable[str]) -> list[Listener]:
    """Listen on all of `addresses` (``HOST:PORT``, ``[IPv6]:PORT``, ``unix:/path``), in their order.

    Raises `BindError` naming the address that cannot be had; then none stays bound.
    """
    listeners: list[Listener] = []
    try:
        for address in addresses:
            listeners.append(_bind_one(address))
    except BindError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def adopted(sock: socket.socket) -> Listener:
    """A socket that listens already, for workers of a gateway that was killed: it keeps its file."""
    sock.setblocking(False)
    if sock.family == socket.AF_UNIX:
        path = Path(sock.getsockname())
        return Listener(sock, url=f"unix:{path}", path=path, keeps_file=True)
    return Listener(sock, url=_url(sock))


def is_at(listener: Listener, text: str) -> bool:
    """Whether `listener` listens on the address `text`; a port 0 is any. Raises `BindError` for one that is none."""
    try:
        address = parse_address(text)
        if address.kind is AddressKind.UNIX:
            return listener.path == Path(address.path)
        if listener.path is not None:
            return False
        target = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][4]
    except (OSError, ValueError) as error:
        raise BindError(f"cannot listen on {text}: {error}") from error
    host, port = listener.sock.getsockname()[:2]
    return host == target[0] and address.port in (0, port)


def _bind_one(text: str) -> Listener:
    try:
        address = parse_address(text)
        return _bind_unix(Path(address.path)) if address.kind is AddressKind.UNIX else _bind_tcp(address)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise BindError(f"cannot listen on {text}: {why}") from error


def _bind_tcp(address: Address) -> Listener:
    # A name with several addresses stands for the first one: say 127.0.0.1 and [::1] to have both.
    family, kind, protocol, _, target = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        # Never SO_REUSEPORT: two gateways would share the port without a word.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if hasattr(socket, "TCP_DEFER_ACCEPT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER_ACCEPT_SECONDS)
        # Accepted sockets inherit it (tcp(7)). With Nagle's algorithm a second small message waits for the client's
        # delayed acknowledgement of the first: 40 ms.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind(target)
        _listen(sock)
    except BaseException:
        sock.close()
        raise
    return Listener(sock, url=_url(sock))


def _bind_unix(path: Path) -> Listener:
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(path))
        _listen(sock)
    except BaseException:
        sock.close()
        raise
    return Listener(sock, url=f"unix:{path}", path=path)


def _listen(sock: socket.socket) -> None:
    sock.setblocking(False)
    sock.listen(_longest_backlog())


def _longest_backlog() -> int:
    """As long as the kernel allows: a fleet's clients that come back at once wait here instead of resending SYNs."""
    try:
        return int(Path("/proc/sys/net/core/somaxconn").read_text())
    except (OSError, ValueError):  # not Linux, or /proc is hidden
        return socket.SOMAXCONN


def _remove_stale(path: Path) -> None:
    """Unlink a Unix socket that a dead process left. Raises FileExistsError when somebody listens, or it is none."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError("a file that is no socket is there")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # its accept queue is full: somebody listens
    raise FileExistsError("another program listens there")


def _url(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    if sock.family == socket.AF_INET6:
        host = "localhost" if host == "::1" else f"[{host}]"
    return f"http://{host}:{port}"


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
