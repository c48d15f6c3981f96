"""An application that logs from wherever code of its own runs."""

import asyncio
import logging
import logging.config

from stickygw import App, Refuse

log = logging.getLogger("talkative")
app = App()


@app.on_handshake
def asked(request, session):
    log.info("in on_handshake %s", request.path)
    if "Authorization" in request.headers:
        raise Refuse(401, "no")


@app.on_connect("/def/{name}")
def entered(conn, name):
    conn.state["name"] = name
    conn.send(conn.id)


@app.on_message("/def/{name}")
def said(conn, message, name):
    log.info("in def %s", name)
    conn.send(message)


@app.on_connect("/async/{name}")
async def entered_async(conn, name):
    conn.send(conn.id)


@app.on_message("/async/{name}")
async def said_async(conn, message, name):
    await asyncio.sleep(0)
    log.info("in async %s", name)
    await asyncio.create_task(later(name))
    conn.send(message)


async def later(name):
    log.info("in a task %s", name)


configured = App()


@configured.on_start
def configure():
    logging.config.dictConfig({"version": 1})


failing = App()


@failing.on_start
def configure_and_fail():
    configure()
    raise RuntimeError("the application's own reason")
