"""A shop as a FastAPI application: who is signed in, and what is in the cart, are in the session.

    stickygw run examples/sessions_fastapi/app.py:app --workers 2

`SESSION_SECRET` and `SESSION_STORE` are for a server that is no gateway; see README.md. The login is a demonstration:
whoever gives a name is let in.
"""

import os
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse
from pydantic import BaseModel, StringConstraints

from stickygw.asgi import RequestSession, SessionMiddleware

MAX_ITEMS = 50
SIGN_IN = 4401  # the code that a WebSocket gets when its session ends, too: then sign in, and only then come back

outside = {"secret": os.environ.get("SESSION_SECRET", ""), "store": os.environ.get("SESSION_STORE")}

app = FastAPI()
app.add_middleware(SessionMiddleware, **outside)  # in a gateway its own are used, and nothing need be given

tabs: defaultdict[str, set[WebSocket]] = defaultdict(set)
"""The open tabs of each session. All tabs of one client are on one worker, so it needs no more than a dict."""


class Guest(BaseModel):
    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=30)]


class Order(BaseModel):
    item: Literal["Tea", "Coffee", "Cake"]


def signed_in(request: Request) -> RequestSession:
    if "name" not in request.session:
        raise HTTPException(401, "sign in first")
    return request.session


SignedIn = Annotated[RequestSession, Depends(signed_in)]


def seen(session: RequestSession) -> dict[str, Any]:
    return {"name": session["name"], "cart": session["cart"], "process": os.getpid()}


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(Path(__file__).parent / "index.html")


@app.post("/login", status_code=204)
async def login(request: Request, guest: Guest) -> None:
    await request.session.regenerate()  # an id that somebody else may have planted before is worth nothing now
    request.session["name"] = guest.name
    request.session.setdefault("cart", [])


@app.get("/cart")
async def cart(session: SignedIn) -> dict[str, Any]:
    return seen(session)


@app.post("/cart", status_code=204)
async def add(session: SignedIn, order: Order, background: BackgroundTasks) -> None:
    if len(session["cart"]) >= MAX_ITEMS:
        raise HTTPException(409, "the cart is full")
    session["cart"].append(order.item)  # noticed, and saved before the answer leaves
    background.add_task(show, session)


@app.post("/logout", status_code=204)
async def logout(request: Request) -> None:
    await request.session.destroy()  # its WebSockets are closed with 4401, on all workers


@app.websocket("/live")
async def live(websocket: WebSocket) -> None:
    await websocket.accept()
    session: Any = websocket.session
    if "name" not in session:
        await websocket.close(SIGN_IN, "sign in first")
        return
    mine = session.id
    tabs[mine].add(websocket)
    try:
        await websocket.send_json(seen(session))
        async for _ in websocket.iter_text():
            pass  # it has nothing to say; this waits for its end
    finally:
        tabs[mine].discard(websocket)
        if not tabs[mine]:
            del tabs[mine]


async def show(session: RequestSession) -> None:
    for tab in list(tabs.get(session.id, ())):
        try:
            await tab.send_json(seen(session))
        except (WebSocketDisconnect, RuntimeError):
            pass  # it is being closed, and leaves by itself
