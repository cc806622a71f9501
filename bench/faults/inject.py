"""Does to the world what a plan says."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import NewPartitions  # type: ignore[attr-defined]  # re-exported silently

from bench.faults.network import process_of
from bench.faults.plan import Fault, Kind
from bench.faults.product import Service, parent_of, send
from bench.faults.readback import count_partitions
from bench.faults.watch import Watch
from bench.faults.workload import ORDERS, PARTITIONS_WIDENED, Made
from bench.faults.world import World, insist
from tests.support.eventually import eventually
from turnout.errors import TurnoutError

_CAUGHT_WITHIN_S: Final = 4.0  # a worker, a transaction that writes rows, or its commit
_FENCED_WITHIN_S: Final = 30.0
_WIDENED_WITHIN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class OfTopics:
    """The topics of an episode: their names, how many partitions each has now, and the jobs that read the orders."""

    names: dict[str, str]
    partitions: dict[str, int]
    jobs_of_orders: list[str]


@dataclass(frozen=True, slots=True)
class Done:
    """A fault as it happened. effective_s: when it took effect, monotonic; note: what was found on the way; wrong: what
    speaks against the product; way: into the table, of the transaction that it struck."""

    fault: Fault
    effective_s: float
    note: str = ""
    wrong: str = ""
    way: str = ""


class Injector:
    """Injects faults into the world of one round. Several may be under way at once."""

    def __init__(self, world: World, watch: Watch, topics: OfTopics, deadly: Made) -> None:
        self._world = world
        self._watch = watch
        self._topics = topics
        self._deadly = deadly
        self._inside = asyncio.Lock()  # one transaction is caught at a time
        self._replayer = asyncio.Lock()
        self._how: dict[Kind, Callable[[Fault], Awaitable[Done]]] = {
            Kind.WORKER_KILLED: self._kill_worker,
            Kind.REPLAYER_KILLED: self._kill_replayer,
            Kind.TAKEN_OVER: self._kill_replayer,
            Kind.POSTGRES_KILLED: self._kill_postgres,
            Kind.KAFKA_KILLED: self._kill_kafka,
            Kind.STOPPED: self._stop,
            Kind.FROZEN: self._stop,
            Kind.STOPPED_WRITING: self._stop_writing,
            Kind.ZOMBIE: self._zombie,
            Kind.ANSWER_LOST: self._lose_answer,
            Kind.HALF_OPEN: self._lose_answer,
            Kind.POSTGRES_CUT: self._cut,
            Kind.KAFKA_CUT: self._cut,
            Kind.POSTGRES_SILENT: self._silence,
            Kind.KAFKA_SILENT: self._silence,
            Kind.WIDENED: self._widen,
            Kind.DEADLY: self._feed_deadly,
        }

    async def inject(self, fault: Fault, began_s: float) -> Done:
        """At its time; returns when it is mended as far as the fault itself goes. A fault that does not end as it must,
        for instance with a worker that does not go away, is said in `wrong`."""
        await asyncio.sleep(max(0.0, began_s + fault.at_s - time.monotonic()))
        try:
            return await self._how[fault.kind](fault)
        except (AssertionError, TurnoutError) as error:
            return Done(fault, time.monotonic(), wrong=f"{fault.kind.value}: {error}")

    # --- processes ---

    async def _kill_worker(self, fault: Fault) -> Done:
        pid = await self._worker(fault)
        if pid is None or not send(pid, signal.SIGKILL):
            return Done(fault, time.monotonic(), "no worker was there")
        return Done(fault, time.monotonic())

    async def _kill_replayer(self, fault: Fault) -> Done:
        async with self._replayer:
            alive = [replayer for replayer in self._world.replayers if replayer.pid is not None]
            replayer = alive[int(fault.pick * len(alive))]
            await replayer.kill()
            effective_s = time.monotonic()
            await asyncio.sleep(fault.lasts_s)
            await replayer.start()
        return Done(fault, effective_s)

    async def _kill_postgres(self, fault: Fault) -> Done:
        self._world.crashes += 1
        await self._world.stack.kill_postgres()
        self._world.crashes += 1  # whoever looked while it was being killed saw what the next one may not know
        effective_s = time.monotonic()
        await asyncio.sleep(fault.lasts_s)
        await self._world.stack.start_postgres()
        return Done(fault, effective_s)

    async def _kill_kafka(self, fault: Fault) -> Done:
        await self._world.stack.kill_kafka()
        effective_s = time.monotonic()
        await asyncio.sleep(fault.lasts_s)
        await self._world.stack.start_kafka()
        return Done(fault, effective_s)

    async def _stop(self, fault: Fault) -> Done:
        pid = await self._worker(fault)
        if pid is None or not send(pid, signal.SIGSTOP):
            return Done(fault, time.monotonic(), "no worker was there")
        return await self._continue(fault, pid)

    async def _stop_writing(self, fault: Fault) -> Done:
        pid = await self._stop_inside()
        if pid is None:
            return Done(fault, time.monotonic(), "no transaction was caught")
        return await self._continue(fault, pid, self._world.transactions.struck)

    async def _continue(self, fault: Fault, pid: int, way: str = "") -> Done:
        effective_s = time.monotonic()
        await asyncio.sleep(fault.lasts_s)
        alive = send(pid, signal.SIGCONT)
        return Done(fault, effective_s, "" if alive else "it was replaced meanwhile", way=way)

    async def _stop_inside(self) -> int | None:
        """Stop a worker whose transaction has moved its positions and is about to write rows."""
        transactions = self._world.transactions
        async with self._inside:
            try:
                connection = await transactions.hold(_CAUGHT_WITHIN_S)
                if connection is None:
                    return None
                pid = process_of(connection.client_port, self._world.workers.alive())
                if pid is not None:
                    send(pid, signal.SIGSTOP)
                return pid
            finally:
                transactions.release()

    async def _zombie(self, fault: Fault) -> Done:
        """The worker sleeps inside a transaction while its replayer dies and another one takes its partitions; then it
        wakes, and must neither write nor stay."""
        pid = await self._stop_inside()
        if pid is None:
            return Done(fault, time.monotonic(), "no transaction was caught")
        effective_s, way = time.monotonic(), self._world.transactions.struck
        try:
            await self._take_over_from(pid)
        finally:
            send(pid, signal.SIGCONT)

        async def gone() -> bool:
            return pid not in self._world.workers.orphans()

        await eventually(gone, _FENCED_WITHIN_S)
        return Done(fault, effective_s, way=way)

    async def _take_over_from(self, pid: int) -> None:
        """Kill the worker's replayer, start it anew, and wait until others hold all that its workers held."""
        before = self._watch.samples[-1]
        async with self._replayer:
            replayer = self._replayer_of(pid)
            if replayer is None:
                return  # another fault has killed it
            # Its process id is part of the names under which its workers hold their leases.
            lost = [place for place, owner in before.owners.items() if f"-{replayer.pid}-" in owner]
            await replayer.kill()
            await replayer.start()

        async def taken_over() -> bool:
            now = self._watch.samples[-1].fences
            return all(now[place] > before.fences[place] for place in lost)

        await eventually(taken_over, _FENCED_WITHIN_S)

    def _replayer_of(self, pid: int) -> Service | None:
        parent = parent_of(pid)
        return next((replayer for replayer in self._world.replayers if replayer.pid == parent), None)

    async def _worker(self, fault: Fault) -> int | None:
        """The worker that the fault picks, once there is one: a replayer may just be starting."""
        with contextlib.suppress(AssertionError):
            pids = await eventually(self._workers, _CAUGHT_WITHIN_S)
            return pids[int(fault.pick * len(pids))]
        return None

    async def _workers(self) -> list[int]:
        return self._world.workers.alive()

    # --- network ---

    async def _lose_answer(self, fault: Fault) -> Done:
        async with self._inside:
            connection = await self._world.transactions.lose_answer(_CAUGHT_WITHIN_S)
        if connection is None:
            return Done(fault, time.monotonic(), "no commit was caught")
        if fault.kind is Kind.ANSWER_LOST:
            connection.reset()
        return Done(fault, time.monotonic(), way=self._world.transactions.struck)

    async def _cut(self, fault: Fault) -> Done:
        proxy = self._world.kafka_proxy if fault.kind is Kind.KAFKA_CUT else self._world.postgres_proxy
        await proxy.cut()
        effective_s = time.monotonic()
        await asyncio.sleep(fault.lasts_s)
        await proxy.restore()
        return Done(fault, effective_s)

    async def _silence(self, fault: Fault) -> Done:
        proxy = self._world.kafka_proxy if fault.kind is Kind.KAFKA_SILENT else self._world.postgres_proxy
        proxy.stall()
        effective_s = time.monotonic()
        await asyncio.sleep(fault.lasts_s)
        await proxy.restore()
        return Done(fault, effective_s)

    # --- the topics ---

    async def _widen(self, fault: Fault) -> Done:
        """Widen the topic of orders. Its runs are paused and resumed, which looks at the topic at once; otherwise it
        is looked at twice a minute."""
        admin, client, orders = self._world.admin, self._world.client, self._topics.names[ORDERS]
        asked = [NewPartitions(orders, PARTITIONS_WIDENED)]

        async def widened() -> bool:
            with contextlib.suppress(KafkaException):  # Kafka may be away, or have widened it without an answer
                for future in admin.create_partitions(asked, operation_timeout=5, request_timeout=5).values():
                    await asyncio.wrap_future(future)
            with contextlib.suppress(KafkaException):
                return await asyncio.to_thread(count_partitions, admin, orders) == PARTITIONS_WIDENED
            return False

        await eventually(widened, _WIDENED_WITHIN_S)
        self._topics.partitions[ORDERS] = PARTITIONS_WIDENED
        effective_s = time.monotonic()
        for job in self._topics.jobs_of_orders:
            await insist(client.pause_run, job, 1)
            await insist(client.resume_run, job, 1)
        return Done(fault, effective_s)

    async def _feed_deadly(self, fault: Fault) -> Done:
        partition = int(fault.pick * self._topics.partitions[ORDERS])
        await asyncio.to_thread(self._world.feed.one, self._deadly, self._topics.names, partition)
        return Done(fault, time.monotonic())
