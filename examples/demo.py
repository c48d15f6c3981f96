"""`make demo`: the chat on two workers, at two addresses that a browser takes for two hosts: two visitors.

Run as ``python examples/demo.py [HOST:PORT]``. Without an address it takes 127.0.0.1 and ::1 at port 8000, or
the next port that is free on both. The process becomes the gateway itself: Ctrl-C finds nothing else.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
from pathlib import Path

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

CHAT = Path(__file__).parent / "chat" / "app.py"
FIRST_PORT = 8000
PORTS_TRIED = 100
NAMES_OF_THIS_MACHINE = ("127.0.0.1", "localhost", "[::1]")


def can_bind(host: str, port: int) -> bool:
    """Whether the gateway could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def loopback_hosts() -> list[str]:
    """127.0.0.1, and ::1 where this machine has it (many containers do not)."""
    try:
        can_bind("::1", 0)
    except OSError:
        return ["127.0.0.1"]
    return ["127.0.0.1", "::1"]


def free_port(hosts: list[str]) -> int:
    """The first port from `FIRST_PORT` on that is free on all `hosts`."""
    for port in range(FIRST_PORT, FIRST_PORT + PORTS_TRIED):
        if all(can_bind(host, port) for host in hosts):
            return port
    sys.exit(f"{PORTS_TRIED} ports from {FIRST_PORT} on are taken: choose one with BIND=127.0.0.1:PORT")


def chosen_binds() -> list[str]:
    """Where to listen: as the command line says, or on the loopback addresses at a free port."""
    if len(sys.argv) > 1:
        return sys.argv[1:]
    hosts = loopback_hosts()
    port = free_port(hosts)
    if port != FIRST_PORT:
        print(f"Port {FIRST_PORT} is taken; this is {port}.")
    return [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host in hosts]


def addresses(host: str) -> list[Address]:
    """What a host's name stands for, the first first; none when it is not known here."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [ipaddress.ip_address(target[0]) for *_, target in found]


def visitors(bind: str) -> list[str]:
    """The addresses under which a browser here reaches `bind`; none when it names no port, or a host unknown here.

    The gateway listens on the first address of a host, and [::] is IPv6 alone: 127.0.0.1 would not answer there.
    """
    host, _, port = bind.rpartition(":")
    bound = next(iter(addresses(host)), None) if port.isdecimal() and int(port) else None
    if bound is None:
        return []
    if not (bound.is_loopback or bound.is_unspecified):
        return [f"http://{host}:{port}"]
    names = [name for name in NAMES_OF_THIS_MACHINE if any(leads_to(bound, address) for address in addresses(name))]
    return [f"http://{name}:{port}" for name in names]


def leads_to(bound: Address, address: Address) -> bool:
    """Whether an address of this machine reaches a listener on `bound`."""
    return address == bound or (bound.is_unspecified and address.version == bound.version)


def main() -> None:
    binds = chosen_binds()
    print("A chat on two worker processes. Cookies are per host, so each address is a visitor of its own.")
    for address in visitors(binds[0]):
        print(f"    {address}")
    print('Open it when the line "ready" is here; Ctrl-C ends everything.', flush=True)
    # No access lines: who looks at the page is not to watch the terminal.
    options = ["--workers", "2", "--set", "access_log=false"]
    command = [sys.executable, "-m", "stickygw.cli", "run", f"{CHAT}:app", *options]
    for bind in binds:
        command += ["--bind", bind]
    os.execv(command[0], command)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
