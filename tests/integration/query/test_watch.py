"""The watch: what a front prepares, adopts and reports, and what it does while the switcher is away."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.integration.query.conftest import MakeFront
from tests.integration.query.fronts import FrontProcess, Serving, i, plain, refused
from tests.integration.query.switcher import ScriptedSwitcher, SwitcherProcess, route
from tests.integration.query.test_reads import adopt
from tests.support.eventually import eventually
from turnout.query.v1 import query_pb2 as pb
from turnout.reading.route_proto import committed_of
from turnout.reading.routes_file import RoutesFile, StoredRoutes
from turnout.reading.routing import RoutingTable
from turnout.switcher.v1 import front_pb2

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
ACTIVE = pb.ServedVersion.ACTIVE


def reported(switcher: ScriptedSwitcher, proposal: str, states: list[str]) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        assert switcher.said(proposal) == states
        return True

    return holds


async def ends_with(call: Callable[[], Any], reason: str) -> None:
    async def holds() -> bool:
        assert (await refused(call()))[1] == reason
        return True

    await eventually(holds)


async def test_prepared_then_serving_then_drained(
    front: FrontProcess, serving: Serving, switcher: ScriptedSwitcher
) -> None:
    await serving.numbers(1, {1: "one"})
    await serving.numbers(2, {1: "eins"})
    split = route("j", 1, active=1, share={1: 0.5, 2: 0.5})
    switcher.propose("p", split)
    await eventually(reported(switcher, "p", ["PREPARED"]))
    assert (await refused(front.get(i(1))))[1] == "JOB_NOT_ROUTED", "a proposal changes nothing"
    switcher.commit("p", split)
    await eventually(reported(switcher, "p", ["PREPARED", "SERVING", "DRAINED"]))
    assert (await front.get(i(1))).served.epoch == 1


async def test_a_proposal_that_names_a_missing_table_is_refused(
    front: FrontProcess, serving: Serving, switcher: ScriptedSwitcher
) -> None:
    await serving.numbers(1, {1: "one"})
    switcher.propose("p", route("j", 1, active=1, share={1: 0.5, 2: 0.5}))
    await eventually(reported(switcher, "p", ["NACK"]))
    assert switcher.reason("p") == "j v2 has no table"


async def test_a_proposal_with_an_unreadable_table_is_refused(
    front: FrontProcess, serving: Serving, switcher: ScriptedSwitcher
) -> None:
    await serving.sql("create table serving.j__v1 (id bigint)")
    switcher.propose("p", route("j", 1, active=1))
    await eventually(reported(switcher, "p", ["NACK"]))
    assert "has no primary key" in switcher.reason("p")


async def test_a_proposal_that_is_no_route_is_refused(front: FrontProcess, switcher: ScriptedSwitcher) -> None:
    broken = route("j", 1, active=1)
    broken.intervals[0].high -= 1
    switcher.propose("p", broken)
    await eventually(reported(switcher, "p", ["NACK"]))
    assert "intervals" in switcher.reason("p")


async def test_a_table_without_the_right_to_read_is_refused(
    make_front: MakeFront,
    postgres: str,
    serving: Serving,
    switcher: ScriptedSwitcher,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await serving.numbers(1, {1: "one"})
    role = f"reader_{postgres.rpartition('/')[2].partition('?')[0]}"
    await serving.sql(f"create role {role} login password 'x'; grant usage on schema serving to {role}")
    try:
        host = postgres.rpartition("@")[2]
        front = await make_front(postgres=f"postgresql://{role}:x@{host}")
        switcher.propose("p", route("j", 1, active=1))
        await eventually(reported(switcher, "p", ["NACK"]))
        assert "This front lacks the right to read the table of j v1. Its log says which" in switcher.reason("p")
        assert f"The PostgreSQL user {role} may not read the table of j v1: permission denied" in caplog.text
        await front.app.stop()
    finally:
        await serving.sql(f"drop owned by {role}; drop role {role}")


async def test_preparing_and_adopting_are_part_of_the_trace_of_the_change(
    front: FrontProcess, serving: Serving, switcher: ScriptedSwitcher, spans: InMemorySpanExporter
) -> None:
    await serving.numbers(1, {1: "one"})
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    switcher.propose("p", route("j", 1, active=1), traceparent)
    await eventually(reported(switcher, "p", ["PREPARED"]))
    switcher.commit("p", route("j", 1, active=1), traceparent)
    await eventually(reported(switcher, "p", ["PREPARED", "SERVING", "DRAINED"]))
    found = {one.name: one for one in spans.get_finished_spans() if one.name.startswith("front.")}
    assert set(found) == {"front.prepare", "front.adopt"}
    for span in found.values():
        assert span.parent is not None
        assert f"{span.parent.trace_id:032x}-{span.parent.span_id:016x}" == traceparent[3:-3]
        assert (span.attributes or {})["turnout.front"] == front.settings.instance


async def test_a_cancelled_proposal_is_not_prepared_any_further(
    front: FrontProcess, serving: Serving, switcher: ScriptedSwitcher
) -> None:
    await serving.numbers(1, {1: "one"})
    async with serving.connection.transaction():
        await serving.sql("lock table serving.j__v1 in access exclusive mode")
        switcher.propose("held", route("j", 1, active=1))
        switcher.cancel("held")
        switcher.propose("missing", route("other", 1, active=1))
        await eventually(reported(switcher, "missing", ["NACK"]))
    switcher.propose("after", route("j", 1, active=1))
    await eventually(reported(switcher, "after", ["PREPARED"]))
    assert switcher.said("held") == []


async def test_drained_only_after_the_last_read_of_an_earlier_epoch(
    front: FrontProcess, serving: Serving, switcher: ScriptedSwitcher
) -> None:
    await serving.numbers(1, {1: "one"})
    await serving.numbers(2, {1: "eins"})
    await adopt(switcher, front, route("j", 1, active=1))
    await front.get(i(1))
    async with serving.connection.transaction():
        await serving.sql("lock table serving.j__v1 in access exclusive mode")
        held = asyncio.create_task(front.get(i(1)))
        await eventually(_waits_for_lock(serving))
        await adopt(switcher, front, route("j", 2, active=2))
        assert (await front.get(i(1))).served.version == 2, "new reads are answered meanwhile"
        assert switcher.said("p2") == ["SERVING"]
    assert plain((await held).row) == [1, "one"]
    await eventually(reported(switcher, "p2", ["SERVING", "DRAINED"]))


@pytest.mark.parametrize("end", ["cancelled", "deadline", "error"])
@pytest.mark.parametrize("read", ["Get", "BatchGet", "Scan"])
async def test_drained_after_a_read_that_ended_badly(
    front: FrontProcess, serving: Serving, switcher: ScriptedSwitcher, end: str, read: str
) -> None:
    await serving.numbers(1, {1: "one"})
    await serving.numbers(2, {1: "eins"})
    await adopt(switcher, front, route("j", 1, active=1))
    await front.get(i(1))
    requests = {
        "Get": pb.GetRequest(job="jobs/j", key=pb.Key(values=[i(1)])),
        "BatchGet": pb.BatchGetRequest(job="jobs/j", keys=[pb.Key(values=[i(1)])]),
        "Scan": pb.ScanRequest(job="jobs/j"),
    }
    async with serving.connection.transaction():
        await serving.sql("lock table serving.j__v1 in access exclusive mode")
        call = getattr(front.query, read)(requests[read], timeout=1.0 if end == "deadline" else 30.0)
        held = asyncio.ensure_future(call.read() if read == "Scan" else call)
        await eventually(_waits_for_lock(serving))
        await adopt(switcher, front, route("j", 2, active=2))
        assert switcher.said("p2") == ["SERVING"]
        if end == "cancelled":
            call.cancel()
        elif end == "error":
            await serving.sql(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where wait_event_type = 'Lock' and datname = current_database()"
            )
        with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
            await held
        await eventually(reported(switcher, "p2", ["SERVING", "DRAINED"]))


async def test_nothing_new_is_answered_by_routes_after_the_goodbye(
    front: FrontProcess, serving: Serving, switcher: ScriptedSwitcher
) -> None:
    await serving.numbers(1, {1: "one"})
    await adopt(switcher, front, route("j", 1, active=1))
    await front.get(i(1))
    async with serving.connection.transaction():
        await serving.sql("lock table serving.j__v1 in access exclusive mode")
        held = asyncio.create_task(front.get(i(1)))
        await eventually(_waits_for_lock(serving))
        await front.app.drain()
        assert (await refused(front.get(i(1))))[:2] == (UNAVAILABLE, "STOPPING")
        assert not front.app.ready
    assert plain((await held).row) == [1, "one"]
    assert plain((await front.get(i(1), version=1)).row) == [1, "one"]


async def test_drained_after_a_scan_whose_reader_walked_away(
    front: FrontProcess, serving: Serving, switcher: ScriptedSwitcher
) -> None:
    await serving.numbers(1, {})
    await serving.numbers(2, {1: "eins"})
    await serving.sql("insert into serving.j__v1 select n, repeat('x', 1000) from generate_series(1, 20000) n")
    await adopt(switcher, front, route("j", 1, active=1))
    call = front.query.Scan(pb.ScanRequest(job="jobs/j", limit=20_000), timeout=60)
    assert len((await call.read()).rows) == 1000  # then it reads no further, and the front waits to send more
    await adopt(switcher, front, route("j", 2, active=2))
    assert switcher.said("p2") == ["SERVING"]
    call.cancel()
    await eventually(reported(switcher, "p2", ["SERVING", "DRAINED"]))


async def test_a_new_stream_reports_what_the_snapshot_says(
    front: FrontProcess, serving: Serving, switcher: ScriptedSwitcher, switcher_process: SwitcherProcess
) -> None:
    await serving.numbers(1, {1: "one"})
    await adopt(switcher, front, route("j", 1, active=1))
    await switcher_process.stop()
    switcher.reports.clear()
    switcher.commit("meanwhile", route("j", 2, active=1))
    await switcher_process.start()
    await eventually(reported(switcher, "meanwhile", ["SERVING", "DRAINED"]))
    assert (await front.get(i(1))).served.epoch == 2


async def test_an_older_commit_does_not_replace_a_newer_one(
    front: FrontProcess, serving: Serving, switcher: ScriptedSwitcher
) -> None:
    await serving.numbers(1, {1: "one"})
    await serving.numbers(2, {1: "eins"})
    await adopt(switcher, front, route("j", 5, active=2))
    await adopt(switcher, front, route("j", 4, active=1))
    assert (await front.get(i(1))).served.epoch == 5


async def test_a_broken_route_in_a_snapshot_leaves_the_other_jobs_alone(
    serving: Serving, switcher: ScriptedSwitcher, make_front: MakeFront
) -> None:
    await serving.numbers(1, {1: "one"})
    switcher.commit("good", route("j", 1, active=1))
    broken = route("k", 1, active=1)
    broken.arms[0].weight = 1
    switcher.commit("bad", broken)
    front = await make_front()
    assert plain((await front.get(i(1))).row) == [1, "one"]
    assert (await refused(front.get(i(1), job="k")))[1] == "ROUTE_UNREADABLE"
    assert switcher.said("bad") == []


async def test_a_job_whose_newest_route_is_broken_is_not_answered_by_the_one_before(
    front: FrontProcess, serving: Serving, switcher: ScriptedSwitcher
) -> None:
    for job in ("j", "k"):
        await serving.numbers(1, {1: job}, job=job)
        await adopt(switcher, front, route(job, 1, active=1))
    broken = route("k", 2, active=1)
    broken.arms[0].weight = 1
    switcher.commit("bad", broken)
    await eventually(reported(switcher, "bad", ["NACK"]))
    assert (await refused(front.get(i(1), job="k")))[:2] == (UNAVAILABLE, "ROUTE_UNREADABLE")
    assert plain((await front.get(i(1))).row) == [1, "j"], "one job's fault stays its own"
    assert plain((await front.get(i(1), job="k", version=1)).row) == [1, "k"]
    await adopt(switcher, front, route("k", 3, active=1))
    assert (await front.get(i(1), job="k")).served.epoch == 3


async def test_heartbeats_keep_the_stream_and_the_routes_fresh(
    make_front: MakeFront, serving: Serving, switcher: ScriptedSwitcher
) -> None:
    front = await make_front(max_stale_active_s=4.0, max_stale_experiment_s=3.9)
    await serving.numbers(1, {1: "one"})
    await adopt(switcher, front, route("j", 1, active=1))
    began_s = time.monotonic()

    async def for_longer_than_it_may_serve() -> bool:
        await front.get(i(1))
        return time.monotonic() - began_s > 5.0 and switcher.streams[0].heartbeats >= 4

    await eventually(for_longer_than_it_may_serve)
    assert switcher.hellos == 1


async def test_silence_begins_a_new_stream(make_front: MakeFront, switcher: ScriptedSwitcher) -> None:
    switcher.lease_s = 0.2
    switcher.acknowledges = False
    await make_front()

    async def again() -> bool:
        return switcher.hellos > 2

    await eventually(again)


async def test_without_the_switcher_first_splits_end_then_reads(
    make_front: MakeFront, serving: Serving, switcher: ScriptedSwitcher, switcher_process: SwitcherProcess
) -> None:
    front = await make_front(max_stale_active_s=8.0, max_stale_experiment_s=4.0)
    await serving.numbers(1, {1: "one"})
    await serving.numbers(2, {1: "eins"})
    await adopt(switcher, front, route("j", 1, active=1, share={2: 1.0}))
    assert (await front.get(i(1))).served.version == 2
    await switcher_process.stop()

    async def active() -> bool:
        served = (await front.get(i(1))).served
        return bool(served.version == 1 and served.cause == ACTIVE)

    await eventually(active)
    assert front.app.ready
    await ends_with(lambda: front.get(i(1)), "ROUTE_STALE")
    assert (await refused(front.get(i(1))))[0] == UNAVAILABLE
    assert (await refused(front.scan()))[1] == "ROUTE_STALE"
    assert not front.app.ready
    assert (await front.get(i(1), version=1)).served.version == 1, "a pinned read needs no route"
    await switcher_process.start()

    async def routed() -> bool:
        return front.app.ready and (await front.get(i(1))).served.version == 2

    await eventually(routed)


async def test_without_any_routes(make_front: MakeFront, switcher_process: SwitcherProcess) -> None:
    await switcher_process.stop()
    front = await make_front()
    assert (await refused(front.get(i(1))))[:2] == (UNAVAILABLE, "ROUTES_UNKNOWN")
    assert not front.app.ready
    await switcher_process.start()
    await ends_with(lambda: front.get(i(1)), "JOB_NOT_ROUTED")
    assert front.app.ready


async def test_a_restarted_front_serves_from_disk(
    make_front: MakeFront, serving: Serving, switcher: ScriptedSwitcher, switcher_process: SwitcherProcess
) -> None:
    await serving.numbers(1, {1: "one"})
    first = await make_front()
    await adopt(switcher, first, route("j", 4, active=1))
    await first.app.stop()
    await switcher_process.stop()
    second = await make_front(instance="second")
    answer = await second.get(i(1))
    assert (plain(answer.row), answer.served.epoch) == ([1, "one"], 4)
    told = await second.query.ExplainRoute(pb.ExplainRouteRequest(job="jobs/j", unit="u"), timeout=5)
    assert 0 < told.route_age_s < 60
    switcher.commit("p5", route("j", 5, active=1))
    await switcher_process.start()
    await eventually(reported(switcher, "p5", ["SERVING", "DRAINED"]))


async def test_a_front_that_crashed_serves_from_disk(
    make_front: MakeFront,
    serving: Serving,
    switcher: ScriptedSwitcher,
    switcher_process: SwitcherProcess,
    tmp_path: Path,
) -> None:
    await serving.numbers(1, {1: "one"})
    first = await make_front()
    await adopt(switcher, first, route("j", 4, active=1))
    stored = RoutesFile(tmp_path / "query" / "routes.json")

    async def on_disk() -> bool:
        routes = stored.load()
        return routes is not None and routes.table.epoch("j") == 4

    await eventually(on_disk)
    shutil.copytree(tmp_path / "query", tmp_path / "crashed" / "query")  # as it was, without an orderly stop
    await switcher_process.stop()
    second = await make_front(data_dir=tmp_path / "crashed")
    assert (await second.get(i(1))).served.epoch == 4


async def test_stored_routes_count_their_age_from_the_time_stored(
    make_front: MakeFront, serving: Serving, switcher_process: SwitcherProcess, tmp_path: Path
) -> None:
    await serving.numbers(1, {1: "one"})
    await switcher_process.stop()
    committed = front_pb2.RouteCommitted(revision=1, proposal="p", route=route("j", 1, active=1))
    table = RoutingTable().with_snapshot(1, [committed_of(committed)])
    long_ago = datetime.now(UTC) - timedelta(seconds=61)
    RoutesFile(tmp_path / "query" / "routes.json").store(StoredRoutes(table, long_ago))
    front = await make_front()
    assert (await refused(front.get(i(1))))[1] == "ROUTE_STALE"


async def test_a_broken_file_is_as_good_as_none(
    make_front: MakeFront, switcher_process: SwitcherProcess, tmp_path: Path
) -> None:
    await switcher_process.stop()
    (tmp_path / "query").mkdir()
    (tmp_path / "query" / "routes.json").write_text('{"format": 1')
    front = await make_front()
    assert (await refused(front.get(i(1))))[1] == "ROUTES_UNKNOWN"
    await switcher_process.start()
    await ends_with(lambda: front.get(i(1)), "JOB_NOT_ROUTED")


async def test_a_switcher_that_went_back_in_time_is_not_followed(
    make_front: MakeFront, serving: Serving, switcher: ScriptedSwitcher, switcher_process: SwitcherProcess
) -> None:
    front = await make_front(max_stale_active_s=6.0)
    await serving.numbers(1, {1: "one"})
    await adopt(switcher, front, route("j", 4, active=1))
    await switcher_process.stop()
    switcher.revision, switcher.routes = 0, {}
    await switcher_process.start()
    assert (await front.get(i(1))).served.epoch == 4
    await ends_with(lambda: front.get(i(1)), "ROUTE_STALE")


def _waits_for_lock(serving: Serving) -> Callable[[], Awaitable[bool]]:
    async def waits() -> bool:
        return bool(
            await serving.connection.fetchval(
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            )
        )

    return waits


async def test_a_step_of_several_jobs_is_adopted_at_once(
    front: FrontProcess, serving: Serving, switcher: ScriptedSwitcher
) -> None:
    for job in ("a", "b"):
        await serving.numbers(1, {1: job}, job=job)
    switcher.propose_step(
        "p", front_pb2.ProposedRoute(route=route("a", 1, 1)), front_pb2.ProposedRoute(route=route("b", 1, 2))
    )
    await eventually(reported(switcher, "p", ["NACK"]))
    assert switcher.reason("p") == "b v2 has no table", "each route must be served, or none"
    switcher.commit_step("q", route("a", 1, 1), route("b", 1, 1))
    await eventually(reported(switcher, "q", ["SERVING", "DRAINED"]))
    for job in ("a", "b"):
        answer = await front.get(i(1), job=job)
        assert (plain(answer.row), answer.served.epoch) == ([1, job], 1)


@pytest.mark.parametrize("how", ["committed", "in a snapshot"])
async def test_a_step_is_drained_once_the_reads_of_all_its_jobs_are(
    front: FrontProcess, serving: Serving, switcher: ScriptedSwitcher, how: str
) -> None:
    for job in ("a", "b"):
        for version in (1, 2):
            await serving.numbers(version, {}, job=job)
        switcher.commit(f"first of {job}", route(job, 1, active=1))
        await eventually(reported(switcher, f"first of {job}", ["SERVING", "DRAINED"]))
    await front.get(i(1), job="b")
    async with serving.connection.transaction():
        await serving.sql("lock table serving.b__v1 in access exclusive mode")
        held = asyncio.create_task(front.get(i(1), job="b"))
        await eventually(_waits_for_lock(serving))
        switcher.commit_step("q", route("a", 2, 2), route("b", 2, 2))
        await eventually(reported(switcher, "q", ["SERVING"]))
        if how == "in a snapshot":
            switcher.hang_up()
            await eventually(reported(switcher, "q", ["SERVING", "SERVING"]))
        assert (await front.get(i(1), job="a")).served.version == 2
        assert "DRAINED" not in switcher.said("q")
    await held
    await eventually(reported(switcher, "q", [*["SERVING"] * (1 if how == "committed" else 2), "DRAINED"]))


async def test_what_a_rollback_would_need_is_prepared_and_told_of(
    front: FrontProcess, serving: Serving, switcher: ScriptedSwitcher
) -> None:
    await serving.numbers(2, {1: "eins"})
    proposed = front_pb2.ProposedRoute(route=route("j", 1, 2), way_back_versions=[1])
    switcher.propose_step("p", proposed)
    await eventually(reported(switcher, "p", ["PREPARED"]))
    assert switcher.reason("p") == "j v1 has no table"
    await serving.numbers(1, {1: "one"})
    switcher.propose_step("q", proposed)
    await eventually(reported(switcher, "q", ["PREPARED"]))
    assert switcher.reason("q") == ""
