"""A crash at every step: one change in a calm world, once for each step of each process that takes part in it.

Everything is as calm as it is deterministic, so a first run without a fault tells which steps there are: between the
change's begin and its end every statement, message and answer of a process is one. Each of the runs that follow halts
one process at one of them, and goes until then as the first one went. Whoever asked for the change repeats it until it
is answered: in the end it has happened once, and nothing else has.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import grpc

from services.switcher.questions import ALWAYS_ASKED, ROLLBACK
from tests.simulation.checks import Violation
from tests.simulation.loop import Process
from tests.simulation.network import channel
from tests.simulation.people import Reader
from tests.simulation.real import Real
from tests.simulation.simulation import Outcome, Plan, run, set_up, settle
from tests.simulation.world import World
from turnout.names import VersionId
from turnout.registry.v1 import registry_pb2, registry_pb2_grpc
from turnout.routing import WHOLE
from turnout.status import from_rpc_error
from turnout.switcher.v1 import switcher_pb2, switcher_pb2_grpc

FROZEN_S = 4.0  # longer than a reader lease, a proposal, and than a front may serve experiments
_CALL_S = 5.0
_WITHIN_S = 20.0  # in which a change must have come to its end, whoever was halted
_PAUSE_S = 0.05
_READ_EVERY_S = 0.03
_REST_S = 0.6  # in which what follows an answered change is over, such as the move of the view
_AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_GATES = (*ALWAYS_ASKED, ROLLBACK)
_ALPHA, _BETA = VersionId("alpha", 1), VersionId("beta", 1)


class Client:
    """Asks for one change after another, each until it is answered."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._switcher: Any = switcher_pb2_grpc.SwitcherStub(channel(world.network, "switcher"))
        self._registry: Any = registry_pb2_grpc.RegistryStub(channel(world.network, "registry"))
        self._number = 0

    # --- changes ---

    async def cut_over(self, version: int, job: str = "alpha") -> None:
        request = switcher_pb2.CutOverRouteRequest(name=f"jobs/{job}/route", version=version, override_gates=_GATES)
        await self._change(self._switcher.CutOverRoute, request)

    async def cut_over_all(self, version: int) -> None:
        request = switcher_pb2.CutOverRoutesRequest(override_gates=_GATES)
        for job in sorted(self.world.jobs):
            request.cut_overs.add(name=f"jobs/{job}/route", version=version)
        answer = await self._asked(self._switcher.CutOverRoutes, request)
        for change in answer.route_changes:
            self.world.checks.answered(change)

    async def split(self, active: int, version: int, weight: int) -> None:
        arms = [switcher_pb2.Arm(version=active, weight=WHOLE - weight)]
        arms += [switcher_pb2.Arm(version=version, weight=weight)] if version != active else []
        request = switcher_pb2.SetTrafficRequest(name="jobs/alpha/route", arms=arms, override_gates=_GATES)
        await self._change(self._switcher.SetTraffic, request)

    async def roll_back(self) -> None:
        await self._change(self._switcher.RollBackRoute, switcher_pb2.RollBackRouteRequest(name="jobs/alpha/route"))

    async def retire(self, retain_ms: int = 0) -> None:
        """Retire v1 of alpha, until its run has stopped, or its table is gone where it is not retained."""
        request = registry_pb2.RetireVersionRequest(name=_ALPHA.name, forgo_rollback=True)
        request.retain_for.FromMilliseconds(retain_ms)
        await self._asked(self._registry.RetireVersion, request)
        await self._until(lambda: self._state() == ("RETIRED" if retain_ms else "DROPPED"))

    async def unretire(self) -> None:
        await self._asked(self._registry.UnretireVersion, registry_pb2.UnretireVersionRequest(name=_ALPHA.name))
        await self._until(lambda: not self.world.checks.unsettled())

    def _state(self) -> str:
        rows = self.world.real.fetch("select state from registry.versions where job = 'alpha' and number = 1")
        return str(rows[0]["state"])

    # --- asking ---

    async def _change(self, method: Any, request: Any) -> None:
        self.world.checks.answered(await self._asked(method, request))

    async def _asked(self, method: Any, request: Any) -> Any:
        """The answer. Repeated with its request id while there is none; anew where it was refused, which must have
        changed nothing."""
        loop = self.world.loop
        until_s = loop.time() + _WITHIN_S
        request.request_id = self._next_id()
        while loop.time() < until_s:
            before = self._epochs()
            try:
                return await method(request, timeout=_CALL_S)
            except grpc.aio.AioRpcError as error:
                self._refused(error, request, before)
            await asyncio.sleep(_PAUSE_S)
        self.world.checks.fail(f"{type(request).__name__} was not carried out within {_WITHIN_S:g} s")
        raise Violation

    def _refused(self, error: grpc.aio.AioRpcError, request: Any, before: dict[str, int]) -> None:
        said = from_rpc_error(error, "service")
        self.world.checks.count(f"refused {said.reason}")
        if error.code() in _AGAIN or said.reason == "REQUEST_CARRIED_OUT":
            return
        if error.code() is not grpc.StatusCode.ABORTED:
            self.world.checks.fail(f"{type(request).__name__} was refused: {said.reason}: {said.message}")
            raise Violation
        request.request_id = self._next_id()
        if self._epochs() != before:
            self.world.checks.fail(f"{type(request).__name__} was refused ({said.reason}), and has changed a route")

    def _next_id(self) -> str:
        self._number += 1
        return f"request-{self._number}"

    def _epochs(self) -> dict[str, int]:
        return {job: max(epochs) for job, epochs in self.world.checks.history.items()}

    async def _until(self, holds: Callable[[], bool]) -> None:
        until_s = self.world.loop.time() + _WITHIN_S
        while not holds():
            if self.world.loop.time() > until_s:
                self.world.checks.fail(f"after {_WITHIN_S:g} s: {self.world.checks.unsettled()}")
                raise Violation
            await asyncio.sleep(_PAUSE_S)


@dataclass(frozen=True)
class Course:
    """A change, what comes before it, and what has become of the routes by it: of a job its active version and weights.

    dropped: whether v1 of alpha has no table any more.
    """

    before: Callable[[Client], Awaitable[None]]
    change: Callable[[Client], Awaitable[None]]
    alpha: tuple[int, dict[int, int]]
    beta: int = 1
    epochs: int = 1  # by which alpha's has grown
    dropped: bool = False

    def missed(self, world: World, epoch: int) -> Iterator[str]:
        """How what came of it differs from what was asked for. epoch: of alpha before the change."""
        alpha, beta = world.checks.newest("alpha"), world.checks.newest("beta")
        assert alpha is not None
        assert beta is not None
        found = alpha.active_version, {arm.version: arm.weight for arm in alpha.arms}
        if found != self.alpha or beta.active_version != self.beta:
            yield f"alpha came to {found}, beta to v{beta.active_version}; asked was for {self.alpha}, v{self.beta}"
        if alpha.epoch != epoch + self.epochs:
            yield f"alpha went from epoch {epoch} to {alpha.epoch}, not by {self.epochs}"
        if (_ALPHA in world.tables.dropped) != self.dropped:
            yield f"the table of {_ALPHA} is {'there' if self.dropped else 'gone'}"


async def _nothing(client: Client) -> None:
    """The routes are as they were begun with."""


async def _second(client: Client) -> None:
    await client.cut_over(2)


async def _retired(client: Client) -> None:
    await client.cut_over(2)
    await client.retire(retain_ms=60_000)


async def _half(client: Client) -> None:
    await client.split(1, 2, 5000)


async def _replaced(client: Client) -> None:
    await client.cut_over(2)
    await client.retire()


COURSES: dict[str, Course] = {
    "cut over": Course(_nothing, _second, (2, {2: WHOLE})),
    "cut over together": Course(_nothing, lambda client: client.cut_over_all(2), (2, {2: WHOLE}), beta=2),
    "split": Course(_nothing, _half, (1, {1: 5000, 2: 5000})),
    "abort": Course(_half, lambda client: client.split(1, 1, 0), (1, {1: WHOLE})),
    "roll back": Course(_second, lambda client: client.roll_back(), (1, {1: WHOLE})),
    "retire": Course(_second, lambda client: client.retire(), (2, {2: WHOLE}), epochs=0, dropped=True),
    "replace": Course(_nothing, _replaced, (2, {2: WHOLE}), dropped=True),
    "unretire": Course(_retired, lambda client: client.unretire(), (2, {2: WHOLE}), epochs=0),
}


@dataclass
class _Played:
    """A course as it is played. spans: the first and the last step of each process while the change was made."""

    course: Course
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)

    async def scenario(self, world: World, plan: Plan, rng: random.Random) -> None:
        """From the start of the processes to the end of the change, and until all is well."""
        world.tables.moody = False
        set_up(world, plan, rng)
        people = Process("people")
        world.processes.append(people)
        restarts = world.loop.spawn(people, _restart(world))
        await world.loop.spawn(people, self._change(world, random.Random(rng.random())))
        await settle(world, random.Random(rng.random()))
        restarts.cancel()

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
        await self.course.change(client)
        await asyncio.sleep(_REST_S)
        self.spans = {
            process.name: (first[process.name], process.steps)
            for process in world.processes
            if process.name in first and process.name != "people" and process.steps >= first[process.name]
        }
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


async def _restart(world: World) -> None:
    """Whoever has died is there again after a moment."""
    while True:
        await asyncio.sleep(0.3)
        for host in world.hosts:
            world.start(host)


def _plan(seed: int) -> Plan:
    return Plan(seed=seed, fronts=2, switchers=2, registries=1, crash_chance=0.0, notice_loss=0.0, database_slow=0.0)


def steps_of(real: Real, course: Course, seed: int) -> tuple[Outcome, list[tuple[str, int]]]:
    """A run without a fault, and every step at which one may be put: of each process, in their order."""
    played = _Played(course)
    outcome = run(real, _plan(seed), played.scenario)
    return outcome, [(name, step) for name, (a, b) in played.spans.items() for step in range(a, b + 1)]


def halted_at(real: Real, course: Course, seed: int, at: tuple[str, int], freeze_s: float) -> Outcome:
    """A run in which a process is killed at a step of its own, or frozen for a while where that is not 0."""
    name, step = at
    plan = replace(_plan(seed), crash_at={name: step}, freeze_s=freeze_s)
    return run(real, plan, _Played(course).scenario)
