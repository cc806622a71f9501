"""Comparing tables, moving the view, dropping a table: beside readers who hold locks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from tests.integration.replayer.stage import ON_TIME, Stage, aggregate_source, flights, refused
from tests.support.eventually import eventually
from tests.support.topics import Record
from turnout import testing
from turnout.errors import Aborted, FailedPrecondition, TurnoutError
from turnout.replayer.v1 import run_pb2, table_pb2

RECORDS = flights(2000)


async def two_tables(stage: Stage) -> tuple[str, str]:
    """Version 1 counts a missing delay as on time, version 2 does not and has a column more."""
    topic = await stage.kafka.create()
    await stage.kafka.produce(topic, RECORDS)
    v1 = stage.registry.register(aggregate_source(topic), 1)
    v2 = stage.registry.register(
        aggregate_source(
            topic,
            on_time=ON_TIME,
            columns="    cancelled: Sum[int] = 0\n",
            values=", cancelled=flight.delay is None",
        ),
        2,
    )
    for version in (v1, v2):
        await stage.begin(version.name)
        await stage.applied(version.name, len(RECORDS))
        await stage.in_state(version.name, "TAILING")
    return v1.name, v2.name


@asynccontextmanager
async def _reader(stage: Stage, relation: str) -> AsyncIterator[Any]:
    """A session that has read the relation in a transaction it does not end."""
    connection = await asyncpg.connect(stage.postgres, server_settings={"application_name": "slow report"})
    transaction = connection.transaction()
    await transaction.start()
    await connection.fetch(f"select * from serving.{relation} limit 1")
    try:
        yield connection
    finally:
        await transaction.rollback()
        await connection.close()


# --- compare --------------------------------------------------------------------------------------------------------


async def test_equal_positions_make_an_exact_comparison(stage: Stage) -> None:
    v1, v2 = await two_tables(stage)
    found = await stage.compare(v1, v2, sample_size=3)

    job_1, job_2 = stage.registry.versions[v1].job, stage.registry.versions[v2].job
    values = [record.value or b"" for record in RECORDS]
    old: dict[str, Any] = {row.carrier: row for row in testing.run(job_1, values)}  # type: ignore[attr-defined]
    new: dict[str, Any] = {row.carrier: row for row in testing.run(job_2, values)}  # type: ignore[attr-defined]
    changed = {carrier for carrier in old if old[carrier].on_time != new[carrier].on_time}
    steps = [new[carrier].on_time - old[carrier].on_time for carrier in old]

    assert found.exact
    assert (found.rows_old, found.rows_new, found.rows_only_old, found.rows_only_new) == (13, 13, 0, 0)
    assert found.rows_changed == len(changed) > 0
    assert list(found.columns_added) == ["cancelled"]
    assert not found.columns_removed
    by_name = {column.column: column for column in found.columns}
    assert set(by_name) == {"on_time", "share"}
    assert by_name["on_time"].rows == len(changed)
    assert by_name["on_time"].total == sum(steps)
    assert by_name["on_time"].largest_absolute == max(abs(step) for step in steps)
    assert [sample.key[0].string_value for sample in found.samples] == sorted(changed)[:3]
    first = found.samples[0]
    carrier = first.key[0].string_value
    assert (list(first.key_columns), list(first.columns)) == (["carrier"], ["on_time", "share"])
    assert first.old_values[0].int64_value == old[carrier].on_time
    assert first.new_values[0].int64_value == new[carrier].on_time
    assert first.new_values[1].double_value == pytest.approx(new[carrier].on_time / new[carrier].flights)
    (only,) = found.ranges
    assert [p.next_offset for p in only.positions_old] == [500] * 4
    assert not only.held.ToTimedelta()  # both stood there by themselves


async def test_other_positions_are_not_exact_and_rows_may_be_on_one_side(stage: Stage) -> None:
    v1, v2 = await two_tables(stage)
    await stage.pause(v1)
    topic = (await stage.get(v1)).partitions[0].topic
    await stage.kafka.produce(topic, [Record(b'{"carrier": "new", "delay": 3}', partition=0)])
    await stage.applied(v2, len(RECORDS) + 1)
    found = await stage.compare(v1, v2, sample_size=1000, allow_unaligned=True)
    assert "version 1 is PAUSED and 1 offsets behind version 2" in found.ranges[0].unaligned_reason
    assert not found.exact
    assert (found.rows_only_old, found.rows_only_new) == (0, 1)
    only_new = [sample for sample in found.samples if sample.key[0].string_value == "new"]
    assert [list(sample.columns) for sample in only_new] == [["flights", "on_time", "share"]]
    assert not only_new[0].old_values
    assert [value.int64_value for value in only_new[0].new_values][:2] == [1, 1]

    back = await stage.compare(v2, v1, allow_unaligned=True)
    assert (back.rows_only_old, list(back.columns_removed)) == (1, ["cancelled"])
    assert len(back.samples) == 10


MAP = '''
"""The latest reading of each meter."""
from turnout import Delete, Key, Record, Row, map

class Reading(Record):
    meter: str
    at: int
    level: float | None
    gone: bool = False

class Latest(Row):
    meter: Key[str]
    at: int
    level: float | None
    grade: {grade_type}

@map("meters", topic="{topic}", order_by="at")
def latest(reading: Reading) -> Latest | Delete:
    if reading.gone:
        return Delete(meter=reading.meter, at=reading.at)
    return Latest(meter=reading.meter, at=reading.at, level={level}, grade={grade})
'''


async def test_binary_fractions_have_a_tolerance_and_hidden_rows_do_not_count(stage: Stage) -> None:
    topic = await stage.kafka.create(1)
    readings: list[dict[str, Any]] = [
        {"meter": "a", "at": 1, "level": 1.0},
        {"meter": "b", "at": 1, "level": 2.0},
        {"meter": "c", "at": 1, "level": None},
        {"meter": "d", "at": 1, "level": 4.0},
        {"meter": "d", "at": 2, "level": None, "gone": True},
    ]
    await stage.kafka.produce(topic, [Record(json.dumps(one).encode()) for one in readings])
    nearly = "None if reading.level is None else reading.level * (1 + 1e-12) + (reading.meter == 'b')"
    v1 = stage.registry.register(MAP.format(topic=topic, level="reading.level", grade_type="int", grade="1"), 1)
    v2 = stage.registry.register(MAP.format(topic=topic, level=nearly, grade_type="str", grade='"1"'), 2)
    for version in (v1, v2):
        await stage.begin(version.name)
        await stage.applied(version.name, len(readings))
    found = await stage.compare(v1.name, v2.name)
    assert found.exact
    assert (found.rows_old, found.rows_new, found.rows_only_old, found.rows_only_new) == (3, 3, 0, 0)
    (level,) = found.columns  # grade differs in type alone: the texts are equal
    assert (level.column, level.rows) == ("level", 1)
    assert level.largest_absolute == pytest.approx(1.0)
    assert [sample.key[0].string_value for sample in found.samples] == ["b"]

    moved = await stage.call("MoveView", table_pb2.MoveViewRequest(version=v1.name, epoch=1))
    assert moved.moved
    assert await stage.rows("meters", ["meter"]) == [("a",), ("b",), ("c",)]


@pytest.mark.parametrize(
    ("expression", "field", "shown"),
    [
        ("on_time::text::jsonb", "json_value", "{on_time}"),
        ("make_interval(secs => on_time)", "string_value", "00:0{minutes}:{seconds:02}"),
        ("array[on_time, 1]", "string_value", "{{{on_time},1}}"),
    ],
)
async def test_derived_values_are_shown_as_reads_show_them(
    stage: Stage, expression: str, field: str, shown: str
) -> None:
    topic = await stage.kafka.create(1)
    await stage.kafka.produce(topic, flights(500, partitions=1))
    v1 = stage.registry.register(aggregate_source(topic, share=expression), 1)
    v2 = stage.registry.register(aggregate_source(topic, share=expression, on_time=ON_TIME), 2)
    for version in (v1, v2):
        await stage.begin(version.name)
        await stage.applied(version.name, 500)
    found = await stage.compare(v1.name, v2.name)
    assert found.samples
    for sample in found.samples:
        for on_time, share in (sample.old_values, sample.new_values):
            assert share.WhichOneof("kind") == field
            minutes, seconds = divmod(on_time.int64_value, 60)
            expected = shown.format(on_time=on_time.int64_value, minutes=minutes, seconds=seconds)
            assert getattr(share, field) == expected


async def test_what_cannot_be_compared(stage: Stage) -> None:
    v1, v2 = await two_tables(stage)
    assert (await refused(stage.compare(v1, "jobs/punctuality/versions/9"))).reason == "RUN_NOT_FOUND"
    assert (await refused(stage.compare(v1, v1))).reason == "SAME_VERSION"
    assert (await refused(stage.compare(v1, v2, sample_size=-1))).reason == "INVALID_SAMPLE_SIZE"
    assert (await refused(stage.compare(v1, v2, range_rows=-1))).reason == "INVALID_RANGE_ROWS"
    assert (await refused(stage.compare(v1, v2, align_within={"seconds": 31}))).reason == "INVALID_ALIGN_WITHIN"
    contracts: tuple[dict[str, Any], ...] = ({"columns": [{"column": "missing"}]}, {"share_max": 2.0})
    for contract in contracts:
        assert (await refused(stage.compare(v1, v2, contract=contract))).reason == "INVALID_CONTRACT"


# --- the view -------------------------------------------------------------------------------------------------------


async def _move(stage: Stage, version: str, epoch: int) -> table_pb2.MoveViewResponse:
    answer = await stage.call("MoveView", table_pb2.MoveViewRequest(version=version, epoch=epoch))
    assert isinstance(answer, table_pb2.MoveViewResponse)
    return answer


async def _columns(stage: Stage) -> list[str]:
    rows = await stage.query(
        "select attname from pg_attribute where attrelid = 'serving.punctuality'::regclass and attnum > 0"
    )
    return [row["attname"] for row in rows]


async def test_the_view_follows_and_keeps_its_grants(stage: Stage) -> None:
    v1, v2 = await two_tables(stage)
    role = f"reader_{stage.postgres.rpartition('/')[2].partition('?')[0]}"
    assert (await _move(stage, v1, 1)).moved
    assert await _columns(stage) == ["carrier", "flights", "on_time", "share"]
    await stage.query(f'create role "{role}"')
    try:
        await stage.query(f'grant select on serving.punctuality to "{role}" with grant option')
        await stage.query("grant select (carrier) on serving.punctuality to public")
        await stage.query("comment on view serving.punctuality is 'it''s punctual'")

        assert (await _move(stage, v2, 2)).moved
        assert await _columns(stage) == ["carrier", "flights", "on_time", "cancelled", "share"]
        assert await stage.rows("punctuality", ["carrier", "cancelled"]) == await stage.rows(
            "punctuality__v2", ["carrier", "cancelled"]
        )
        ((table, column, comment),) = await stage.query(
            "select has_table_privilege($1, 'serving.punctuality', 'select with grant option'), "
            "has_column_privilege('public', 'serving.punctuality', 'carrier', 'select'), "
            "obj_description('serving.punctuality'::regclass)",
            role,
        )
        assert (table, column, comment) == (True, True, "it's punctual")

        older = await _move(stage, v1, 1)  # an older epoch changes nothing
        assert not older.moved
        assert "epoch 2" in older.waiting_for
        assert "cancelled" in await _columns(stage)
        assert (await _move(stage, v2, 2)).moved  # a repeat
        assert (await _move(stage, v1, 3)).moved  # back again: columns go
        assert "cancelled" not in await _columns(stage)
    finally:
        await stage.query(f'drop owned by "{role}"')
        await stage.query(f'drop role "{role}"')


async def test_a_blocked_view_names_the_session(stage: Stage) -> None:
    v1, v2 = await two_tables(stage)
    assert (await _move(stage, v1, 1)).moved
    async with _reader(stage, "punctuality") as reader:
        blocked = await _move(stage, v2, 2)
        assert not blocked.moved
        assert f"session {reader.get_server_pid()} (slow report" in blocked.waiting_for
        assert "cancelled" not in await _columns(stage)
    assert (await _move(stage, v2, 2)).moved


async def test_a_view_that_others_build_on_stays(stage: Stage) -> None:
    v1, v2 = await two_tables(stage)
    assert (await _move(stage, v1, 1)).moved
    await stage.query("create view public.report as select carrier from serving.punctuality")
    blocked = await _move(stage, v2, 2)
    assert not blocked.moved
    assert "report" in blocked.waiting_for


# --- drop -----------------------------------------------------------------------------------------------------------


async def _drop(stage: Stage, version: str) -> bool:
    answer = await stage.call("DropTable", table_pb2.DropTableRequest(version=version))
    return bool(answer.dropped)


async def test_drop_waits_for_the_run_and_for_readers(stage: Stage) -> None:
    v1, v2 = await two_tables(stage)
    error = await refused(_drop(stage, v1))
    assert (type(error), error.reason) == (FailedPrecondition, "RUN_NOT_STOPPED")
    await stage.end(v1)

    async with _reader(stage, "punctuality__v1") as reader:
        error = await refused(_drop(stage, v1))
        assert (type(error), error.reason) == (Aborted, "TABLE_BLOCKED")
        assert error.metadata["pid"] == str(reader.get_server_pid())
        assert error.metadata["application"] == "slow report"
        assert len(await stage.rows("punctuality__v1", ["carrier"])) == 13  # other readers are not held up

    assert await _drop(stage, v1)
    assert not await _drop(stage, v1)
    assert not await _drop(stage, "jobs/punctuality/versions/9")
    assert await stage.query("select to_regclass('serving.punctuality__v1') as it") == [(None,)]
    assert await stage.query("select 1 from serving.positions where version = $1", v1) == []
    assert len(await stage.rows("punctuality__v2", ["carrier"])) == 13

    run = await stage.get(v1)
    assert (run.state, len(run.partitions)) == (run_pb2.Run.STOPPED, 0)
    error = await refused(stage.resume(v1))
    assert (error.reason, "dropped" in error.message) == ("RUN_STATE", True)
    assert (await refused(stage.begin(v1))).reason == "VERSION_DROPPED"
    assert (await refused(stage.compare(v1, v2))).reason == "TABLE_MISSING"
    assert (await refused(_move(stage, v1, 9))).reason == "VERSION_DROPPED"


async def test_a_drop_goes_on_when_its_caller_no_longer_waits(stage: Stage) -> None:
    v1, _ = await two_tables(stage)
    await stage.end(v1)
    await stage.query(
        "insert into serving.dead_letters (version, topic, partition, \"offset\", reason) values ($1, 't', 0, 0, '')",
        v1,
    )
    slowly = "begin perform pg_sleep(2); return old; end"
    await stage.query(f"create function slowly() returns trigger as '{slowly}' language plpgsql")
    await stage.query(
        "create trigger slowly before delete on serving.dead_letters for each row execute function slowly()"
    )
    with pytest.raises(TurnoutError):
        await stage.call("DropTable", table_pb2.DropTableRequest(version=v1), timeout_s=0.5)

    async def dropped() -> bool:
        return await stage.query("select to_regclass('serving.punctuality__v1') as it") == [(None,)]

    assert await eventually(dropped)
    assert (await stage.get(v1)).state == run_pb2.Run.STOPPED


async def test_a_table_that_the_view_shows_is_not_dropped(stage: Stage) -> None:
    v1, _ = await two_tables(stage)
    assert (await _move(stage, v1, 1)).moved
    await stage.end(v1)
    error = await refused(_drop(stage, v1))
    assert error.reason == "TABLE_IN_USE"
    assert "serving.punctuality" in error.message
