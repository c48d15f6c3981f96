"""An MCP server with sessions: the official SDK's, on several workers.

    stickygw run examples/mcp_server/app.py:app --workers 4 --learn header:mcp-session-id

The SDK keeps a session in the memory of the process that began it, and so does this server what was noted in it.
"""

import os
from collections import OrderedDict

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

MAX_SESSIONS = 10_000
"""As many as the SDK keeps. Beyond, the notes of the session that has noted nothing for longest are forgotten."""

server = MCPServer("notes")
noted: OrderedDict[str, list[str]] = OrderedDict()


def session_of(context: Context) -> str:
    """The id under which the client's session began."""
    found = (context.headers or {}).get("mcp-session-id")
    if found is None:
        raise ToolError("Notes belong to a session; protocols after 2025-11-25 have none. Ask with an older one.")
    return found


@server.tool()
def note(text: str, context: Context) -> int:
    """Keep a note for the rest of this session. Returns how many there are."""
    session = session_of(context)
    notes = noted.setdefault(session, [])
    notes.append(text)
    noted.move_to_end(session)
    if len(noted) > MAX_SESSIONS:
        noted.popitem(last=False)
    return len(notes)


@server.tool()
def notes(context: Context) -> list[str]:
    """The notes of this session, oldest first."""
    return noted.get(session_of(context), [])


@server.tool()
def worker() -> int:
    """The process that answers. Needs no session."""
    return os.getpid()


app = server.streamable_http_app()
