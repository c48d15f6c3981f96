"""The WebSocket example of Starlette's documentation (https://www.starlette.io/websockets/), as it stands there."""

from starlette.websockets import WebSocket


async def app(scope, receive, send):
    websocket = WebSocket(scope=scope, receive=receive, send=send)
    await websocket.accept()
    await websocket.send_text("Hello, world!")
    await websocket.close()
