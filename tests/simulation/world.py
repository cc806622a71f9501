"""The product's own services as processes of the simulation, on its clock, network and database."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import pkgutil
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from unittest import mock
from uuid import UUID

import grpc

from core.config import Settings
from core.kafka.properties import KafkaConfig
from services.query.app import QueryApp
from services.registry.app import RegistryApp
from services.registry.neighbours import Neighbours
from services.switcher.app import SwitcherApp
from services.switcher.experiments.rows import SQL as EXPERIMENTS_SQL
from tests.simulation.checks import Checks
from tests.simulation.loop import Clock, Loop, Process, current, of_now
from tests.simulation.network import Channel, Network
from tests.simulation.pool import Listener, here
from tests.simulation.postgres import Server
from tests.simulation.real import Real
from tests.simulation.replayer import Replayer, Tables
from turnout import Key, Record, Row, Sum, aggregate
from turnout.names import VersionId
from turnout.reading.front import Front
from turnout.reading.routes_file import StoredRoutes
from turnout.reading.table import Tables as FrontTables
from turnout.replayer.v1 import replayer_pb2_grpc
from turnout.schema import encode, table_name

READ_S_MAX = 1.5
_CALL_S = 2.0  # of a retirement's calls


class Event(Record):
    """What the job of every version reads."""

    k: str


class Counted(Row):
    """What it keeps."""

    k: Key[str]
    version: Sum[int] = 1


@aggregate("alpha", topic="log")
def _counted(event: Event) -> Counted:
    return Counted(k=event.k)


_SETTINGS = Settings(
    listen="",
    kafka=KafkaConfig.of_bootstrap("nowhere:1"),
    postgres="simulated",
    data_dir=Path("nowhere"),
    registry_target="registry",
    replayer_target="replayer",
    switcher_target="switcher",
    reader_lease_s=1.0,
    # Longer than who is frozen for a while (FROZEN_S) and a heartbeat: else reads are refused, and rightly.
    max_stale_active_s=6.0,
    max_stale_experiment_s=2.0,
    rollback_protection_s=3.0,
    instance="",
)


_HASTE: dict[str, Any] = {
    "services.switcher.loop._EVERY_S": 0.3,
    "services.switcher.rollouts.driving._REFUSED_S": 1.0,
    "services.switcher.rollouts.comparing._AGAIN_S": 0.3,
    "services.switcher.experiments.spec.EVERY_LEAST_S": 0.1,
    "services.switcher.experiments.guardrails._LEASE": timedelta(seconds=2),
    "services.switcher.experiments.guardrails._GATES_EVERY_S": 1.0,
    "services.switcher.experiments.guardrails._RETRY_S": 1.0,
    "services.switcher.experiments.guardrails._TIDY_EVERY_S": 1.0,
    **{
        f"services.switcher.{module}.STALE_AFTER": timedelta(seconds=2)
        for module in (
            "rollouts.looking",
            *(f"experiments.{one}" for one in ("guardrails", "conducting", "situations")),
        )
    },
}
"""Days of a rollout are seconds here."""


_CLOCKS = ("clock_gettime", "clock_gettime_ns", "monotonic_ns", "perf_counter", "perf_counter_ns")
_CLOCKS_OF_CPU = ("process_time", "process_time_ns", "thread_time", "thread_time_ns")
_REAL = (
    *(f"time.{name}" for name in (*_CLOCKS, *_CLOCKS_OF_CPU, "sleep", "time_ns")),
    *(f"turnout.clock.SystemClock.{name}" for name in ("now", "monotonic_s")),
    # What the module draws from its one source, which the machine seeds.
    *(f"random.{name}" for name in random.__all__ if hasattr(getattr(random, name), "__self__")),
    "random._urandom",  # of every SystemRandom
    *(f"secrets.{name}" for name in ("choice", "randbelow", "randbits", "token_urlsafe")),
    *(("os.getrandom",) if hasattr(os, "getrandom") else ()),  # Linux alone has it
    *("os.urandom", "uuid.uuid1", "uuid.uuid4"),
)
"""Clocks and chance of the machine, of which a run from a seed must know nothing."""


@contextmanager
def uncollected() -> Iterator[None]:
    """Collect no garbage meanwhile. What is collected half-run runs its `finally` then: whenever that happens to be."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _forgetting() -> str:
    """The statement that forgets experiments which never started, after seconds instead of minutes."""
    forget, minutes = EXPERIMENTS_SQL.forget_never_started, "interval '2 minutes'"
    assert minutes in forget
    return forget.replace(minutes, "interval '6 seconds'")


class Disk:
    """A host's file of routes, which survives its processes. Instead of `RoutesFile`."""

    def __init__(self) -> None:
        self.path = Path("routes.json")
        self.stored: StoredRoutes | None = None

    def load(self) -> StoredRoutes | None:
        return self.stored

    def store(self, routes: StoredRoutes) -> None:
        self.stored = routes


@dataclass(eq=False)
class Host:
    """A machine on which processes of one service follow one another."""

    name: str
    service: str
    skew_s: float = 0.0
    process: Process | None = None
    app: Any = None
    server: Any = None
    started: int = 0


@dataclass(eq=False)
class FrontHost(Host):
    disk: Disk = field(default_factory=Disk)

    @property
    def front(self) -> Front | None:
        """What the process that runs knows; None while there is none."""
        if self.process is None or not self.process.alive or self.app is None:
            return None
        front: Front = self.app._path.front
        return front

    @property
    def heard(self) -> bool:
        """Whether it has had routes from the switcher since it started. One that has not goes by its disk."""
        return self.app is not None and bool(self.app._path._watch._has_routes.is_set())


@dataclass
class World:
    """Everything of one simulation."""

    real: Real
    rng: random.Random
    jobs: dict[str, int]  # and how many of its versions have tables
    loop: Loop = field(default_factory=Loop)
    rollouts: bool = False  # whether anything drives rollouts
    settings: Settings = _SETTINGS
    hosts: list[Host] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    prepared: set[tuple[str, VersionId]] = field(default_factory=set)
    notice_loss: float = 0.1
    crash_at: dict[str, int] = field(default_factory=dict)  # of a process by its name
    freeze_s: float = 0.0  # for how long that one is frozen instead of killed
    crash_chance: float = 0.0

    def __post_init__(self) -> None:
        self.network = Network(self.loop, random.Random(self.rng.random()))
        self.server = Server(self.real, self.loop, random.Random(self.rng.random()))
        self.tables = Tables(self.real)
        self.checks = Checks(self)
        self.tables.before_drop.append(self.checks.before_drop)
        self.server.checks.append(self.checks.committed)
        self._faults = random.Random(self.rng.random())
        threads = random.Random(self.rng.random())
        self.loop.thread_s = lambda: threads.uniform(0.0005, 0.02 if threads.random() < 0.9 else 0.5)

    @property
    def fronts(self) -> list[FrontHost]:
        return [host for host in self.hosts if isinstance(host, FrontHost)]

    def host(self, service: str) -> list[Host]:
        return [host for host in self.hosts if host.service == service]

    # --- processes ---

    def process(self, name: str, skew_s: float = 0.0) -> Process:
        process = Process(name, skew_s, self.crash_at.get(name, 0), self.freeze_s)
        if not process.crash_at and self.crash_chance and self._faults.random() < self.crash_chance:
            process.crash_at = self._faults.randrange(1, 600)
            process.freeze_s = self._faults.choice([0.0, 0.0, 0.5, 4.0])
        self.processes.append(process)
        return process

    def start(self, host: Host) -> None:
        """Start a process on a host that has none."""
        if host.process is not None and host.process.alive:
            return
        host.started += 1
        process = self.process(f"{host.name}.{host.started}", host.skew_s)
        host.process, host.app = process, None
        self.loop.spawn(process, self._run(host, process))

    def kill(self, host: Host) -> None:
        """SIGKILL."""
        if host.process is not None:
            self.loop.kill(host.process)

    def end(self, host: Host) -> None:
        """SIGTERM."""
        if host.process is not None and host.process.alive and host.app is not None:
            self.loop.spawn(host.process, self._end(host, host.process))

    async def _run(self, host: Host, process: Process) -> None:
        target = host.name if host.service == "query" else host.service
        host.server = server = self.network.listen(target, process)
        if host.service == "replayer":
            replayer: Any = Replayer(self.tables, random.Random(self._faults.random()))
            replayer_pb2_grpc.add_ReplayerServicer_to_server(replayer, cast("grpc.aio.Server", server))
            return
        build: Callable[[Settings], Any] = {
            "query": QueryApp,
            "switcher": SwitcherApp,
            "registry": RegistryApp,
        }[host.service]
        app = build(replace(self.settings, instance=process.name, listen=target))
        app.register(server)
        host.app = app
        try:
            await app.start()
        except Exception:
            self.loop.kill(process)  # as a real process ends, with its error

    async def _end(self, host: Host, process: Process) -> None:
        target = host.name if host.service == "query" else host.service
        await host.app.drain()
        self.network.leave(target, host.server)
        self.network.reset_streams(process)
        await host.app.stop()
        self.loop.kill(process)

    # --- what the product's modules find instead of the machine's ---

    @contextmanager
    def product(self) -> Iterator[None]:
        """Patch the product's constructors of clocks, channels, pools, listeners and files."""
        names = random.Random(self.rng.random())

        async def pool(dsn: str, **options: Any) -> Any:
            return here(self.server, **options)

        def connect(target: str) -> Channel:
            return Channel(self.network, target)

        async def nothing(*_: Any) -> None:
            return

        def listener(dsn: str, channels: Mapping[str, Callable[[], None]]) -> Listener:
            return Listener(self.server, current(), channels, self.notice_loss)

        def now_s() -> float:
            process = of_now()
            return (self.loop.now() + timedelta(seconds=process.skew_s if process else 0.0)).timestamp()

        prepare = FrontTables.prepare

        async def prepared(tables: FrontTables, version: VersionId) -> None:
            await prepare(tables, version)
            self.prepared.add((current().name, version))

        patches: dict[str, Any] = {
            "time.monotonic": self.loop.time,
            "time.time": now_s,
            "turnout.reading.front.READ_S_MAX": READ_S_MAX,
            "turnout.reading.deadline.READ_S_MAX": READ_S_MAX,
            "turnout.reading.table.open_pool": pool,
            "turnout.reading.table.Tables.prepare": prepared,
            "services.query.app.connect": connect,
            "turnout.reading.watch.random": random.Random(names.random()),
            "turnout.reading.path.RoutesFile": lambda _: self._disk(),
            "turnout.reading.path.SystemClock": lambda: Clock(self.loop, current()),
            "services.switcher.app.connect": connect,
            "services.switcher.app.open_pool": pool,
            "services.switcher.app.migrate": nothing,
            "services.switcher.app.Listener": listener,
            "services.registry.app.connect": connect,
            "services.registry.app.Neighbours": functools.partial(Neighbours, call_s=_CALL_S),
            "services.registry.saga.CLAIM_MARGIN_S": _CALL_S / 2,
            "services.registry.app.open_pool": pool,
            "services.registry.app.migrate": nothing,
            "services.registry.app.SystemClock": lambda: Clock(self.loop, current()),
            "services.registry.store.uuid4": lambda: UUID(int=names.getrandbits(128), version=4),
            "secrets.token_bytes": self._here("secrets.token_bytes", names.randbytes),
            "secrets.token_hex": self._here("secrets.token_hex", lambda size: names.randbytes(size).hex()),
            **{name: self._here(name, self._never(name)) for name in _REAL},
            "random.Random": self._seeded(),
            **(_HASTE if self.rollouts else {"services.switcher.app.Driver.run": nothing}),
        }
        with ExitStack() as patched, uncollected():
            for name, value in patches.items():
                patched.enter_context(mock.patch(name, value))
            patched.enter_context(mock.patch.dict(EXPERIMENTS_SQL._statements, forget_never_started=_forgetting()))
            yield

    def _here(self, name: str, simulated: Callable[..., Any]) -> Callable[..., Any]:
        """Where the simulation runs, the simulated one; everywhere else, in threads and in the real loop with its
        connections, the one that it was."""
        real = pkgutil.resolve_name(name)

        def called(*args: Any, **options: Any) -> Any:
            return (simulated if asyncio._get_running_loop() is self.loop else real)(*args, **options)

        return called

    def _never(self, name: str) -> Callable[..., Any]:
        def asked(*_: Any, **__: Any) -> Any:
            self.checks.fail(f"{name} was asked, which another run of the seed answers in another way")
            raise RuntimeError(name)

        return asked

    def _seeded(self) -> type[random.Random]:
        """Instead of a source of chance, which the machine seeds where nobody else does."""
        simulated, never = self.loop, self._never("random.Random without a seed")

        class Seeded(random.Random):
            def __init__(self, seed: Any = None) -> None:
                if seed is None and asyncio._get_running_loop() is simulated:
                    never()
                super().__init__(seed)

        return Seeded

    def _disk(self) -> Disk:
        name = current().name.rsplit(".", 1)[0]
        return next(host.disk for host in self.fronts if host.name == name)

    # --- begin and end ---

    def prepare_database(self) -> None:
        """Empty tables, then the jobs and their versions, of which the last has no table."""
        filled = self.real.fetch(
            "select format('%I.%I', schemaname, tablename) as name from pg_tables "
            "where (schemaname in ('switcher', 'registry') or schemaname = 'serving' and tablename = 'positions') "
            "and tablename not in ('migrations', 'revision') "
            "and pg_relation_size(format('%I.%I', schemaname, tablename)::regclass) > 0 order by name"
        )
        if filled:
            self.real.execute(f"truncate {', '.join(row['name'] for row in filled)} restart identity cascade")
        self.real.execute("update switcher.revision set value = 0")
        now = self.loop.now()
        self.real.execute("insert into registry.artifacts values ('none', '', $1) on conflict do nothing", now)
        for job, versions in self.jobs.items():
            self.real.execute("insert into registry.jobs values ($1, '', $2, $3)", job, versions + 1, now)
            for number in range(1, versions + 2):
                self.real.execute(
                    "insert into registry.versions (job, number, state, definition_json, artifact_digest, "
                    "artifact_bytes, create_time) values ($1, $2, 'REGISTERED', $3, 'none', 0, $4)",
                    *(job, number, encode(_counted.definition).decode(), now),
                )
                if number <= versions:
                    self.tables.make(VersionId(job, number))
                else:  # a rollout of an earlier simulation may have made it
                    self.real.execute(f'drop table if exists serving."{table_name(job, number)}"')

    def close(self) -> None:
        """End everything."""
        self.loop.finish(self.processes)
        self.server.close()
        self.loop.close()
