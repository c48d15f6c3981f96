"""Writes the reference pages that the code itself can tell: ``python docs/generate.py``.

``--check`` writes nothing and exits with 1 when a page is not what the code says.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from commands_page import commands_page
from member_texts import member_texts
from supervision_page import supervision_page

from stickygw.cli.options import FLAGS
from stickygw.config.catalogue import SECTIONS, SETTINGS, Setting, allowed
from stickygw.config.settings import Settings
from stickygw.errors import ExitCode

DOCS = Path(__file__).parent

INTRODUCTION = """\
# Settings

<!-- Written by docs/generate.py from the code: do not edit. -->

One set of settings comes from four sources, each stronger than the one before it:

1. the defaults below;
2. `stickygw.toml` in the current directory, or the file that `--config FILE` names;
3. variables, `STICKYGW_…`; an empty one counts as not set;
4. flags; `--set NAME=VALUE` gives any setting that has no flag of its own.

A section's settings are written `[redis]` and `url = "…"` in the file, and `redis.url` after `--set`. A list given as
one text has commas between its entries, or is a JSON array. A name that is not here is an error, and so is a value that
is not allowed: `stickygw check TARGET` tells which, and who gave it.

```toml
bind = ["0.0.0.0:8000", "[::]:8000"]
workers = 4
secret = ["…"]  # python3 -c "import secrets; print(secrets.token_urlsafe(48))"

[redis]
url = "redis://10.0.0.5:6379/0"
```
"""

HEADER = "| name | default | allowed | meaning | given by |\n|---|---|---|---|---|"


def settings_page() -> str:
    """The page of all settings and exit codes."""
    top = [setting for name, setting in SETTINGS.items() if "." not in name]
    parts = [INTRODUCTION, _table(top)]
    for section in SECTIONS:
        inner = [setting for name, setting in SETTINGS.items() if name.startswith(f"{section}.")]
        about = type(getattr(Settings(), section)).__doc__
        parts.append(f"\n## [{section}]\n\n{about}\n\n{_table(inner)}")
    parts.append("\n## Exit codes\n\n| code | name | meaning |\n|---|---|---|")
    parts += [f"| {code} | `{name}` | {meaning} |" for code, name, meaning in exit_codes()]
    return "\n".join(parts) + "\n"


def exit_codes() -> Iterator[tuple[int, str, str]]:
    """Number, name and meaning."""
    for name, text in member_texts(ExitCode).items():
        yield ExitCode[name].value, name, text or "Done."


def _table(settings: list[Setting]) -> str:
    return "\n".join([HEADER, *(_row(setting) for setting in settings)])


def _row(setting: Setting) -> str:
    flag = FLAGS.get(setting.name)
    given_by = f"`{setting.variable}`" + (f", `{flag}`" if flag else "")
    default = "–" if setting.default in (None, ()) else f"`{json.dumps(setting.default)}`"
    cells = (f"`{setting.name}`", default, allowed(setting.name), setting.meaning, given_by)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


PAGES = {"settings.md": settings_page, "cli.md": commands_page, "supervision.md": supervision_page}


def main() -> int:
    """Write the pages, or compare them."""
    is_check = "--check" in sys.argv[1:]
    stale = []
    for name, page in PAGES.items():
        path = DOCS / name
        text = page()
        if is_check and not (path.exists() and path.read_text(encoding="utf-8") == text):
            stale.append(name)
        elif not is_check:
            path.write_text(text, encoding="utf-8")
    if stale:
        print(f"not what the code says: {', '.join(stale)}; run python docs/generate.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
