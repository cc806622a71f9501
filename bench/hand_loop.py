"""The hand-written limit: consume, decode, write rows and positions exactly once, with no product around it.

What a careful person writes for one job and one table, and no more: no leases, no checks of types, no failures set
aside, no second kind of job. Run as a process of its own; `measure.hand_loop` starts it.
"""

import argparse
import asyncio
import gc
import multiprocessing
import os
from typing import Any, Final

import aiokafka
import asyncpg
import msgspec
import uvloop

TABLES: Final = {
    "append": "order_id bigint primary key, user_id text, amount_cents bigint, country text, ts bigint",
    "aggregate": "user_id text primary key, n bigint, amount bigint",
    "fold": "user_id text primary key, n bigint, last_order bigint, biggest bigint",
}
FILLFACTOR: Final = {"append": 100, "aggregate": 85, "fold": 85}
STAGING: Final = {
    "aggregate": "create temp table staging(user_id text, n bigint, amount bigint) on commit delete rows",
    "fold": "create temp table staging(user_id text, n bigint, last_order bigint, biggest bigint) "
    "on commit delete rows",
}
MERGE: Final = {
    "aggregate": "insert into hand_aggregate as t select * from staging on conflict (user_id) "
    "do update set n = t.n + excluded.n, amount = t.amount + excluded.amount",
    "fold": "insert into hand_fold select * from staging on conflict (user_id) "
    "do update set n = excluded.n, last_order = excluded.last_order, biggest = excluded.biggest",
}
POSITIONS: Final = (
    "insert into hand_positions values ($1, $2) "
    "on conflict (partition) do update set next_offset = excluded.next_offset"
)
SETTINGS: Final = {"synchronous_commit": "off", "temp_buffers": "64MB", "work_mem": "64MB"}  # as the workers have them


class Order(msgspec.Struct, gc=False):
    order_id: int
    user_id: str
    amount_cents: int
    country: str
    ts: int


DECODE: Final = msgspec.json.Decoder(Order).decode


class Append:
    """One row of each order."""

    def __init__(self) -> None:
        self.rows: list[Any] = []

    def add(self, messages: list[Any]) -> None:
        append = self.rows.append
        for message in messages:
            o = DECODE(message.value)
            append((o.order_id, o.user_id, o.amount_cents, o.country, o.ts))

    def take(self) -> list[Any]:
        rows, self.rows = self.rows, []
        return rows


class Aggregate:
    """Orders and their amount, user by user."""

    def __init__(self) -> None:
        self.groups: dict[str, list[Any]] = {}

    def add(self, messages: list[Any]) -> None:
        groups = self.groups
        for message in messages:
            o = DECODE(message.value)
            group = groups.get(o.user_id)
            if group is None:
                groups[o.user_id] = [o.user_id, 1, o.amount_cents]
            else:
                group[1] += 1
                group[2] += o.amount_cents

    def take(self) -> list[Any]:
        groups, self.groups = self.groups, {}
        return [tuple(group) for _, group in sorted(groups.items())]


class Fold:
    """The running state of each user. This process owns its keys, so that its memory is the truth."""

    def __init__(self) -> None:
        self.states: dict[str, Any] = {}
        self.changed: dict[str, Any] = {}

    def add(self, messages: list[Any]) -> None:
        states, changed = self.states, self.changed
        for message in messages:
            o = DECODE(message.value)
            old = states.get(o.user_id)
            if old is None:
                new = (o.user_id, 1, o.order_id, o.amount_cents)
            else:
                new = (o.user_id, old[1] + 1, o.order_id, max(old[3], o.amount_cents))
            states[o.user_id] = changed[o.user_id] = new

    def take(self) -> list[Any]:
        changed, self.changed = self.changed, {}
        return [changed[key] for key in sorted(changed)]


WORK: Final[dict[str, type[Append | Aggregate | Fold]]] = {"append": Append, "aggregate": Aggregate, "fold": Fold}


async def consume(arguments: argparse.Namespace, worker: int) -> None:
    """One worker: its share of the partitions, to the end of the log as it is now."""
    mode, flush = arguments.mode, arguments.flush
    connection = await asyncpg.connect(os.environ["TURNOUT_POSTGRES"], server_settings=SETTINGS)
    if mode in STAGING:
        await connection.execute(STAGING[mode])
    consumer = aiokafka.AIOKafkaConsumer(
        bootstrap_servers=arguments.kafka,
        enable_auto_commit=False,
        max_partition_fetch_bytes=4 << 20,
        check_crcs=False,
    )
    await consumer.start()
    mine = range(worker, arguments.partitions, arguments.workers)
    partitions = [aiokafka.TopicPartition(arguments.topic, partition) for partition in mine]
    consumer.assign(partitions)
    end = await consumer.end_offsets(partitions)
    position = dict.fromkeys(partitions, 0)
    for tp in partitions:
        consumer.seek(tp, 0)
    await connection.executemany(POSITIONS, [(tp.partition, 0) for tp in partitions])

    async def write(rows: list[Any], positions: list[Any]) -> None:
        async with connection.transaction():
            if mode == "append":
                await connection.copy_records_to_table("hand_append", records=rows)
            else:
                await connection.copy_records_to_table("staging", records=rows)
                await connection.execute(MERGE[mode])
            await connection.executemany(POSITIONS, positions)

    work, held = WORK[mode](), 0
    writing: asyncio.Task[None] | None = None
    while any(position[tp] < end[tp] for tp in partitions):
        fetched = await consumer.getmany(timeout_ms=500, max_records=min(flush, 20_000))
        for tp, messages in fetched.items():
            position[tp] = messages[-1].offset + 1
            held += len(messages)
            work.add(messages)
        done = all(position[tp] >= end[tp] for tp in partitions)
        if held >= flush or (done and held):
            if writing is not None:
                await writing
            at = [(tp.partition, position[tp]) for tp in partitions]
            writing = asyncio.create_task(write(work.take(), at))
            held = 0
            await asyncio.sleep(0)
    if writing is not None:
        await writing
    await consumer.stop()
    await connection.close()


async def prepare(arguments: argparse.Namespace) -> None:
    """Empty tables."""
    connection = await asyncpg.connect(os.environ["TURNOUT_POSTGRES"])
    table = f"hand_{arguments.mode}"
    await connection.execute(f"drop table if exists {table}, hand_positions")
    fillfactor = FILLFACTOR[arguments.mode]
    await connection.execute(f"create table {table} ({TABLES[arguments.mode]}) with (fillfactor = {fillfactor})")
    await connection.execute("create table hand_positions(partition int primary key, next_offset bigint)")
    await connection.close()


def work(arguments: argparse.Namespace, worker: int) -> None:
    """The life of a worker process."""
    gc.collect()
    gc.freeze()
    gc.disable()
    uvloop.run(consume(arguments, worker))


def main() -> int:
    """Replay with so many worker processes; the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=list(TABLES))
    parser.add_argument("--kafka", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--flush", type=int, required=True)
    arguments = parser.parse_args()
    asyncio.run(prepare(arguments))
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(arguments, number)) for number in range(arguments.workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return max(abs(process.exitcode or 0) for process in processes)


if __name__ == "__main__":
    raise SystemExit(main())
