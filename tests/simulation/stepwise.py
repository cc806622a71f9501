"""A crash at every step: one change in a calm world, once for each step of each process that takes part in it.

Everything is as calm as it is deterministic, so a first run without a fault tells which steps there are: between the
change's begin and its end every statement, message and answer of a process is one. Each of the runs that follow halts
one process at one of them, and goes until then as the first one went. Whoever asked for the change repeats it until it
is answered: in the end it has happened once, and nothing else has.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from services.switcher.rollouts.acts import ActKind
from tests.simulation.courses import CANDIDATE, Client, Course
from tests.simulation.loop import Process
from tests.simulation.people import Reader
from tests.simulation.postgres import Session
from tests.simulation.real import Real
from tests.simulation.simulation import Outcome, Plan, run, set_up, settle
from tests.simulation.world import FrontHost, World

FROZEN_S = 4.0  # longer than a reader lease, a proposal, and than a front may serve experiments
_HANGS_S = 0.5  # shorter than a lease
_LOOK_S = 0.0005
_READ_EVERY_S = 0.03
_REST_S = 0.6  # in which what follows an answered change is over, such as the move of the view


@dataclass(frozen=True)
class Place:
    """A step of a process, and what it does there."""

    process: str
    step: int
    what: str


@dataclass
class _Played:
    """A course as it is played. places: the steps of every process while the change was made."""

    course: Course
    joined: bool = False  # whether another front comes while gates are asked again
    dies_behind: ActKind | None = None  # whoever commits this act of the rollout does not live to hear of it
    places: list[Place] = field(default_factory=list)

    async def scenario(self, world: World, plan: Plan, rng: random.Random) -> None:
        """From the start of the processes to the end of the change, and until all is well."""
        world.tables.moody = False
        world.server.checks.append(self._committed(world))
        if self.course.flaw is not None:
            world.tables.flaws[CANDIDATE] = self.course.flaw
        set_up(world, plan, rng)
        people = Process("people")
        world.processes.append(people)
        restarts = world.loop.spawn(people, _restart(world))
        await world.loop.spawn(people, self._change(world, random.Random(rng.random())))
        await settle(world, random.Random(rng.random()))
        restarts.cancel()

    def _committed(self, world: World) -> Callable[[Session], None]:
        def look(session: Session) -> None:
            epoch = max(world.checks.history.get("alpha", {}), default=0)
            done = world.checks.requests.get(("alpha", epoch), "")
            if self.dies_behind is not None and done.endswith(f"-{self.dies_behind.value.lower()}"):
                self.dies_behind = None
                world.loop.kill(session.process)

        return look

    async def _change(self, world: World, rng: random.Random) -> None:
        client, reader = Client(world), Reader(world, rng)
        await asyncio.sleep(_REST_S)
        await client.cut_over_all(1)
        await self.course.before(client)
        await asyncio.sleep(_REST_S)
        epoch = max(world.checks.history["alpha"])
        first = {process.name: process.steps + 1 for process in world.processes}
        until = asyncio.Event()
        reading = asyncio.create_task(_read(reader, until))
        if self.joined:
            world.tables.at_gates = _Joining(world).gates_asked
        await self.course.change(client)
        await asyncio.sleep(_REST_S)
        self.places = [
            Place(process.name, step, what)
            for process in world.processes
            if process.name in first and process.name != "people"
            for step, what in enumerate(process.done[first[process.name] - 1 :], start=first[process.name])
        ]
        until.set()
        await reading
        for what in self.course.missed(world, epoch):
            world.checks.fail(what)
        if reader.failed:
            world.checks.fail(f"{reader.failed} reads failed though only one process was halted")


async def _read(reader: Reader, until: asyncio.Event) -> None:
    while not until.is_set():
        await reader.read()
        await asyncio.sleep(_READ_EVERY_S)


@dataclass
class _Joining:
    """A front that comes once all others are prepared: when gates are asked for the second time, before the commit. It
    holds a lease then, and hangs before it is prepared for anything."""

    world: World
    asked: int = 0

    async def gates_asked(self) -> None:
        self.asked += 1
        if self.asked != 2:
            return
        host = FrontHost("front-late", "query")
        self.world.hosts.append(host)
        self.world.start(host)
        while not self.world.real.fetch("select from switcher.reader_leases where front like 'front-late.%'"):
            await asyncio.sleep(_LOOK_S)
        assert host.process is not None, "it has a lease"
        self.world.loop.freeze(host.process, _HANGS_S)


async def _restart(world: World) -> None:
    """Whoever has died is there again after a moment."""
    while True:
        await asyncio.sleep(0.3)
        for host in world.hosts:
            world.start(host)


def _plan(course: Course, seed: int) -> Plan:
    return Plan(
        seed=seed,
        rollouts=course.rollouts,
        fronts=2,
        switchers=2,
        registries=1,
        crash_chance=0.0,
        notice_loss=0.0,
        database_slow=0.0,
    )


def steps_of(real: Real, course: Course, seed: int) -> tuple[Outcome, list[Place]]:
    """A run without a fault, and every step at which one may be put: of each process, in their order."""
    played = _Played(course)
    outcome = run(real, _plan(course, seed), played.scenario)
    return outcome, played.places


def few_of(places: Iterable[Place], most: int, seed: int) -> list[Place]:
    """At most so many of the steps of a process that do the same, by chance."""
    alike: dict[tuple[str, str], list[Place]] = {}
    for place in places:
        alike.setdefault((place.process, place.what), []).append(place)
    rng = random.Random(seed)
    chosen = (place for some in alike.values() for place in rng.sample(some, min(most, len(some))))
    return sorted(chosen, key=lambda place: (place.process, place.step))


def halted_at(real: Real, course: Course, seed: int, at: Place, freeze_s: float) -> Outcome:
    """A run in which a process is killed at a step of its own, or frozen for a while where that is not 0."""
    plan = replace(_plan(course, seed), crash_at={at.process: at.step}, freeze_s=freeze_s)
    return run(real, plan, _Played(course).scenario)


def joined(real: Real, course: Course, seed: int) -> Outcome:
    """A run in which another front comes at the last moment before the commit."""
    return run(real, _plan(course, seed), _Played(course, joined=True).scenario)


def died_behind(real: Real, course: Course, seed: int, act: ActKind) -> Outcome:
    """A run in which the switcher that commits an act of a rollout dies at once: nobody knows that it is done."""
    return run(real, _plan(course, seed), _Played(course, dies_behind=act).scenario)
