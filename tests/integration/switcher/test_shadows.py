"""A candidate in the shadow of the active version: a real front reads both, a real switcher says what that shows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest

from tests.integration.query.fronts import FrontProcess, Serving, i, key
from tests.integration.switcher.conftest import ROUTE, V2, Switcher, refused
from tests.integration.switcher.replayer import ReplayerOnDemand
from tests.support.eventually import eventually
from turnout.client import Client
from turnout.column_values import column_of
from turnout.kinds import Kind
from turnout.query.v1 import query_pb2
from turnout.reading import shadows
from turnout.reading.table import Found
from turnout.shadow import ShadowReport, ShadowVerdict
from turnout.switcher.v1 import release_pb2, shadow_pb2

JOB = "carrier-punctuality"
TABLE = "serving.carrier_punctuality__v"
KEYS = range(20)


@pytest.fixture(autouse=True)
def _unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No statement of a comparison is given up because the machine is busy."""
    monkeypatch.setattr(shadows, "STATEMENT_S", 30.0)


@pytest.fixture
async def tables(postgres: str) -> AsyncIterator[Serving]:
    """Versions 1 and 2 with the same rows, and 3, in which a column is another one. All at one position."""
    serving = await Serving.create(postgres)
    for version in (1, 2, 3):
        name = "'x' || id" if version == 3 else "'n' || id"
        await serving.sql(f"create table {TABLE}{version} (id bigint primary key, name text, late float8)")
        await serving.sql(f"insert into {TABLE}{version} select id, {name}, id / 3.0 from generate_series(0, 19) as id")
        await serving.position(version, 100, job=JOB)
    yield serving
    await serving.connection.close()


@pytest.fixture
async def front(switcher: Switcher, tables: Serving, postgres: str, tmp_path: Path) -> AsyncIterator[FrontProcess]:
    """A front that serves version 1."""
    await switcher.cut_over(1)
    front = FrontProcess(postgres, switcher.target, tmp_path)
    await front.start()
    yield front
    await front.stop()


@pytest.fixture
async def client(switcher: Switcher) -> AsyncIterator[Client]:
    async with Client(targets={"switcher": switcher.target}, timeout_s=20) as client:
        yield client


async def read(front: FrontProcess, keys: Iterable[int] = KEYS) -> None:
    for number in keys:
        answer = await front.get(i(number), job=JOB)
        assert answer.served.version == 1
        assert answer.HasField("row")


async def told(client: Client, enough: Callable[[ShadowReport], bool]) -> ShadowReport:
    found: list[ShadowReport] = []

    async def look() -> bool:
        found.append(await client.shadow(JOB))
        return enough(found[-1])

    await eventually(look)
    return found[-1]


async def test_an_equal_candidate_is_compared_and_found_equal(front: FrontProcess, client: Client) -> None:
    change = await client.set_shadow(JOB, 2, 10_000, reason="before the cutover")
    assert change.changed
    await read(front)
    await front.batch(*(key(i(number)) for number in KEYS), job=JOB)  # the same keys: none counts twice
    report = await told(client, lambda one: one.counts.compared >= len(KEYS))
    assert (report.version, report.active_version, report.share) == (2, 1, 10_000)
    assert (report.counts.compared, report.counts.equal, report.counts.active_differs) == (20, 20, 0)
    assert report.compared_share == 1.0
    assert report.verdict is ShadowVerdict.NOT_SHOWN


async def test_a_candidate_that_differs_is_found_by_its_column(front: FrontProcess, client: Client) -> None:
    await client.set_shadow(JOB, 3, 10_000)
    await front.batch(*(key(i(number)) for number in KEYS), job=JOB)
    report = await told(client, lambda one: one.counts.compared >= len(KEYS))
    assert (report.counts.equal, report.counts.only_candidate_differs) == (0, 20)
    assert report.counts.columns == {"name": 20}
    assert report.verdict is ShadowVerdict.DIFFERS
    assert "v3 differs more often than v1 from itself: of 20 compared reads 20 differed in v3 alone" in report.sentence
    await client.stop_shadow(JOB)
    stopped = await client.shadow(JOB)
    assert (stopped.share, stopped.counts) == (None, report.counts)
    commands = [change.command.value async for change in client.route_changes(JOB)]
    assert commands == ["SET_SHADOW", "SET_SHADOW", "CUT_OVER"]


async def test_only_a_share_of_the_reads_and_none_that_name_their_version(front: FrontProcess, client: Client) -> None:
    await client.set_shadow(JOB, 2, 5_000)
    for number in KEYS:
        await front.get(i(number), job=JOB, version=1)
    await read(front)
    report = await told(client, lambda one: one.counts.compared > 0)
    assert 0 < report.counts.compared < len(KEYS)


async def test_a_map_is_compared_by_its_last_changes_however_far_apart_the_tables_stand(
    front: FrontProcess, client: Client, tables: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadows, "PATIENCE_S", 0.2)
    for version in (1, 2):
        await tables.sql(f"alter table {TABLE}{version} add column _offset bigint not null default 10")
        await tables.sql(f"alter table {TABLE}{version} add column _partition integer not null default 0")
        await tables.sql(f"alter table {TABLE}{version} add column _deleted boolean not null default false")
    await tables.sql(f"update {TABLE}2 set _deleted = true where id = 0")
    await tables.position(2, 50, job=JOB)  # it never comes further
    await tables.sql(f"update {TABLE}1 set _offset = 70, name = 'new' where id >= 15")  # it has not applied these
    await client.set_shadow(JOB, 2, 10_000)
    await read(front)
    report = await told(client, lambda one: one.counts.compared + sum(one.counts.left_out.values()) >= len(KEYS))
    assert (report.counts.compared, report.counts.equal, report.counts.only_active) == (15, 14, 1)
    assert report.counts.left_out == {shadows.BEHIND: 5}
    assert report.compared_share == 0.75


async def test_a_candidate_that_is_behind_is_waited_for(
    front: FrontProcess, client: Client, tables: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadows, "PATIENCE_S", 60.0)
    await tables.position(2, 50, job=JOB)
    await client.set_shadow(JOB, 2, 10_000)
    await read(front, range(5))
    await tables.sql(f"update {TABLE}2 set name = 'later' where id = 0")
    await tables.position(2, 120, job=JOB)
    await tables.sql(f"update {TABLE}1 set name = 'later' where id = 0")
    await tables.position(1, 130, job=JOB)
    report = await told(client, lambda one: one.counts.compared >= 5)
    # Of the row that changed meanwhile the active version differs from itself, which is no difference of the candidate.
    assert (report.counts.equal, report.counts.active_differs, report.counts.only_candidate_differs) == (4, 1, 0)


async def test_a_table_that_is_locked_or_gone_keeps_no_reader_waiting(
    front: FrontProcess, client: Client, tables: Serving, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadows, "STATEMENT_S", 60.0)  # longer than any read may take
    await client.set_shadow(JOB, 2, 10_000)
    other = await asyncpg.connect(postgres)
    try:
        async with other.transaction():
            await other.execute(f"lock table {TABLE}2 in access exclusive mode")
            await read(front, range(10))
            await waits_for_lock(tables)
            await read(front, range(10, 20))
            monkeypatch.setattr(shadows, "STATEMENT_S", 0.3)
        await told(client, lambda one: one.counts.compared == len(KEYS))
        async with other.transaction():
            await other.execute(f"lock table {TABLE}2 in access exclusive mode")
            await client.set_shadow(JOB, 2, 9_999)
            await read(front)
            await told(client, lambda one: one.counts.left_out.get(shadows.SLOW, 0) > 0)
        await other.execute(f"drop table {TABLE}2")
        await client.set_shadow(JOB, 2, 9_998)
        await read(front)
        await told(client, lambda one: one.counts.left_out.get(shadows.MISSING, 0) > 0)
    finally:
        await other.close()


async def waits_for_lock(tables: Serving) -> None:
    async def waits() -> bool:
        found: Any = await tables.connection.fetchval("select count(*) from pg_locks where not granted")
        return bool(found)

    await eventually(waits)


async def test_a_batch_is_sampled_before_its_rows_are_unpacked(
    front: FrontProcess, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked: list[int] = []
    rows: Any = vars(Found)["rows"]

    def counted(found: Found) -> Any:
        unpacked.append(len(found))
        return rows.fget(found)

    monkeypatch.setattr(Found, "rows", property(counted))
    await client.set_shadow(JOB, 2, 5_000)
    columns = [column_of(Kind.INT64, list(KEYS))]
    await front.query.BatchGet(query_pb2.BatchGetRequest(job=f"jobs/{JOB}", key_columns=columns), timeout=20)
    report = await told(client, lambda one: one.counts.compared > 0)
    assert report.counts.compared < len(KEYS)
    assert max(unpacked) == report.counts.compared  # by the worker, and nothing else


async def test_a_value_that_cannot_be_read_fails_no_live_read_and_no_other_comparison(
    front: FrontProcess, client: Client, tables: Serving
) -> None:
    for version in (1, 2):
        await tables.sql(f"alter table {TABLE}{version} add column day date")
    await tables.sql(f"update {TABLE}1 set day = '26000-01-01' where id = 3")
    await tables.sql(f"update {TABLE}2 set day = '26000-01-01' where id = 7")
    await client.set_shadow(JOB, 2, 10_000)
    columns = [column_of(Kind.INT64, list(KEYS))]
    request = query_pb2.BatchGetRequest(job=f"jobs/{JOB}", key_columns=columns)
    assert len((await front.query.BatchGet(request, timeout=20)).blocks[0].rows) == len(KEYS)
    report = await told(client, lambda one: one.counts.compared + one.counts.left_out.get(shadows.UNREADABLE, 0) >= 20)
    assert (report.counts.equal, report.counts.left_out) == (18, {shadows.UNREADABLE: 2})


async def test_a_full_queue_drops_and_counts(
    front: FrontProcess, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadows, "QUEUE_MAX", 0)
    await client.set_shadow(JOB, 2, 10_000)
    await read(front)
    report = await told(client, lambda one: bool(one.counts.left_out))
    assert report.counts.left_out[shadows.QUEUE_FULL] == len(KEYS)
    assert report.sentence == "None of 20 sampled reads could be compared: QUEUE_FULL 20."


async def test_the_gate_is_the_schema_and_a_shadowed_version_is_not_released(
    switcher: Switcher, replayer: ReplayerOnDemand
) -> None:
    await switcher.cut_over(1)
    replayer.failing[2, "catch-up"] = ["it is far behind"]
    replayer.failing[2, "schema"] = ["a column is lost"]
    request = shadow_pb2.SetShadowRequest(name=ROUTE, shadow=shadow_pb2.Shadow(version=2, share=500))
    refusal = await refused(switcher.stub.SetShadow(request, timeout=20))
    assert (refusal.reason, [one[0] for one in refusal.violations]) == ("GATES_FAILED", ["schema"])
    del replayer.failing[2, "schema"]
    change = await switcher.stub.SetShadow(request, timeout=20)
    assert [(gate.gate, gate.passed) for gate in change.gates] == [("schema", True)]
    assert (await switcher.route()).shadow == request.shadow
    refusal = await refused(switcher.stub.ReleaseVersion(release_pb2.ReleaseVersionRequest(version=V2), timeout=20))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VERSION_IN_USE")


async def test_counts_are_kept_once_and_only_of_what_is_shadowed(
    switcher: Switcher, client: Client, record: Callable[..., Awaitable[None]]
) -> None:
    await switcher.cut_over(1)
    refusal = await refused(switcher.stub.GetShadow(shadow_pb2.GetShadowRequest(name=ROUTE), timeout=20))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "SHADOW_NOT_FOUND")
    await client.set_shadow(JOB, 2, 500)
    await record("a", sequence=2, compared=7)
    await record("a", sequence=2, compared=7)
    await record("a", sequence=1, compared=3)  # late
    await record("b", sequence=1, compared=2)  # another start of the same front
    await record("a", sequence=9, epoch=1, compared=100)  # no shadow then
    await record("a", sequence=9, version=3, compared=100)
    assert (await client.shadow(JOB)).counts.compared == 9
    refusal = await refused(record("a", sequence=9, compared=-1))
    assert refusal.reason == "INVALID_TALLIES"


async def test_the_gate_asks_what_the_shadow_has_shown(
    switcher: Switcher, record: Callable[..., Awaitable[None]]
) -> None:
    await switcher.cut_over(1)
    nothing = await refused(switcher.cut_over(2, require_gates=["shadow"]))
    assert [kind for kind, _, _ in nothing.violations] == ["shadow"]
    await switcher.stub.SetShadow(
        shadow_pb2.SetShadowRequest(name=ROUTE, shadow=shadow_pb2.Shadow(version=2, share=500)), timeout=20
    )
    await switcher.require_gates("shadow")
    await record("a", sequence=1, compared=5000, only_candidate_differs=900)
    differs = await refused(switcher.set_traffic({1: 9000, 2: 1000}))
    assert "differs more often" in differs.violations[0][2]
    await record("a", sequence=2, compared=5000)
    change = await switcher.set_traffic({1: 9000, 2: 1000})
    assert [(gate.gate, gate.passed) for gate in change.gates][-1] == ("shadow", True)


@pytest.fixture
def record(switcher: Switcher) -> Callable[..., Awaitable[None]]:
    """Tell as a front does."""

    async def tell(
        source: str, *, sequence: int, compared: int, epoch: int = 2, version: int = 2, **numbers: Any
    ) -> None:
        counts = shadow_pb2.ShadowCounts(compared=compared, **numbers)
        tally = shadow_pb2.ShadowTally(
            name=ROUTE, epoch=epoch, version=version, active_version=1, sequence=sequence, counts=counts
        )
        request = shadow_pb2.RecordShadowCountsRequest(front="f", source=source, tallies=[tally])
        await switcher.stub.RecordShadowCounts(request, timeout=20)

    return tell
