"""Answers that take a CPU some 25 ms each: computed on the event loop, and beside it.

    stickygw run examples/cpu_bound/app.py:app

A message is a limit, the answer how many primes are below it. ``/inline`` computes in the handler: while it does, the
worker serves nobody else. ``/offload`` has a process of the worker compute. ``/light`` answers at once, if it is let.
"""

from primes import count_primes

from stickygw import App, Connection

app = App(codec="json")


@app.on_message("/inline")
def inline(conn: Connection, limit: int) -> None:
    conn.send(count_primes(limit))


@app.on_message("/offload")
async def offloaded(conn: Connection, limit: int) -> None:
    await conn.send(await app.offload(count_primes, limit))


@app.on_message("/light")
def light(conn: Connection, message: str) -> None:
    conn.send(message)
