"""One simulation: a plan drawn from a seed, carried out, and checked all the way."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import warnings
import zlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from tests.simulation.checks import Violation
from tests.simulation.launchers import Closer, Launcher
from tests.simulation.loop import Process
from tests.simulation.network import Faults
from tests.simulation.people import Operator, Reader
from tests.simulation.real import Real
from tests.simulation.replayer import Flaw
from tests.simulation.world import FrontHost, Host, World
from turnout.names import VersionId

_SETTLE_S = 12.0  # in which all must come to rest: longer than a silent front may serve, and than a claim lives
_ROLLOUT_S = 20.0  # more, where a rollout has all its way before it, and its old version is retired
_BACK_S = 4.5  # longer than anybody is frozen
_LOOK_S = 0.25


@dataclass(frozen=True)
class Outcome:
    """What a simulation came to. `trace`: equal for equal runs."""

    seed: int
    violations: tuple[str, ...]
    counts: dict[str, int]
    steps: dict[str, int]
    seconds: float
    trace: int


@dataclass(frozen=True)
class Plan:
    """How a simulation goes. `crash_at`: a process by its name, and the step at which it is killed, or frozen for
    `freeze_s` where that is not 0."""

    seed: int
    chaos_s: float = 6.0
    fronts: int = 3
    switchers: int = 2
    registries: int = 2
    rollouts: bool = False  # whether operators also roll out and experiment
    operators: int = 2
    readers: int = 3
    faults_per_s: float = 1.2
    crash_chance: float = 0.3
    network: Faults = field(default_factory=Faults)
    notice_loss: float = 0.1
    database_slow: float = 0.02
    crash_at: dict[str, int] = field(default_factory=dict)
    freeze_s: float = 0.0


def plan_of(seed: int) -> Plan:
    """The plan of a seed: some are calm, some have every kind of trouble."""
    rng = random.Random(f"plan-{seed}")
    bad = rng.choice([0.0, 0.5, 1.0])
    rollouts = seed % 2 == 1
    return Plan(
        seed=seed,
        rollouts=rollouts,
        chaos_s=9.0 if rollouts else 6.0,
        fronts=rng.randint(2, 3),
        switchers=rng.randint(1, 3),
        registries=rng.randint(1, 2),
        operators=rng.randint(2 if rollouts else 1, 3),
        faults_per_s=rng.choice([0.3, 1.0, 3.0] if rollouts else [0.5, 2.0, 4.0]),
        crash_chance=rng.choice([0.0, 0.3, 0.6]),
        network=Faults(loss=0.03 * bad, stream_break=0.004 * bad, stall=0.01 * bad),
        notice_loss=rng.choice([0.0, 0.2, 1.0]),
        database_slow=rng.choice([0.0, 0.05, 0.25]),
    )


class Trouble:
    """What goes wrong from outside, at random instants."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._rng = rng
        self._kinds: dict[Callable[[], None], int] = {
            self._kill: 4,
            self._freeze: 3,
            self._end: 2,
            self._isolate: 5,
            self._cut_database: 2,
            self._restart_database: 1,
            self._reset: 8,
        }

    async def work(self, until_s: float, per_s: float) -> None:
        while per_s and self._world.loop.time() < until_s:
            await asyncio.sleep(self._rng.expovariate(per_s))
            self._rng.choices(list(self._kinds), list(self._kinds.values()))[0]()

    async def restart(self) -> None:
        """Whoever has died is started again after a while."""
        while True:
            await asyncio.sleep(self._rng.uniform(0.05, 1.0))
            for host in self._world.hosts:
                if (host.process is None or not host.process.alive) and self._rng.random() < 0.5:
                    self._world.start(host)

    def _live(self) -> tuple[Host, Process]:
        hosts = [host for host in self._world.hosts if host.process is not None and host.process.alive]
        host = self._rng.choice(hosts or self._world.hosts)
        assert host.process is not None
        return host, host.process

    def _kill(self) -> None:
        self._world.kill(self._live()[0])

    def _end(self) -> None:
        self._world.end(self._live()[0])

    def _freeze(self) -> None:
        self._world.loop.freeze(self._live()[1], self._rng.choice([0.05, 0.5, 1.5, 4.0]))

    def _isolate(self) -> None:
        """A process reaches some others no more, but PostgreSQL."""
        _, process = self._live()
        others = [host.process for host in self._world.hosts if host.process not in (None, process)]
        chosen = [other for other in others if self._rng.random() < 0.6]
        pairs = {frozenset((process, other)) for other in chosen if other is not None}
        network = self._world.network
        network.cut |= pairs

        def join() -> None:
            network.cut -= pairs
            for stream in list(network.streams):
                stream.joined()

        self._world.loop.in_process(None, self._rng.choice([0.2, 1.5, 3.0, 4.0]), join)

    def _cut_database(self) -> None:
        _, process = self._live()
        cut = self._world.server.cut
        cut.add(process)
        self._world.loop.in_process(None, self._rng.choice([0.2, 1.0, 4.0]), cut.discard, process)

    def _restart_database(self) -> None:
        self._world.server.restart(self._rng.choice([0.05, 0.5, 2.0]))

    def _reset(self) -> None:
        self._world.network.reset_streams(self._live()[1])


Scenario = Callable[[World, Plan, random.Random], Coroutine[None, None, None]]
"""What happens in a world, from its beginning until all must be well."""


def run(real: Real, plan: Plan, scenario: Scenario | None = None) -> Outcome:
    """Carry out a plan. A loop that runs already stands still meanwhile."""
    outer = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        return _run(real, plan, scenario or _chaos)
    finally:
        asyncio._set_running_loop(outer)


def _run(real: Real, plan: Plan, scenario: Scenario) -> Outcome:
    rng = random.Random(f"run-{plan.seed}")
    world = World(real, random.Random(rng.random()), jobs={"alpha": 5, "beta": 3}, rollouts=plan.rollouts)
    world.crash_at, world.freeze_s, world.crash_chance = plan.crash_at, plan.freeze_s, plan.crash_chance
    world.prepare_database()
    logging.disable(logging.CRITICAL)
    with world.product(), warnings.catch_warnings():
        try:
            world.loop.run_until_complete(scenario(world, plan, rng))
        except Violation:
            pass
        finally:
            seconds = world.loop.time()
            world.close()
            logging.disable(logging.NOTSET)
    if real.failed is not None:
        raise RuntimeError("the real database failed, so that nothing was shown") from real.failed
    steps = {process.name: process.steps for process in world.processes}
    told = repr((seconds, steps, world.checks.counts, world.server.commits, world.checks.violations))
    trace = zlib.crc32(told.encode())
    return Outcome(plan.seed, tuple(world.checks.violations), world.checks.counts, steps, seconds, trace)


async def _chaos(world: World, plan: Plan, rng: random.Random) -> None:
    set_up(world, plan, rng)
    loop = world.loop
    outside = Process("outside")
    world.processes.append(outside)
    trouble = Trouble(world, random.Random(rng.random()))
    restarts = loop.spawn(outside, trouble.restart())
    await loop.spawn(outside, _begin(world, random.Random(rng.random())))
    world.network.faults, world.notice_loss = plan.network, plan.notice_loss
    world.server.slow = plan.database_slow
    if plan.rollouts:
        _make_flaws(world, random.Random(rng.random()))
    until_s = loop.time() + plan.chaos_s
    work = [loop.spawn(outside, trouble.work(until_s, plan.faults_per_s))]
    for number in range(plan.operators):
        process = world.process(f"operator-{number}")
        process.crash_at = 0
        work.append(loop.spawn(process, _operate(world, process.name, random.Random(rng.random()), until_s)))
    readers = Process("readers")
    world.processes.append(readers)
    for _ in range(plan.readers):
        work.append(loop.spawn(readers, _read(world, random.Random(rng.random()), until_s)))
    watch = loop.spawn(None, _watch_violations(world))
    log = loop.spawn(None, _advance(world, random.Random(rng.random())))
    await asyncio.wait([watch, loop.spawn(None, _all(work))], return_when=asyncio.FIRST_COMPLETED)
    if world.checks.violations:
        raise Violation
    await settle(world, random.Random(rng.random()))
    for task in (restarts, watch, log):
        task.cancel()


def _make_flaws(world: World, rng: random.Random) -> None:
    """Some versions are wrong in one way or another; the first one of a job is not."""
    for job, versions in world.jobs.items():
        for number in range(2, versions + 2):
            if rng.random() < 0.4:
                world.tables.flaws[VersionId(job, number)] = rng.choice(list(Flaw))


def set_up(world: World, plan: Plan, rng: random.Random) -> None:
    """Start every process of a plan."""
    for number in range(plan.fronts):
        world.hosts.append(FrontHost(f"front-{number}", "query", rng.uniform(-0.2, 0.2)))
    counts = {"switcher": plan.switchers, "registry": plan.registries, "replayer": 1}
    for service, count in counts.items():
        for number in range(count):
            world.hosts.append(Host(f"{service}-{number}", service, rng.uniform(-0.2, 0.2)))
    for host in world.hosts:
        world.start(host)


async def _begin(world: World, rng: random.Random) -> None:
    """Routes before the trouble, some of the time: the very beginning is a state of its own."""
    await asyncio.sleep(0.5)
    if rng.random() < (0.95 if world.rollouts else 0.8):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(20.0):
                await Operator(world, "beginner", rng).begin()


async def _operate(world: World, name: str, rng: random.Random, until_s: float) -> None:
    kind = Launcher if world.rollouts else Operator
    await kind(world, name, rng).work(until_s)


async def _close(world: World, rng: random.Random) -> None:
    await Closer(world, "closer", rng).work(math.inf)


async def _read(world: World, rng: random.Random, until_s: float) -> None:
    await Reader(world, rng).work(until_s, 0.15)


async def _all(work: list[asyncio.Task[None]]) -> None:
    for task in work:
        await task


async def _advance(world: World, rng: random.Random) -> None:
    while True:
        world.tables.tick(rng)
        await asyncio.sleep(rng.uniform(0.1, 0.8))


async def _watch_violations(world: World) -> None:
    while not world.checks.violations:
        await asyncio.sleep(0.05)


async def settle(world: World, rng: random.Random) -> None:
    """Everything reaches everything, and whoever dies is started again: what was begun comes to its end, and then all
    must be well."""
    world.network.faults, world.network.cut, world.notice_loss = Faults(), set(), 0.0
    for stream in list(world.network.streams):
        stream.joined()
    world.server.cut.clear()
    world.server.slow = 0.0
    world.crash_chance = 0.0
    for process in world.processes:
        process.crash_at = 0
    await _until(world, _BACK_S, lambda: [process.name for process in world.processes if process.frozen])
    left = await _settled(world, rng)
    for what in [] if world.checks.violations else left:
        world.checks.fail(what)
    if world.checks.violations:
        raise Violation
    process = Process("last reader")
    world.processes.append(process)
    await world.loop.spawn(process, _read_at_last(world, rng))
    world.checks.ended()


async def _settled(world: World, rng: random.Random) -> list[str]:
    """Wait for the end of all that is under way; what is left in the end. Rollouts need readers, and people."""
    if not world.rollouts:
        return await _until(world, _SETTLE_S, world.checks.unsettled)
    people = Process("last people")
    world.processes.append(people)
    work = [world.loop.spawn(people, _close(world, random.Random(rng.random())))]
    work += [world.loop.spawn(people, _read(world, random.Random(rng.random()), math.inf)) for _ in range(2)]
    left = await _until(world, _SETTLE_S + _ROLLOUT_S, world.checks.unsettled)
    for task in work:
        task.cancel()
    return left


async def _until(world: World, within_s: float, left: Callable[[], list[str]]) -> list[str]:
    """Wait until nothing is left, or the time is over, or something did not hold; what is left then."""
    until_s = world.loop.time() + within_s
    while (last := left()) and world.loop.time() < until_s and not world.checks.violations:
        await asyncio.sleep(_LOOK_S)
    return last


async def _read_at_last(world: World, rng: random.Random) -> None:
    reader = Reader(world, rng)
    for _ in range(20):
        reader.forget()  # versions whose runs stand still may be behind what others have read, rightly
        if not await reader.read():
            world.checks.fail("a read failed though everything runs")
