"""``python -m stickygw.cli``: the same as the command ``stickygw``."""

from stickygw.cli.main import main

main()
