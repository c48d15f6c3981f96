"""What a function that runs every so many seconds is told of its turn: `Tick`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Tick:
    """One turn of an ``app.every`` function.

    Tick n is due n × `seconds` after the worker's start, or after 1970 if the job runs once for many, however late the
    ticks before it were: a simulation that steps by `number` keeps time.
    """

    number: int
    """Rises by one for each deadline: one that is left out leaves a hole. A clock that is set back takes it back."""
    late_seconds: float
    """How long after its deadline the function was called."""
    skipped: int
    """How many deadlines were left out since the tick before, as far as this worker knows: its loop was blocked, the
    function still ran, or nobody could say whose turn it was."""


def takes_tick(function: Callable[..., Any]) -> bool:
    """Whether `function` wants a `Tick`: it has a parameter without a default. Raises `TypeError` if it wants more."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some built-in functions do not tell
        return False
    wanted = [one for one in parameters if one.default is one.empty]
    if sum(one.kind in _POSITIONAL for one in wanted) > 1 or any(one.kind is one.KEYWORD_ONLY for one in wanted):
        raise TypeError(f"{function!r} is called with one argument, a Tick, or with none")
    return any(one.kind in _POSITIONAL for one in wanted)
