"""Every error that stickygw raises, and the exit codes of its commands.

::

    StickygwError
    ├── OperatorError            the operator can mend it; carries an exit code
    │   ├── SettingsError        a setting is wrong: which, what was given, where, what is allowed
    │   ├── TargetError          the application cannot be found, imported or started
    │   ├── BindError            an address cannot be bound
    │   ├── RuntimeDirError      the runtime or state directory cannot be used, or another gateway holds it
    │   ├── StoreError           Redis or Valkey cannot be reached, or no embedded Valkey can be had
    │   ├── NoGatewayError       no running gateway is found, or several are and none is named
    │   └── CommandError         the running gateway refused a command, or could not carry it out
    ├── OutsideGateway           what only works in a gateway's worker, or for one of its requests, was called elsewhere
    ├── ConnectionClosed         the WebSocket has ended; raised by ``send`` and ``receive``
    │   └── ConnectionMoved      it goes on in another worker; raised where the object was kept in the old one
    ├── TellError                a message to another worker was not delivered, or not answered
    ├── OffloadFull              too many offloaded calls wait already
    ├── SessionEnded             the session was destroyed or replaced, or what was stored of it is gone
    ├── SessionUnavailable       the session store did not answer, so nothing was read or written
    ├── SessionValueError        a value that a session cannot keep
    ├── StateValueError          a value of ``conn.state`` that cannot go to another worker
    ├── RoomNameError            a room name that is empty, too long or not text
    ├── PublishError             the store did not take what another program published, or did not answer
    └── Refuse                   raised by an application in ``on_handshake`` to answer with an HTTP status

Bad input from a client is never an exception: it is a value (`stickygw.routing.request_head.Refusal`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum


class ExitCode(IntEnum):
    """What a command's exit status means."""

    OK = 0
    USAGE = 2
    """The command line is wrong (click's own code)."""
    SETTINGS = 3
    """A setting is wrong."""
    TARGET = 4
    """The application cannot be found, imported or started."""
    BIND = 5
    """An address is taken or cannot be bound."""
    RUNTIME_DIR = 6
    """The runtime or state directory cannot be used, or another gateway holds it."""
    STORE = 7
    """Redis or Valkey cannot be reached, at start or by a command."""
    FORCED_STOP = 8
    """The drain took longer than it may; what was left was cut."""
    NO_GATEWAY = 9
    """No running gateway is found, or several are and none is named."""
    COMMAND = 10
    """The running gateway refused a command, or could not carry it out."""
    INTERNAL = 70
    """A defect in stickygw."""


class StickygwError(Exception):
    """The base of all errors here."""


class OperatorError(StickygwError):
    """Something that the operator can mend. The message says how; `exit_code` is the command's exit status."""

    exit_code = ExitCode.INTERNAL


class SettingsError(OperatorError):
    """A setting is wrong."""

    exit_code = ExitCode.SETTINGS


class TargetError(OperatorError):
    """The application cannot be found, imported or started."""

    exit_code = ExitCode.TARGET


class BindError(OperatorError):
    """An address is taken or cannot be bound."""

    exit_code = ExitCode.BIND


class RuntimeDirError(OperatorError):
    """The runtime or state directory cannot be used, or another gateway holds it."""

    exit_code = ExitCode.RUNTIME_DIR


class StoreError(OperatorError):
    """Redis or Valkey cannot be reached at start or by a command, or no embedded Valkey can be had."""

    exit_code = ExitCode.STORE


class NoGatewayError(OperatorError):
    """No running gateway is found, or several are and none is named."""

    exit_code = ExitCode.NO_GATEWAY


class CommandError(OperatorError):
    """The running gateway refused a command, or could not carry it out."""

    exit_code = ExitCode.COMMAND


class OutsideGateway(StickygwError, RuntimeError):
    """What only works in a gateway's worker, or for one of its requests, was called elsewhere; the text says where."""


class ConnectionClosed(StickygwError):
    """The WebSocket has ended.

    `code` and `reason` are those of the close frame (RFC 6455 §7.1.5), 1006 and "" where there was none.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"connection closed with {code}" + (f": {reason}" if reason else ""))
        self.code = code
        self.reason = reason


class ConnectionMoved(ConnectionClosed):
    """The WebSocket is open, but served by another worker now: a task of the application's kept the object.

    `code` is 1012, as if it had been closed for the reload.
    """

    def __init__(self) -> None:
        super().__init__(1012, "moved to another worker")


class TellError(StickygwError):
    """A message to another worker was not delivered, or not answered; the text says which, and why."""


class OffloadFull(StickygwError):
    """Too many offloaded calls wait or run already (``offload_queue``)."""


class SessionEnded(StickygwError):
    """The session was destroyed or got a new id, or what was stored of it is gone. It takes no more writes."""


class SessionUnavailable(StickygwError):
    """The session store did not answer in time: nothing is known to be read or written."""


class SessionValueError(StickygwError, ValueError):
    """A value that a session cannot keep: not one of msgpack's types, or too large."""


class StateValueError(StickygwError, ValueError):
    """A value of ``conn.state`` that cannot go to another worker with its connection; the text says which, and why."""


class RoomNameError(StickygwError, ValueError):
    """A room name that is empty, too long or not text."""


class PublishError(StickygwError):
    """The store did not take what a `stickygw.publisher` sent, or did not answer.

    `is_uncertain`: it may be published all the same. What is published again then may come twice.
    """

    def __init__(self, message: str, *, is_uncertain: bool) -> None:
        super().__init__(message)
        self.is_uncertain = is_uncertain


class Refuse(StickygwError):
    """Raised in ``on_handshake``: answer with an HTTP status instead of opening the WebSocket.

    `status` is an HTTP status from 400 to 599, `message` the body as plain text, `headers` further fields.
    """

    def __init__(self, status: int, message: str = "", *, headers: Mapping[str, str] | None = None) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"a refusal has an HTTP status from 400 to 599, not {status}")
        for name, value in (headers or {}).items():
            if not (name.isascii() and value.isascii() and name.isprintable() and value.isprintable()):
                raise ValueError(f"the header {name!r} of a refusal can't be sent: printable ASCII only")
        super().__init__(f"{status} {message}".strip())
        self.status = status
        self.message = message
        self.headers = dict(headers or {})

    @classmethod
    def misdirected(cls, url: str) -> Refuse:
        """421 (RFC 9110 §15.5.20): another gateway serves it. `url`, printable ASCII, says where, in the field
        Location and as the body. Browsers show neither to the page that opens a WebSocket; other clients go there."""
        if not url:
            raise ValueError("a misdirected client has to be told a URL")
        return cls(421, url, headers={"Location": url})
