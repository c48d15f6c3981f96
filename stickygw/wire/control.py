"""The messages of the control socket, by which commands reach a running gateway, and their bytes.

A message is its length in four bytes, big-endian, and then a msgpack map, at most `MAX_MESSAGE_BYTES` long. A client
sends a `Request`; the answer is any number of `Progress` and, last, one `Result` or one `Failure`. Requests of one
connection are answered one after the other.

==========  =================  ===================================================================
message     direction          map
==========  =================  ===================================================================
`Request`   client → primary   ``{"v": 1, "do": "scale", "with": {"slots": 4}}``
`Progress`  primary → client   ``{"progress": "slot 3: starting"}``
`Result`    primary → client   ``{"result": {…}}``: the command is done; `stickygw.wire.status` has what it tells
`Failure`   primary → client   ``{"error": {"code": "COMMAND", "message": "…"}}``; the code is an `ExitCode`'s name
==========  =================  ===================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, assert_never

import msgpack

from stickygw.errors import ExitCode

VERSION = 1
LENGTH_BYTES = 4
MAX_MESSAGE_BYTES = 1 << 20
MAX_TEXT = 64 * 1024
"""Characters of a progress or an error message that are sent; a longer one is cut."""


@dataclass(frozen=True, slots=True)
class Request:
    """A command and its arguments, by name."""

    do: str
    arguments: dict[str, Any] = field(repr=False)  # a cookie is a credential, and reprs reach logs


@dataclass(frozen=True, slots=True)
class Progress:
    """The command is under way; one line for the operator."""

    text: str


@dataclass(frozen=True, slots=True)
class Result:
    """The command is done."""

    facts: dict[str, Any] = field(repr=False)  # a store's URL may have a password


@dataclass(frozen=True, slots=True)
class Failure:
    """The command is refused or failed; `code` becomes the exit status of whoever sent it."""

    code: ExitCode
    message: str


Reply = Progress | Result | Failure


class ControlError(ValueError):
    """Bytes that are no message of this protocol, or a message that has no bytes in it: too long, not msgpack."""


def encode(message: Request | Reply) -> bytes:
    """The bytes of a message, length included. Raises `ControlError`."""
    try:
        body: bytes = msgpack.packb(_map(message))
    except (ValueError, TypeError, OverflowError) as error:
        raise ControlError(f"a {type(message).__name__} that msgpack cannot express: {error}") from error
    if len(body) > MAX_MESSAGE_BYTES:
        raise ControlError(f"a {type(message).__name__} of {len(body)} bytes, at most {MAX_MESSAGE_BYTES} are allowed")
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def decode_request(body: bytes) -> Request:
    """The request in a message's `body`. Raises `ControlError` for anything else."""
    match _unpacked(body):
        case {"v": int(version)} if version != VERSION:
            raise ControlError(f"version {version} of the control protocol; this gateway speaks {VERSION}")
        case {"v": int(), "do": str(do), "with": dict(arguments)} if _has_names(arguments):
            return Request(do, arguments)
    raise ControlError('no request: a map {"v": 1, "do": text, "with": map with names} is expected')


def decode_reply(body: bytes) -> Reply:
    """The reply in a message's `body`. Raises `ControlError` for anything else."""
    match _unpacked(body):
        case {"progress": str(text)}:
            return Progress(text)
        case {"result": dict(facts)} if _has_names(facts):
            return Result(facts)
        case {"error": {"code": str(name), "message": str(message)}} if name in ExitCode.__members__:
            return Failure(ExitCode[name], message)
    raise ControlError("no reply: a map with progress, result or error is expected")


_Message = TypeVar("_Message")


class Decoder(Generic[_Message]):
    """Messages out of a stream's bytes, however they are cut. After a `ControlError` the stream means nothing more.

    It holds what it was fed and has not given out: `feed` it while `next_message` has none, and that is at most one
    message and one piece of the stream.
    """

    def __init__(self, decode: Callable[[bytes], _Message]) -> None:
        """`decode` is `decode_request` or `decode_reply`."""
        self._decode = decode
        self._bytes = bytearray()

    def feed(self, data: bytes) -> None:
        """Add the next bytes of the stream."""
        self._bytes += data

    def next_message(self) -> _Message | None:
        """The next message, or None if its bytes are not all there. Raises `ControlError`."""
        if len(self._bytes) < LENGTH_BYTES:
            return None
        length = int.from_bytes(self._bytes[:LENGTH_BYTES], "big")
        if length > MAX_MESSAGE_BYTES:
            raise ControlError(f"a message of {length} bytes, at most {MAX_MESSAGE_BYTES} are allowed")
        end = LENGTH_BYTES + length
        if len(self._bytes) < end:
            return None
        body = bytes(self._bytes[LENGTH_BYTES:end])
        del self._bytes[:end]
        return self._decode(body)

    @property
    def has_begun(self) -> bool:
        """Whether bytes of a message are here that was not given out yet."""
        return bool(self._bytes)


def _map(message: Request | Reply) -> dict[str, Any]:
    match message:
        case Request(do, arguments):
            return {"v": VERSION, "do": do, "with": arguments}
        case Progress(text):
            return {"progress": _sendable(text)}
        case Result(facts):
            return {"result": facts}
        case Failure(code, text):
            return {"error": {"code": code.name, "message": _sendable(text)}}
        case _:
            assert_never(message)


def _sendable(text: str) -> str:
    """`text` within bounds; a file's name in it may have bytes that are not UTF-8."""
    return text[:MAX_TEXT].encode("utf-8", "backslashreplace").decode()


def _unpacked(body: bytes) -> Any:
    try:
        # Keys need not be text: answers are kept by slot, and a payload may be any map.
        return msgpack.unpackb(body, strict_map_key=False)
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise ControlError(f"{len(body)} bytes that are no msgpack: {error}") from error


def _has_names(values: dict[Any, Any]) -> bool:
    return all(isinstance(name, str) for name in values)
