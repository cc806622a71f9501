"""What is switched and who takes part: four fronts, two switchers, the rest in one process, a job with two versions."""

import asyncio
import contextlib
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confluent_kafka import Producer

from bench.cutover.record import FACTORS
from bench.faults.product import Addresses, Service
from bench.workload import PARTITIONS, create_topic, say
from turnout.client import Client
from turnout.errors import FailedPrecondition
from turnout.tasks import end

FRONTS: Final = 4
SWITCHERS: Final = 2
TICKS_PER_S: Final = 100

_TICKS_BEFORE: Final = 2000
_FLUSH_S: Final = 30.0
_POLL_S: Final = 0.25


@dataclass
class Stage:
    """The processes, a client of them, and the job."""

    fronts: list[Service]
    switchers: list[Service]
    client: Client
    job: str
    lease_s: float


@asynccontextmanager
async def staged(addresses: Addresses, directory: Path, lease_s: float) -> AsyncIterator[Stage]:
    """Start everything, with version 1 of the job serving and version 2 caught up."""
    options = ("--reader-lease-s", str(lease_s))
    control = Service("control", ["registry", "replayer"], addresses, directory, options)
    switchers = [Service(f"switcher-{n}", ["switcher"], addresses, directory, options) for n in range(SWITCHERS)]
    fronts = [Service(f"front-{n}", ["query"], addresses, directory, options) for n in range(FRONTS)]
    switcher = ",".join(one.target for one in switchers)
    targets = {"registry": control.target, "replayer": control.target, "switcher": switcher}
    for service, own in [(control, "registry replayer"), *((one, "switcher") for one in switchers)]:
        service.know({name: target for name, target in targets.items() if name not in own.split()})
    for front in fronts:
        front.know(targets)
    async with AsyncExitStack() as started:
        for service in [control, *switchers, *fronts]:
            started.push_async_callback(service.stop)
        # Side by side: each waits for what it needs of the others.
        await asyncio.gather(*(service.start() for service in [control, *switchers, *fronts]))
        query = [front.target for front in fronts]
        client = await started.enter_async_context(Client(targets={**targets, "query": query}, actor="bench"))
        job, topic = f"ticks-{secrets.token_hex(3)}", f"ticks-{secrets.token_hex(3)}"
        create_topic(addresses.kafka, topic)
        started.push_async_callback(_ended, asyncio.create_task(_ticking(addresses.kafka, topic)))
        await _versions(client, job, topic, directory)
        yield Stage(fronts, switchers, client, job, lease_s)


async def _ended(task: asyncio.Task[None]) -> None:
    await end(task)


async def _ticking(kafka: str, topic: str) -> None:
    """Ticks to random partitions: many at first, then at a steady rate."""
    rng = random.Random(4)
    producer = Producer({"bootstrap.servers": kafka, "linger.ms": 5, "log_level": 0})

    def tick() -> None:
        slot = rng.randrange(PARTITIONS)
        producer.produce(topic, b'{"slot": %d}' % slot, partition=slot)

    for _ in range(_TICKS_BEFORE):
        tick()
    try:
        while True:
            tick()
            producer.poll(0)
            await asyncio.sleep(1 / TICKS_PER_S)
    finally:
        producer.flush(_FLUSH_S)


async def _versions(client: Client, job: str, topic: str, directory: Path) -> None:
    source = (Path(__file__).parent.parent / "jobs" / "ticks.py").read_text(encoding="utf-8")
    source = source.replace('topic="ticks"', f'topic="{topic}"').replace('"ticks"', f'"{job}"')
    path = directory / f"{job.replace('-', '_')}.py"
    for version, factor in FACTORS.items():
        say(f"replaying version {version}")
        path.write_text(source.replace("FACTOR = 1", f"FACTOR = {factor}"), encoding="utf-8")
        applied = await client.apply(path)
        assert applied.version.number == version
        await client.start_run(job, version)
        while not (await client.check_gates(job, version)).passed:
            await asyncio.sleep(_POLL_S)
        while version == 1:
            with contextlib.suppress(FailedPrecondition):  # on a busy machine it may have fallen behind since
                await client.cut_over(job, version)
                break
            await asyncio.sleep(_POLL_S)
