"""``python -m stickygw.worker --link-fd N --slot S``: started by the primary, with one end of a link as descriptor N.

The slot stands on the command line only so that ``ps`` shows it; the worker's orders come over the link.
"""

from __future__ import annotations

import argparse
import socket
import sys

from stickygw.observability.logs import let_go_of_streams
from stickygw.worker.main import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="stickygw.worker", description=__doc__)
    parser.add_argument("--link-fd", type=int, required=True)
    parser.add_argument("--slot", type=int, required=True)
    arguments = parser.parse_args()
    sock = socket.socket(fileno=arguments.link_fd)
    sock.set_inheritable(False)
    status = run(sock)
    let_go_of_streams()
    return status


if __name__ == "__main__":
    sys.exit(main())
