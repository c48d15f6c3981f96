"""An application that leaks, to watch how a gateway lives with it.

    stickygw run examples/memory_leak/app.py:app --workers 2 --set max_rss=100000000

A message, or the payload of ``stickygw tell``, is how many KiB to keep. What is kept is never needed again, and never
let go. A fresh worker has some 50 MB, so that each of these lines brings the gateway a fifth of the way to the limit:

    stickygw tell keep 10000

In another terminal, ``stickygw top`` shows how RSS grows. At `max_rss` a second worker appears in the slot. When it is
ready it takes over the clients, those too whose WebSockets are open, and they notice nothing. The one before it ends,
and its memory with it. Then it is the other slot's turn: never two at once. The log says "worker recycled".
"""

import os

from stickygw import App, Connection

app = App(codec="json")

kept: list[bytes] = []
"""The leak."""


@app.on_message
async def said(conn: Connection, kib: int) -> None:
    keep(kib)
    await conn.send({"slot": app.slot, "pid": os.getpid(), "kept": kept_kib()})


@app.on_tell("keep")
def keep(kib: int) -> None:
    kept.append(b"x" * (kib << 10))
    app.report(kept=f"{kept_kib()} KiB")  # `stickygw status` and `top` show it beside the slot


def kept_kib() -> int:
    return sum(map(len, kept)) >> 10
