"""Records that do not decode, that the function refuses, or that PostgreSQL refuses."""

from __future__ import annotations

import secrets

from services.replayer.protocol import Deadly, Stop, Stretch, TopicPartition, Trying
from tests.integration.engine.conftest import Make
from tests.integration.engine.test_aggregate import values
from tests.integration.engine.workers import value
from tests.support.topics import Record, Topics

NAMES = """
    from turnout import Key, Record, Row, Sum, aggregate

    class Named(Record):
        name: str
        amount: int

    class Name(Row):
        name: Key[str]
        amount: Sum[int] = 0
        records: Sum[int] = 1

    @aggregate("tested", topic="{topic}", on_malformed="{policy}")
    def names(record: Named) -> Name:
        if record.name == "refused":
            raise ValueError("this name is refused")
        return Name(name=record.name, amount=record.amount)
"""

FOLD = """
    from turnout import Key, Record, Row, fold

    class Named(Record):
        name: str
        amount: int

    class Name(Row):
        name: Key[str]
        amount: int = 0
        records: int = 1

    @fold("tested", topic="{topic}", on_malformed="{policy}")
    def names(state: Name | None, record: Named) -> Name:
        if state is None:
            return Name(name=record.name, amount=record.amount)
        return Name(name=record.name, amount=state.amount + record.amount, records=state.records + 1)
"""

BAD = {
    700: b"{not json",
    701: value(name="refused", amount=1),
    1500: value(name="nul\0", amount=1),  # PostgreSQL has no NUL in a text
    2200: value(name="big", amount=2**70),  # no bigint
    2201: value(name=secrets.token_hex(6000), amount=1),  # does not fit into an index, compressed or not
    2999: value(name="nul\0again", amount=1),
}


def records(bad: dict[int, bytes]) -> list[Record]:
    return [Record(bad.get(i) or value(name=f"n{i % 50}", amount=i), None, 0) for i in range(3_000)]


async def test_set_aside_with_offset_and_reason(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(1)
    await kafka.produce(topic, records(BAD))
    version = await make(NAMES.format(topic=topic, policy="set_aside"), [topic])
    worker = await version.worker()
    await worker.at(await make.ends(topic))
    letters = await version.dead_letters()
    assert {letter["offset"]: letter["value"] for letter in letters} == BAD
    reasons = {letter["offset"]: letter["reason"] for letter in letters}
    assert "this name is refused" in reasons[701]
    assert "0x00" in reasons[1500]
    assert "int64" in reasons[2200]
    assert "index row" in reasons[2201]
    good = [body for i, body in enumerate(values(records(BAD))) if i not in BAD]
    assert await version.rows() == version.reference(good)
    assert worker.states[TopicPartition(topic, 0)].set_aside == len(BAD)
    assert worker.states[TopicPartition(topic, 0)].records == 3_000


async def test_fold_sets_aside_what_postgres_refuses(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(1)
    bad = {offset: body for offset, body in BAD.items() if offset in (700, 1500, 2200)}
    await kafka.produce(topic, records(bad))
    version = await make(FOLD.format(topic=topic, policy="set_aside"), [topic])
    worker = await version.worker()
    await worker.at(await make.ends(topic))
    assert {letter["offset"] for letter in await version.dead_letters()} == set(bad)
    good = [body for i, body in enumerate(values(records(bad))) if i not in bad]
    assert await version.rows() == version.reference(good)


async def test_the_other_policy_fails_the_run_naming_the_record(kafka: Topics, make: Make) -> None:
    for offset, said in ((700, "JSON"), (701, "this name is refused"), (1500, "0x00"), (2200, "int64")):
        topic = await kafka.create(2)
        await kafka.produce(topic, records({offset: BAD[offset]}))
        version = await make(NAMES.format(topic=topic, policy="fail"), [topic])
        worker = await version.worker()
        fault = await worker.fault()
        assert (fault.reason, fault.topic, fault.partition, fault.offset) == ("MALFORMED_RECORD", topic, 0, offset)
        assert said in fault.message
        assert (await version.positions())[TopicPartition(topic, 0)]["next_offset"] <= offset
        assert await version.unowned()


async def test_one_record_at_a_time_gives_the_same_table(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(2)
    body = records({100: b"{", 101: value(name="nul\0", amount=1)})[:300]
    await kafka.produce(topic, body)
    version = await make(NAMES.format(topic=topic, policy="set_aside"), [topic])
    worker = await version.worker(record_by_record=(Stretch(TopicPartition(topic, 0), 300),))
    await worker.at(await make.ends(topic))
    assert {letter["offset"] for letter in await version.dead_letters()} == {100, 101}
    good = [one for i, one in enumerate(values(body)) if i not in (100, 101)]
    assert await version.rows() == version.reference(good)
    await worker.say(Stop())
    await worker.stopped()


async def test_a_worker_that_dies_at_a_record_leaves_the_position_at_it(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(1)
    await kafka.produce(topic, [Record(value(name="die" if i == 150 else "n", amount=1), None, 0) for i in range(300)])
    source = NAMES.format(topic=topic, policy="set_aside").replace(
        'if record.name == "refused":', 'if record.name == "die":\n            import os; os._exit(9)'
    )
    version = await make(source, [topic])
    tp = TopicPartition(topic, 0)
    worker = await version.worker(record_by_record=(Stretch(tp, 300),))
    assert await worker.ended() == 9
    assert (await version.positions())[tp]["next_offset"] == 150
    assert worker.all_of(Trying)[-1] == Trying(topic=topic, partition=0, offset=150)

    worker = await version.worker(
        record_by_record=(Stretch(tp, 151),), deadly=(Deadly(tp, 150, "the worker died on it"),)
    )
    await worker.at(await make.ends(topic))
    [letter] = await version.dead_letters()
    assert (letter["offset"], letter["reason"]) == (150, "the worker died on it")
    assert (worker.states[tp].records, worker.states[tp].set_aside) == (300, 1)
    assert len(worker.all_of(Trying)) == 0, "behind the record it reads as fast as ever"
    assert [row.records for row in await version.rows()] == [299]


async def test_a_function_that_hangs_is_named_with_its_place(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(1)
    await kafka.produce(topic, [Record(value(name="hang" if i == 40 else "n", amount=1), None, 0) for i in range(90)])
    source = NAMES.format(topic=topic, policy="set_aside").replace(
        'if record.name == "refused":', 'if record.name == "hang":\n            while True: pass'
    )
    version = await make(source, [topic])
    worker = await version.worker(transform_limit_s=0.5)
    fault = await worker.fault()
    assert (fault.reason, fault.offset) == ("TRANSFORM_TIMEOUT", 40)
    assert "job.py, line" in fault.message
