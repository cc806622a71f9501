"""Episodes and rounds: fresh topics and tables, then rounds of records and faults, each ending in a comparison."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]  # re-exported silently

from bench.faults.inject import Done, Injector, OfTopics
from bench.faults.plan import FEED_S, ROUNDS_PER_EPISODE, RoundPlan
from bench.faults.readback import ReadBack
from bench.faults.tables import AWAY, Look, Tabled, differences, look
from bench.faults.watch import Place, Watch
from bench.faults.workload import MOVES, ORDERS, PARTITIONS, SOURCES, TOPIC_OF, Made, deadly, records
from bench.faults.world import World, insist
from turnout.results import RunState, VersionState

HISTORY: Final = 14_000  # records that an episode begins with
FED: Final = 7_000  # records in each round
REPLAY_PER_S: Final = 2_200  # of each run, while a round's faults go on; then as fast as it goes
CAUGHT_UP_WITHIN_S: Final = 90.0
DROPPED_WITHIN_S: Final = 60.0


@dataclass(slots=True)
class RoundResult:
    """How a round went. lines: what was otherwise than it should be; recoveries: beside the faults, None = not to be
    said."""

    plan: RoundPlan
    done: list[Done] = field(default_factory=list)
    recoveries: list[float | None] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    records: int = 0
    set_aside: int = 0
    looks: int = 0
    caught_up_s: float = 0.0
    took_s: float = 0.0


class Episode:
    """Fresh topics and one fresh version of each kind of job."""

    def __init__(self, world: World, seed: int, number: int) -> None:
        self.number = number
        self._world = world
        self._seed = seed
        self._suffix = f"{number}"
        self.topics = {name: f"faults-{name}-{number}" for name in (ORDERS, MOVES)}
        self.partitions = dict.fromkeys((ORDERS, MOVES), PARTITIONS)
        self.versions = [
            Tabled(kind, f"{kind.replace(' ', '-')}-{number}", self.topics[TOPIC_OF[kind]]) for kind in SOURCES
        ]
        self._logs = {name: ReadBack(world.stack.kafka, topic) for name, topic in self.topics.items()}

    async def begin(self) -> None:
        """Fill the topics, and start the replays at a pace that leaves time for faults."""
        made = [NewTopic(topic, PARTITIONS, 1, config={"retention.ms": "-1"}) for topic in self.topics.values()]
        for future in self._world.admin.create_topics(made).values():
            await asyncio.wrap_future(future)
        history = self._records(-1, HISTORY)
        await asyncio.to_thread(self._world.feed.at_once, history, self.topics, dict(self.partitions))
        directory = self._world.directory / "jobs"
        directory.mkdir(exist_ok=True)
        for one in self.versions:
            file = directory / f"{one.job.replace('-', '_')}.py"
            file.write_text(SOURCES[one.kind].replace("{job}", one.job).replace("{topic}", one.topic))
            client = self._world.client
            await insist(client.apply, file)
            await insist(client.start_run, one.job, 1, workers=2, rate_limit=REPLAY_PER_S)

    def _records(self, in_episode: int, count: int) -> list[Made]:
        """The records of a round of this episode; those of its history with -1."""
        round_number = self.number * ROUNDS_PER_EPISODE + in_episode
        return list(records(self._seed, round_number * 2 + 1, in_episode + 1, count))

    async def leave(self) -> None:
        """Retire the versions and wait until their tables are dropped; delete the topics."""
        client = self._world.client
        for one in self.versions:
            await insist(client.retire, one.job, 1, retain_for=timedelta(0))
        deadline_s = time.monotonic() + DROPPED_WITHIN_S
        for one in self.versions:
            while True:
                version = await insist(client.get_version, one.job, 1)
                if version.state is VersionState.DROPPED:
                    break
                if time.monotonic() > deadline_s:
                    raise TimeoutError(f"{one.version} is not dropped: {version.retirement}")
                await asyncio.sleep(0.2)
        with contextlib.suppress(KafkaException):
            for future in self._world.admin.delete_topics(list(self.topics.values())).values():
                await asyncio.wrap_future(future)

    # --- a round ---

    async def play(self, plan: RoundPlan) -> RoundResult:
        """Records, faults, and the comparison at the end. Never raises for what the product does wrong."""
        result, began_s = RoundResult(plan), time.monotonic()
        watch = Watch(self._world, [one.version for one in self.versions])
        watch.start()
        looks: list[Look] = []
        try:
            await self._disturb(plan, watch, result, looks)
            mended_s = time.monotonic()
            await self._world.mend()
            for one in self.versions:
                await insist(self._world.client.set_run_rate, one.job, 1, None)
            ends = await self._log_ends()
            result.lines += await self._until_caught_up(ends)
            result.caught_up_s = time.monotonic() - mended_s
            looks.append(await look(self._world.stack.postgres, self.versions))
        finally:
            await watch.stop()
        result.recoveries = [watch.recovered_s(done.effective_s, ends) for done in result.done]
        result.lines += watch.findings
        result.looks = len(looks)
        for seen in looks:
            result.lines += await asyncio.to_thread(self._compare, seen, began_s)
        result.records = sum(table.records for table in looks[-1].seen.values())
        result.set_aside = sum(table.set_aside for table in looks[-1].seen.values())
        result.took_s = time.monotonic() - began_s
        return result

    async def _disturb(self, plan: RoundPlan, watch: Watch, result: RoundResult, looks: list[Look]) -> None:
        """Produce for a while, and inject the faults meanwhile."""
        began_s, feed = time.monotonic(), self._world.feed
        orders = [one.job for one in self.versions if one.topic == self.topics[ORDERS]]
        in_episode = plan.number % ROUNDS_PER_EPISODE
        last = deadly(self._seed, plan.number, in_episode + 1)
        injector = Injector(self._world, watch, OfTopics(self.topics, self.partitions, orders), last)
        made = self._records(in_episode, FED)
        seed = f"turnout feed {self._seed} {plan.number}"
        produced = asyncio.to_thread(feed.steadily, made, FEED_S, self.topics, self.partitions, seed)
        async with asyncio.TaskGroup() as tasks:
            feeding = tasks.create_task(produced)
            under_way = [tasks.create_task(injector.inject(fault, began_s)) for fault in plan.faults]
            for at_s in plan.looks_at_s:
                tasks.create_task(self._look_at(began_s + at_s, looks))
        await feeding
        await asyncio.to_thread(feed.settle)
        result.done = [task.result() for task in under_way]
        result.lines += [done.wrong for done in result.done if done.wrong]
        looks.sort(key=lambda one: one.at_s)

    async def _look_at(self, at_s: float, looks: list[Look]) -> None:
        await asyncio.sleep(max(0.0, at_s - time.monotonic()))
        with contextlib.suppress(*AWAY):
            looks.append(await look(self._world.stack.postgres, self.versions))

    async def _log_ends(self) -> dict[Place, int]:
        """Read the topics to their ends, which nobody moves any more."""
        ends: dict[Place, int] = {}
        for name, log in self._logs.items():
            of_topic = await asyncio.to_thread(log.catch_up)
            for one in self.versions:
                if one.topic == self.topics[name]:
                    ends |= {(one.version, partition): end for partition, end in of_topic.items()}
        return ends

    async def _until_caught_up(self, ends: dict[Place, int]) -> list[str]:
        """Wait until every run has read everything, tails, and no worker of a dead replayer is left; otherwise what is
        in the way."""
        deadline_s = time.monotonic() + CAUGHT_UP_WITHIN_S
        while True:
            missing = await self._missing(ends)
            if not missing or any("FAILED" in line for line in missing):
                return missing
            if time.monotonic() > deadline_s:
                return [f"not within {CAUGHT_UP_WITHIN_S:.0f} s: {line}" for line in missing]
            await asyncio.sleep(0.1)

    async def _missing(self, ends: dict[Place, int]) -> list[str]:
        lines = [f"worker {pid} outlives its replayer" for pid in self._world.workers.orphans()]
        for one in self.versions:
            run = await insist(self._world.client.get_run, one.job, 1)
            at = {(one.version, partition.partition): partition.next_offset for partition in run.partitions}
            behind = {place[1]: end for place, end in ends.items() if place[0] == one.version and at.get(place) != end}
            if behind or run.state is not RunState.TAILING:
                lines.append(f"{one.version} is {run.state}, ends {behind} are not reached: {run.status_message}")
        return lines

    def _compare(self, one: Look, began_s: float) -> list[str]:
        logs = {self.topics[name]: log.log for name, log in self._logs.items()}
        return [
            f"after {one.at_s - began_s:.1f} s: {line}"
            for version in self.versions
            for line in differences(version.kind, one.seen[version.kind], logs[version.topic])
        ]
