"""Reads over a real channel from real tables."""

from __future__ import annotations

from datetime import timedelta

import grpc
import pytest

from tests.integration.query.fronts import FrontProcess, Serving, i, key, plain, refused, s
from tests.integration.query.switcher import ScriptedSwitcher, route
from tests.support.eventually import eventually
from turnout.query.v1 import query_pb2 as pb

INVALID = grpc.StatusCode.INVALID_ARGUMENT
ROUTED, PINNED, ACTIVE = pb.ServedVersion.ROUTED, pb.ServedVersion.PINNED, pb.ServedVersion.ACTIVE


@pytest.fixture
async def routed(serving: Serving, switcher: ScriptedSwitcher, front: FrontProcess) -> FrontProcess:
    """Versions 1 and 2 of the job j with three rows each; version 1 serves everybody, under epoch 3."""
    await serving.numbers(1, {1: "one", 2: "two", 3: "three"}, offset=10)
    await serving.numbers(2, {1: "eins", 2: "zwei", 3: "drei"}, offset=20)
    await adopt(switcher, front, route("j", 3, active=1))
    return front


async def adopt(switcher: ScriptedSwitcher, front: FrontProcess, to: object) -> None:
    proposal = f"p{to.epoch}"  # type: ignore[attr-defined]
    switcher.commit(proposal, to)  # type: ignore[arg-type]

    async def serves() -> bool:
        return "SERVING" in switcher.said(proposal)

    await eventually(serves)


async def test_get_says_who_answered(routed: FrontProcess) -> None:
    answer = await routed.get(i(2))
    assert plain(answer.row) == [2, "two"]
    assert (answer.served.version, answer.served.epoch, answer.served.cause) == (1, 3, ROUTED)
    assert list(answer.served.columns) == ["id", "name"]
    assert [(p.topic, p.partition, p.next_offset) for p in answer.served.applied_positions] == [("t", 0, 10)]


async def test_each_read_is_told_with_a_heartbeat_once(routed: FrontProcess, switcher: ScriptedSwitcher) -> None:
    for _ in range(7):
        await routed.get(i(2))
    await routed.batch(key(i(1)), key(i(2)))
    await refused(routed.get(s("no number")))

    async def told() -> bool:
        loads = switcher.streams[0].read_loads
        return sum(load.reads for load in loads) == 9

    await eventually(told)
    beats = switcher.streams[0].heartbeats

    async def two_more() -> bool:
        return switcher.streams[0].heartbeats > beats + 1

    await eventually(two_more)
    loads = switcher.streams[0].read_loads
    assert sum(load.reads for load in loads) == 9
    for load in loads:
        p50, p99, window = (part.ToTimedelta() for part in (load.p50, load.p99, load.window))
        assert timedelta() < p50 <= p99
        assert timedelta() < window


async def test_a_row_that_does_not_exist_still_tells_the_positions(routed: FrontProcess) -> None:
    answer = await routed.get(i(99))
    assert not answer.HasField("row")
    assert answer.served.applied_positions[0].next_offset == 10


async def test_a_version_without_positions_is_read_all_the_same(routed: FrontProcess, serving: Serving) -> None:
    await serving.sql("delete from serving.positions")
    answer = await routed.get(i(1))
    assert plain(answer.row) == [1, "one"]
    assert not answer.served.applied_positions


async def test_a_pinned_version_is_read_whatever_the_route_says(routed: FrontProcess) -> None:
    answer = await routed.get(i(2), version=2)
    assert plain(answer.row) == [2, "zwei"]
    assert (answer.served.version, answer.served.epoch, answer.served.cause) == (2, 3, PINNED)


async def test_a_job_without_a_route(front: FrontProcess, serving: Serving) -> None:
    await serving.numbers(1, {1: "one"})
    code, reason, message = await refused(front.get(i(1)))
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "JOB_NOT_ROUTED")
    assert "turnout cutover j vN" in message
    assert (await refused(front.batch()))[1] == "JOB_NOT_ROUTED"
    assert (await refused(front.scan()))[1] == "JOB_NOT_ROUTED"
    assert plain((await front.get(i(1), version=1)).row) == [1, "one"]
    assert (await front.get(i(1), version=1)).served.epoch == 0


async def test_a_split_is_sticky_and_labelled(
    routed: FrontProcess, switcher: ScriptedSwitcher, serving: Serving
) -> None:
    await adopt(switcher, routed, route("j", 4, active=1, share={1: 0.5, 2: 0.5}))
    seen = {}
    for unit in map(str, range(40)):
        answers = [await routed.get(i(1), unit=unit) for _ in range(2)]
        assert answers[0] == answers[1]
        seen[unit] = answers[0].served.version
        assert plain(answers[0].row) == [1, "one" if seen[unit] == 1 else "eins"]
        batch = await routed.batch(key(i(1)), key(i(2)), key(i(3)), unit=unit)
        assert [served.version for served in batch.served] == [seen[unit]], "one page never mixes versions"
        assert (await routed.scan(unit=unit)).served.version == seen[unit]
    assert set(seen.values()) == {1, 2}


async def test_a_batch_without_a_unit_labels_each_row(
    routed: FrontProcess, switcher: ScriptedSwitcher, serving: Serving
) -> None:
    await serving.sql("insert into serving.j__v1 select n, 'v1' from generate_series(4, 100) n")
    await serving.sql("insert into serving.j__v2 select n, 'v2' from generate_series(4, 100) n")
    await adopt(switcher, routed, route("j", 4, active=1, share={1: 0.5, 2: 0.5}))
    batch = await routed.batch(*[key(i(n)) for n in range(4, 101)])
    assert {served.version for served in batch.served} == {1, 2}
    assert {served.version: served.applied_positions[0].next_offset for served in batch.served} == {1: 10, 2: 20}
    for n, result in zip(range(4, 101), batch.results, strict=True):
        version = batch.served[result.served_index].version
        assert plain(result.row) == [n, f"v{version}"]
        assert (await routed.get(i(n))).served.version == version, "alone or in a batch, a row has one version"


async def test_a_batch_with_a_unit_for_each_key_reads_what_each_unit_reads(
    routed: FrontProcess, switcher: ScriptedSwitcher
) -> None:
    await adopt(switcher, routed, route("j", 4, active=1, share={1: 0.5, 2: 0.5}))
    units = [f"u{number}" for number in range(20)]
    request = pb.BatchGetRequest(job="jobs/j", keys=[key(i(1))] * 20, units=units)
    answer = await routed.query.BatchGet(request, timeout=20)
    served = [answer.served[result.served_index] for result in answer.results]
    alone = [await routed.get(i(1), unit=unit) for unit in units]
    assert [one.version for one in served] == [one.served.version for one in alone]
    assert {one.version for one in served} == {1, 2}
    assert {one.cause for one in served} == {ROUTED}


@pytest.mark.parametrize(
    ("unit", "units"), [("u", ["u", "v"]), ("", ["u"]), ("", ["u", ""])], ids=["twice", "too few", "an empty one"]
)
async def test_units_that_do_not_fit_the_keys(routed: FrontProcess, unit: str, units: list[str]) -> None:
    request = pb.BatchGetRequest(job="jobs/j", keys=[key(i(1)), key(i(2))], unit=unit, units=units)
    code, reason, _ = await refused(routed.query.BatchGet(request, timeout=20))
    assert (code, reason) == (INVALID, "INVALID_UNITS")


async def test_batch_keeps_order_duplicates_and_absent_rows(routed: FrontProcess) -> None:
    batch = await routed.batch(*[key(i(n)) for n in (3, 99, 1, 3)])
    rows = [plain(result.row) if result.HasField("row") else None for result in batch.results]
    assert rows == [[3, "three"], None, [1, "one"], [3, "three"]]
    assert len(batch.served) == 1
    assert batch.served[0].applied_positions[0].next_offset == 10


async def test_an_empty_batch(routed: FrontProcess) -> None:
    batch = await routed.batch()
    assert not batch.served
    assert not batch.results


async def test_a_full_batch_and_one_too_many(routed: FrontProcess, serving: Serving) -> None:
    await serving.sql("insert into serving.j__v1 select n, n::text from generate_series(4, 10000) n")
    keys = [key(i(n)) for n in range(1, 10_001)]
    batch = await routed.batch(*keys)
    assert [result.row.values[0].int64_value for result in batch.results] == list(range(1, 10_001))
    assert (await refused(routed.batch(*keys, key(i(0)))))[:2] == (INVALID, "TOO_MANY_KEYS")


async def test_scan_reads_the_active_version_by_key(routed: FrontProcess) -> None:
    scanned = await routed.scan()
    assert scanned.rows == [[1, "one"], [2, "two"], [3, "three"]]
    assert (scanned.served.version, scanned.served.cause) == (1, ACTIVE)
    assert scanned.served.applied_positions[0].next_offset == 10
    assert (await routed.scan(version=2)).rows[0] == [1, "eins"]


async def test_scan_orders_nulls_last_and_breaks_ties_by_key(routed: FrontProcess, serving: Serving) -> None:
    await serving.sql("insert into serving.j__v1 values (5, null), (4, null), (6, 'two')")
    assert [row[0] for row in (await routed.scan("name")).rows] == [1, 3, 2, 6, 4, 5]
    assert [row[0] for row in (await routed.scan("-name")).rows] == [2, 6, 3, 1, 4, 5]
    assert [row[0] for row in (await routed.scan("-id")).rows] == [6, 5, 4, 3, 2, 1]
    assert [row[0] for row in (await routed.scan("-name", "-id", limit=3)).rows] == [6, 2, 3]


@pytest.mark.parametrize(
    ("limit", "pages"), [(0, [1000]), (999, [999]), (2000, [1000, 1000]), (9999, [1000, 1000, 500])]
)
async def test_scan_in_pages(routed: FrontProcess, serving: Serving, limit: int, pages: list[int]) -> None:
    await serving.sql("insert into serving.j__v1 select n, n::text from generate_series(4, 2500) n")
    scanned = await routed.scan(limit=limit)
    assert [len(page.rows) for page in scanned.pages] == pages
    assert [page.HasField("served") for page in scanned.pages] == [True] + [False] * (len(pages) - 1)
    assert [row[0] for row in scanned.rows] == list(range(1, sum(pages) + 1))


async def test_large_rows_come_in_more_messages(routed: FrontProcess, serving: Serving) -> None:
    await serving.sql("update serving.j__v1 set name = repeat('x', 900000)")
    await serving.sql("insert into serving.j__v1 select n, repeat('x', 100000) from generate_series(4, 100) n")
    scanned = await routed.scan(limit=100)
    assert [row[0] for row in scanned.rows] == list(range(1, 101))
    assert len(scanned.pages) > 10
    assert [page.HasField("served") for page in scanned.pages] == [True] + [False] * (len(scanned.pages) - 1)
    assert max(page.ByteSize() for page in scanned.pages) < 2 * 1024 * 1024


async def test_a_batch_too_large_for_an_answer(routed: FrontProcess, serving: Serving) -> None:
    await serving.sql("update serving.j__v1 set name = repeat('x', 9000000)")
    code, reason, message = await refused(routed.batch(*[key(i(n)) for n in (1, 2, 3)]))
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "ANSWER_TOO_LARGE")
    assert "fewer keys" in message


@pytest.mark.parametrize("primary_key", ["a", "a, b"])
async def test_a_batch_too_large_for_postgresql(front: FrontProcess, serving: Serving, primary_key: str) -> None:
    await _with_a_row_of_1_gib(serving, primary_key)
    small, large = (key(*[i(n)] * len(primary_key.split())) for n in (1, 2))
    code, reason, message = await refused(front.batch(small, large, version=1))
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "ANSWER_TOO_LARGE")
    assert "2 keys" in message
    assert "fewer keys" in message
    answer = await front.batch(small, version=1)
    assert [plain(result.row) for result in answer.results] == [[1, 1, "x"]]


async def test_a_single_row_too_large_for_postgresql(front: FrontProcess, serving: Serving) -> None:
    await _with_a_row_of_1_gib(serving, "a")
    for one in (front.get(i(2), version=1), front.batch(key(i(2)), version=1), front.scan(version=1)):
        code, reason, message = await refused(one)
        assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "ANSWER_TOO_LARGE")
        assert message.startswith("The row is above PostgreSQL's own limit, 1 GiB")
    assert plain((await front.get(i(1), version=1)).row) == [1, 1, "x"]


async def test_a_single_row_too_large_for_an_answer(routed: FrontProcess, serving: Serving) -> None:
    await serving.sql("update serving.j__v1 set name = repeat('x', 17 << 20) where id = 2")

    async def by_column() -> None:
        async for _ in routed.query.Scan(pb.ScanRequest(job="jobs/j", format=pb.ScanRequest.COLUMNS), timeout=30):
            pass

    for one in (routed.get(i(2)), routed.batch(key(i(2))), routed.scan(), by_column()):
        code, reason, message = await refused(one)
        assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "ANSWER_TOO_LARGE")
        assert message.startswith("The row takes 17,825,8")
        assert message.endswith("a client in direct mode can read it, and SQL.")


async def _with_a_row_of_1_gib(serving: Serving, primary_key: str) -> None:
    """Without anybody having to hold as much: PostgreSQL refuses a text of that length before it is made."""
    await serving.sql("create type wide as enum ('small', 'large')")
    text = "repeat('x', case $1 when 'small' then 1 else 1 << 30 end)"
    await serving.sql(f"create function text_of(wide) returns text immutable language sql return {text}")
    await serving.sql("create cast (wide as text) with function text_of(wide)")
    await serving.sql(f"create table serving.j__v1 (a bigint, b bigint, wide wide, primary key ({primary_key}))")
    await serving.sql("insert into serving.j__v1 values (1, 1, 'small'), (2, 2, 'large')")


async def test_scan_of_an_empty_table_still_says_who_answered(routed: FrontProcess, serving: Serving) -> None:
    await serving.sql("delete from serving.j__v1")
    scanned = await routed.scan()
    assert scanned.rows == []
    assert scanned.served.applied_positions[0].next_offset == 10


async def test_scan_refuses_what_it_cannot_do(routed: FrontProcess) -> None:
    code, reason, message = await refused(routed.scan("nam"))
    assert (code, reason) == (INVALID, "UNKNOWN_COLUMN")
    assert "id, name" in message
    assert (await refused(routed.scan(limit=-1)))[:2] == (INVALID, "INVALID_LIMIT")
    assert (await refused(routed.scan(limit=100_000_001)))[:2] == (INVALID, "INVALID_LIMIT")


async def test_hidden_columns_and_tombstones_are_not_shown(routed: FrontProcess, serving: Serving) -> None:
    await serving.sql(
        """create table serving.j__v3 (id bigint primary key, name text, _deleted boolean not null default false,
           _partition integer, shout text generated always as (upper(name)) stored)"""
    )
    await serving.sql("insert into serving.j__v3 values (1, 'one', false, 7), (2, null, true, 7)")
    assert plain((await routed.get(i(1), version=3)).row) == [1, "one", "ONE"]
    assert list((await routed.get(i(1), version=3)).served.columns) == ["id", "name", "shout"]
    assert not (await routed.get(i(2), version=3)).HasField("row")
    batch = await routed.batch(key(i(1)), key(i(2)), version=3)
    assert [result.HasField("row") for result in batch.results] == [True, False]
    assert (await routed.scan(version=3)).rows == [[1, "one", "ONE"]]
    assert (await refused(routed.scan("_partition", version=3)))[1] == "UNKNOWN_COLUMN"


async def test_composite_keys_in_any_named_order(routed: FrontProcess, serving: Serving) -> None:
    await serving.sql(
        "create table serving.j__v3 (name text, carrier text, month bigint, primary key (month, carrier))"
    )
    await serving.sql("insert into serving.j__v3 values ('a', 'AA', 1), ('b', 'AA', 2), ('c', 'UA', 1)")
    assert plain((await routed.get(i(2), s("AA"), version=3)).row) == ["b", "AA", 2]
    named = pb.Key(columns=["carrier", "month"], values=[s("UA"), i(1)])
    answer = await routed.query.Get(pb.GetRequest(job="jobs/j", key=named, version=3), timeout=5)
    assert plain(answer.row) == ["c", "UA", 1]
    batch = await routed.batch(key(i(1), s("UA")), key(i(2), s("UA")), named, key(i(1), s("AA")), version=3)
    rows = [plain(r.row)[0] if r.HasField("row") else None for r in batch.results]
    assert rows == ["c", None, "c", "a"]


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (pb.Key(), "needs 1 value"),
        (key(i(1), i(2)), "needs 1 value"),
        (key(s("one")), "Key column id of j v1 is bigint and takes a whole number .* string_value 'one' came"),
        (key(pb.Value()), "null came"),
        (pb.Key(columns=["nam"], values=[i(1)]), "the request names nam"),
        (pb.Key(columns=["id", "id"], values=[i(1), i(1)]), "the request names id, id"),
        (pb.Key(columns=["id"], values=[]), "1 column.* 0 value"),
    ],
)
async def test_keys_that_do_not_fit(routed: FrontProcess, bad: pb.Key, told: str) -> None:
    code, reason, message = await refused(routed.query.Get(pb.GetRequest(job="jobs/j", key=bad), timeout=5))
    assert (code, reason) == (INVALID, "INVALID_KEY")
    with pytest.raises(AssertionError, match=told):
        raise AssertionError(message)


@pytest.mark.parametrize("job", ["", "j", "jobs/", "jobs/J", "jobs/j/versions/1"])
async def test_names_that_are_none(front: FrontProcess, job: str) -> None:
    assert (await refused(front.query.Get(pb.GetRequest(job=job), timeout=5)))[:2] == (INVALID, "INVALID_NAME")


async def test_a_negative_version(routed: FrontProcess) -> None:
    assert (await refused(routed.get(i(1), version=-1)))[:2] == (INVALID, "INVALID_VERSION")


async def test_explain_tells_the_interval(routed: FrontProcess, switcher: ScriptedSwitcher) -> None:
    await adopt(switcher, routed, route("j", 4, active=1, share={1: 0.9, 2: 0.1}))
    for unit in map(str, range(30)):
        told = await routed.query.ExplainRoute(pb.ExplainRouteRequest(job="jobs/j", unit=unit), timeout=5)
        assert told.interval_low <= told.unit_hash < told.interval_high
        assert (told.unit, told.active_version, told.epoch, told.acquired_epoch) == (unit, 1, 4, 4)
        assert told.front == routed.settings.instance
        assert 0 <= told.route_age_s < 60
        assert told.version == (await routed.get(i(1), unit=unit)).served.version
    by_key = await routed.query.ExplainRoute(pb.ExplainRouteRequest(job="jobs/j", key=key(i(7))), timeout=5)
    assert by_key.unit == "i1:7"
    assert by_key.version == (await routed.get(i(7))).served.version


async def test_explain_needs_a_unit_or_a_key(routed: FrontProcess) -> None:
    neither = pb.ExplainRouteRequest(job="jobs/j")
    both = pb.ExplainRouteRequest(job="jobs/j", unit="u", key=key(i(1)))
    for request in (neither, both):
        assert (await refused(routed.query.ExplainRoute(request, timeout=5)))[:2] == (INVALID, "UNIT_OR_KEY")
