"""What each request on the control socket does in the primary."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from stickygw.errors import CommandError, ExitCode, TargetError, TellError
from stickygw.ipc.control import Say
from stickygw.primary.hand_over import HandOvers
from stickygw.primary.status import StatusReport
from stickygw.primary.steering import Steering
from stickygw.primary.supervisor import Supervisor
from stickygw.primary.tells import Tells
from stickygw.routing.explain import explain
from stickygw.routing.router import Router
from stickygw.supervision import events as to
from stickygw.types import Slot
from stickygw.wire.control import Request
from stickygw.wire.status import RoomStorePlace, SessionStorePlace
from stickygw.wire.tell import SESSIONS_IN_USE, pack, unpack

Arguments = dict[str, Any]

MAX_SESSIONS_ASKED = 500
"""So many ids at once: the question and each answer fit a link message."""


class Control:
    """Carries out requests. `stop()` stops the gateway and is done with its exit code, when all has ended;
    `upgrade(on_progress)` is done when nothing stands in the way of it any more; `caught_up()` is done when adopted
    workers are replaced, or an upgrade came to nothing, and None where there is nothing to replace."""

    def __init__(
        self,
        *,
        supervisor: Supervisor,
        steering: Steering,
        hand_overs: HandOvers,
        router: Router,
        tells: Tells,
        status: StatusReport,
        session_store: SessionStorePlace,
        room_store: RoomStorePlace,
        stop: Callable[[], Awaitable[ExitCode]],
        upgrade: Callable[[Say], Awaitable[None]],
        caught_up: Callable[[], asyncio.Future[to.Finished] | None],
    ) -> None:
        self._supervisor = supervisor
        self._steering = steering
        self._hand_overs = hand_overs
        self._router = router
        self._tells = tells
        self._status = status
        self._session_store = session_store
        self._room_store = room_store
        self._stop = stop
        self._upgrade = upgrade
        self._caught_up = caught_up
        self._clock = asyncio.get_running_loop().time
        self._commands: dict[str, Callable[[Arguments, Say], Awaitable[dict[str, Any]]]] = {
            "status": self._tell_status,
            "why": self._why,
            "reload": self._reload,
            "scale": self._scale,
            "drain": self._drain,
            "restart": self._restart,
            "stop": self._stop_all,
            "upgrade": self._upgrade_primary,
            "upgraded": self._wait_upgraded,
            "tell": self._tell,
            "ask": self._ask,
            "sessions.store": self._tell_session_store,
            "sessions.in_use": self._sessions_in_use,
            "rooms.store": self._tell_room_store,
        }

    async def handle(self, request: Request, progress: Say) -> dict[str, Any]:
        """The facts that answer `request`. Raises `OperatorError`: it is refused, or failed."""
        command = self._commands.get(request.do)
        if command is None:
            raise CommandError(f"there is no command {request.do!r}: {', '.join(self._commands)}")
        return await command(request.arguments, progress)

    async def _tell_status(self, arguments: Arguments, progress: Say) -> dict[str, Any]:
        return dict(self._status.at(self._clock()))

    async def _why(self, arguments: Arguments, progress: Say) -> dict[str, Any]:
        found = explain(
            self._router,
            cookie=_text_or_none(arguments, "cookie"),
            ip=_text_or_none(arguments, "ip"),
            key=_text_or_none(arguments, "key"),
            slots=self._hand_overs.views,
            now=self._clock(),
            wall=time.time(),
        )
        return {"slot": found.slot, "reason": found.reason, "steps": found.steps}

    async def _reload(self, arguments: Arguments, progress: Say) -> dict[str, Any]:
        return _outcome(await self._steering.reload(progress))

    async def _scale(self, arguments: Arguments, progress: Say) -> dict[str, Any]:
        return await self._carried_out(to.Scale(_number(arguments, "slots")), progress)

    async def _drain(self, arguments: Arguments, progress: Say) -> dict[str, Any]:
        return await self._carried_out(to.DrainSlot(Slot(_number(arguments, "slot"))), progress)

    async def _restart(self, arguments: Arguments, progress: Say) -> dict[str, Any]:
        return await self._carried_out(to.RestartSlot(Slot(_number(arguments, "slot"))), progress)

    async def _carried_out(self, command: to.Command, progress: Say) -> dict[str, Any]:
        return _outcome(await self._supervisor.ask(command, progress))

    async def _stop_all(self, arguments: Arguments, progress: Say) -> dict[str, Any]:
        progress(f"stopping: {self._hand_overs.connections} connections")
        return {"exit": (await self._stop()).name}

    async def _upgrade_primary(self, arguments: Arguments, progress: Say) -> dict[str, Any]:
        """The answer is this code's last word: `upgraded` is for the next."""
        await self._upgrade(progress)
        return {"version": self._status.version}

    async def _wait_upgraded(self, arguments: Arguments, progress: Say) -> dict[str, Any]:
        """What became of the workers that were adopted and are to run new code."""
        caught_up = self._caught_up()
        if caught_up is None:
            raise CommandError("no worker was adopted, so none had to be replaced")
        return {**_outcome(await asyncio.shield(caught_up)), "version": self._status.version}

    async def _tell(self, arguments: Arguments, progress: Say) -> dict[str, Any]:
        name, payload, to_whom = _message(arguments)
        try:
            return {"told": self._tells.tell(name, payload, to_whom)}
        except (TellError, ValueError) as error:
            raise CommandError(str(error)) from error

    async def _ask(self, arguments: Arguments, progress: Say) -> dict[str, Any]:
        name, payload, to_whom = _message(arguments)
        timeout = _seconds(arguments, "timeout")
        try:
            answers = await self._tells.ask(name, payload, to_whom, timeout)
        except (TellError, ValueError) as error:
            raise CommandError(str(error)) from error
        return {"answers": {slot: _answer(answer) for slot, answer in answers.items()}}

    async def _tell_session_store(self, arguments: Arguments, progress: Say) -> dict[str, Any]:
        return dict(self._session_store)

    async def _tell_room_store(self, arguments: Arguments, progress: Say) -> dict[str, Any]:
        return dict(self._room_store)

    async def _sessions_in_use(self, arguments: Arguments, progress: Say) -> dict[str, Any]:
        """Of the owners of the slots: who drains is about to let its WebSockets go."""
        ids, timeout = _ids_or_none(arguments), _seconds(arguments, "timeout")
        try:
            answers = await self._tells.ask(SESSIONS_IN_USE, pack(ids), "all", timeout)
        except TellError:  # no worker is ready: there is nobody to use a session
            answers = {}
        except ValueError as error:
            raise CommandError(str(error)) from error
        return {
            "answers": {slot: unpack(answer) for slot, answer in answers.items() if isinstance(answer, bytes)},
            "silent": {slot: str(answer) for slot, answer in answers.items() if isinstance(answer, TellError)},
        }


def _outcome(finished: to.Finished) -> dict[str, Any]:
    if finished.is_well:
        return {"message": finished.text}
    raise TargetError(finished.text) if finished.is_target_broken else CommandError(finished.text)


def _answer(answer: bytes | TellError) -> dict[str, Any]:
    return {"error": str(answer)} if isinstance(answer, TellError) else {"payload": unpack(answer)}


# --- arguments; each of these raises `CommandError` for one that is missing, or not what it must be -------------------


def _message(arguments: Arguments) -> tuple[str, bytes, int | str]:
    to_whom = arguments.get("to")
    if to_whom not in ("all", "least_loaded") and (not isinstance(to_whom, int) or isinstance(to_whom, bool)):
        raise CommandError("a message goes to all, least_loaded or a slot")
    try:
        payload = pack(arguments.get("payload"))
    except ValueError as error:
        raise CommandError(str(error)) from error
    return _text_or_none(arguments, "name") or "", payload, to_whom


def _number(arguments: Arguments, name: str) -> int:
    value = arguments.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise CommandError(f"{name} is a whole number")
    return value


def _text_or_none(arguments: Arguments, name: str) -> str | None:
    value = arguments.get(name)
    if value is not None and not isinstance(value, str):
        raise CommandError(f"{name} is a text")
    return value


def _seconds(arguments: Arguments, name: str) -> float:
    value = arguments.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise CommandError(f"{name} is a number of seconds")
    return value


def _ids_or_none(arguments: Arguments) -> list[str] | None:
    ids = arguments.get("ids")
    if ids is None:
        return None
    if not isinstance(ids, list) or len(ids) > MAX_SESSIONS_ASKED or not all(isinstance(id, str) for id in ids):
        raise CommandError(f"ids is a list of at most {MAX_SESSIONS_ASKED} texts")
    return ids
