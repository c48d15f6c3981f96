"""``python -m stickygw.primary --settings-fd N TARGET``: what ``stickygw run`` becomes, once all is checked.

Descriptor N is a file with the settings, so that secrets stand on no command line.
"""

from __future__ import annotations

import argparse
import signal
import sys


def main() -> int:
    # Until the loop has its own handler there is nothing to end, and Ctrl-C shows no traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parser = argparse.ArgumentParser(prog="stickygw.primary", description=__doc__)
    parser.add_argument("--settings-fd", type=int, required=True)
    parser.add_argument("target")
    arguments = parser.parse_args()

    # After the signal: this takes most of the start.
    from stickygw.observability.logs import let_go_of_streams
    from stickygw.primary.main import run

    status = run(arguments.settings_fd, arguments.target)
    let_go_of_streams()
    return status


if __name__ == "__main__":
    sys.exit(main())
