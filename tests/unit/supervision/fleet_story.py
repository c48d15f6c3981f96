"""Short words for stories about the fleet: gateways that start or serve, and what was done to their workers."""

from __future__ import annotations

from fleet_world import GOOD, LIMITS, Character, Process, World

from stickygw.supervision import events as to
from stickygw.supervision.roster import Limits


def begun(slots: int = 2, *, limits: Limits = LIMITS, every: Character = GOOD) -> World:
    """A gateway that starts."""
    world = World(slots, limits=limits)
    world.character = every
    world.tell(to.Begun())
    return world


def serving(slots: int = 2, *, limits: Limits = LIMITS, every: Character = GOOD) -> World:
    """A gateway whose slots all have a ready worker; `said` is empty."""
    world = begun(slots, limits=limits, every=every)
    world.run(1.0)
    assert to.AllReady() in world.said
    world.said.clear()
    return world


def owner(world: World, slot: int) -> Process:
    """The process that has the slot."""
    member = world.fleet.slots[slot].owner
    assert member is not None
    return world.processes[member.id]


def generations(world: World) -> list[int | None]:
    """Of the code that each slot runs; None: it is empty."""
    return [record.owner.generation if record.owner else None for record in world.fleet.slots]


def steps(world: World) -> list[str]:
    """What was done to workers and slots, in few words."""
    words = []
    for action in world.said:
        match action:
            case to.Launch(_, slot, generation):
                words.append(f"launch {slot} g{generation}")
            case to.GiveSlot(_, slot):
                words.append(f"give {slot}")
            case to.Do(worker, order):
                words.append(f"{order} {world.judge.slots[worker]}")
            case to.OpenSlot(slot):
                words.append(f"open {slot}")
            case to.CloseSlot(slot):
                words.append(f"close {slot}")
    return words


def result(world: World, ticket: int) -> to.Finished | None:
    """How the command ended, if it has."""
    return next((said for said in world.said if isinstance(said, to.Finished) and said.ticket == ticket), None)


def notes(world: World) -> str:
    """The log."""
    return "\n".join(said.text for said in world.said if isinstance(said, to.Note))


def progress(world: World, ticket: int) -> list[str]:
    return [said.text for said in world.said if isinstance(said, to.Progress) and said.ticket == ticket]


def count(world: World, word: str) -> int:
    """How many steps begin with it."""
    return sum(step.startswith(word) for step in steps(world))
