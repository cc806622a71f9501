"""Deadlines, retries and errors of the client, against real servers that fail as they are told."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from tests.integration.sdk.servers import Script, serving
from tests.support.eventually import eventually
from tests.support.ports import own_port
from turnout import errors
from turnout.client import Client
from turnout.column_values import column_of
from turnout.errors import Violation
from turnout.kinds import Kind
from turnout.query.v1 import query_pb2
from turnout.registry.v1 import registry_pb2
from turnout.replayer.v1 import capacity_pb2, run_pb2
from turnout.schema import Column, ColumnType, JobDefinition, JobKind, Merge, TopicSource
from turnout.switcher.v1 import route_pb2

AWAY = errors.Unavailable("POSTGRES_UNAVAILABLE", "PostgreSQL does not answer; try again.")
JOB = registry_pb2.Job(name="jobs/a")
RUN = run_pb2.Run(name="jobs/a/versions/2/run", state=run_pb2.Run.REPLAYING)
DEFINITION = JobDefinition(
    job="a",
    kind=JobKind.AGGREGATE,
    topics=(TopicSource("t"),),
    columns=(Column("k", ColumnType.STRING, merge=Merge.KEY),),
    key=("k",),
)


async def test_nobody_there_says_what_to_do() -> None:
    target = f"127.0.0.1:{own_port()}"
    async with Client(target) as client:
        with pytest.raises(errors.Unavailable) as refused:
            await client.get_job("a")
    assert refused.value.reason == "NOT_RUNNING"
    port = target.rpartition(":")[2]
    assert refused.value.message == f"There is no Turnout at {target}; `turnout dev --port {port}` starts one there."


async def test_a_name_without_an_address_is_told_as_one() -> None:
    async with Client("no-such-host.invalid:7400") as client:
        with pytest.raises(errors.Unavailable, match=r"no-such-host\.invalid has no address") as refused:
            await client.get_job("a")
    assert refused.value.reason == "HOST_UNKNOWN"


async def test_unavailable_is_retried_as_the_same_request() -> None:
    script = Script(CreateJob=[AWAY, AWAY, JOB])
    async with serving(script) as target, Client(target) as client:
        assert (await client.create_job("a")).job == "a"
        await client.create_job("a")
    ids = [request.request_id for request in script.requests["CreateJob"]]
    assert ids[0]
    assert ids[0] == ids[1] == ids[2] != ids[3]


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (errors.InvalidInput, errors.InvalidInput),
        (errors.NotFound, errors.NotFound),
        (errors.AlreadyExists, errors.AlreadyExists),
        (errors.FailedPrecondition, errors.FailedPrecondition),
        (errors.Aborted, errors.Aborted),
        (errors.OutOfRange, errors.OutOfRange),
        (errors.ResourceExhausted, errors.ResourceExhausted),
        (errors.DataLoss, errors.DataLoss),
    ],
)
async def test_everything_else_is_raised_at_once(
    raised: type[errors.TurnoutError], kind: type[errors.TurnoutError]
) -> None:
    script = Script(GetJob=[raised("SOME_REASON", "What happened.", metadata={"a": "b"})])
    async with serving(script) as target, Client(target) as client:
        with pytest.raises(kind) as refused:
            await client.get_job("a")
    error = refused.value
    assert (error.reason, error.message, error.metadata) == ("SOME_REASON", "What happened.", {"a": "b"})
    assert len(script.requests["GetJob"]) == 1


async def test_a_failed_gate_brings_its_evidence() -> None:
    gate = Violation("catch-up", "v2", "flights/3: 40 behind")
    script = Script(CutOverRoute=[errors.FailedPrecondition("GATE_FAILED", "v2 may not serve.", violations=(gate,))])
    async with serving(script) as target, Client(target, actor="ann@desk") as client:
        with pytest.raises(errors.FailedPrecondition) as refused:
            await client.cut_over("a", 2, override_gates=["schema"], reason="why")
    assert refused.value.violations == (errors.Violation("catch-up", "v2", "flights/3: 40 behind"),)
    (request,) = script.requests["CutOverRoute"]
    assert (request.name, request.version, request.claimed_actor, request.reason, list(request.override_gates)) == (
        "jobs/a/route",
        2,
        "ann@desk",
        "why",
        ["schema"],
    )


async def test_a_fault_of_the_server_is_told_as_one() -> None:
    async with serving(Script(GetJob=[ZeroDivisionError("secret")])) as target, Client(target) as client:
        with pytest.raises(errors.ServerError, match="log") as refused:
            await client.get_job("a")
    assert "secret" not in refused.value.message


async def test_no_answer_in_time() -> None:
    async with serving(Script(GetJob=[None], SetTraffic=[None])) as target, Client(target, timeout_s=0.2) as client:
        with pytest.raises(errors.DeadlineExceeded, match=r"registry did not .* within 0\.2 s; .*nothing has changed"):
            await client.get_job("a")
        with pytest.raises(errors.DeadlineExceeded, match=r"switcher did not answer within 0\.1 s.*look before"):
            await client.set_traffic("a", {1: 10_000}, timeout_s=0.1)


async def test_away_until_the_deadline() -> None:
    script = Script(GetJob=[AWAY])
    async with serving(script) as target, Client(target, timeout_s=4) as client:
        with pytest.raises(errors.Unavailable) as refused:
            await client.get_job("a")
    assert refused.value.reason == "POSTGRES_UNAVAILABLE"
    assert len(script.requests["GetJob"]) > 2


async def test_a_restart_is_waited_out() -> None:
    target = f"127.0.0.1:{own_port()}"
    async with Client(target, timeout_s=30) as client:
        async with serving(Script(GetJob=[JOB]), target):
            await client.get_job("a")
        waiting = asyncio.create_task(client.get_job("a"))
        async with serving(Script(GetJob=[JOB]), target):
            assert (await waiting).job == "a"
        with pytest.raises(errors.Unavailable, match="stopped answering") as refused:
            await client.get_job("a", timeout_s=3)
    assert refused.value.reason == "CONNECTION_LOST"


async def test_an_upload_is_retried_from_its_start() -> None:
    answer = registry_pb2.CreateVersionResponse(
        version=registry_pb2.Version(
            name="jobs/a/versions/1",
            state=registry_pb2.Version.REGISTERED,
            definition=registry_pb2.Definition(
                definition_json='{"job":"a","kind":"aggregate","topics":[{"topic":"t"}],'
                '"columns":[{"name":"k","type":"string","merge":"key"}],"key":["k"]}'
            ),
        ),
        created=True,
    )
    script = Script(CreateVersion=[AWAY, answer])
    artifact = b"x" * (5 << 19)
    async with serving(script) as target, Client(target) as client:
        created = await client.create_version("a", DEFINITION, artifact, expected_number=1)
    assert created.created
    assert created.version.definition == DEFINITION
    first, second = script.requests["CreateVersion"]
    assert first == second
    assert [len(part.chunk) for part in first[1:]] == [1 << 20, 1 << 20, 1 << 19]


def page(*keys: str) -> query_pb2.ScanResponse:
    served = query_pb2.ServedVersion(version=1, columns=["k"], cause=query_pb2.ServedVersion.ACTIVE)
    return query_pb2.ScanResponse(served=served, columns=[column_of(Kind.STRING, keys)] if keys else [])


async def test_a_stream_is_retried_before_it_has_begun_and_not_later() -> None:
    script = Script(Scan=[[AWAY], [page("a", "b"), page("c")], [page("a"), AWAY]])
    async with serving(script) as target, Client(target) as client:
        reads = [read async for read in client.scan("a", order_by=["-k", "l"], limit=5)]
        assert [read.row for read in reads] == [{"k": "a"}, {"k": "b"}, {"k": "c"}]
        stream = client.scan("a")
        assert (await anext(stream)).row == {"k": "a"}
        with pytest.raises(errors.Unavailable):
            await anext(stream)
    request = script.requests["Scan"][1]
    assert [(order.column, order.descending) for order in request.order_by] == [("k", True), ("l", False)]
    assert request.limit == 5


async def test_an_empty_stream_is_no_rows() -> None:
    async with serving(Script(Scan=[[page()]], GetArtifact=[[]])) as target, Client(target) as client:
        assert [read async for read in client.scan("a")] == []
        assert await client.get_artifact("a", 1) == b""


@pytest.mark.parametrize("method", ["Scan", "WatchRun"])
async def test_breaking_off_ends_the_stream(method: str) -> None:
    script = Script(Scan=[[page("a"), None]], WatchRun=[[RUN, None]])
    async with serving(script) as target, Client(target) as client:
        async with aclosing(client.scan("a") if method == "Scan" else client.watch_run("a", 2)) as stream:
            async for _ in stream:
                break

        async def ended() -> bool:
            return script.cancelled[method] == 1

        await eventually(ended)


async def test_cancelling_a_watch_ends_it() -> None:
    script = Script(WatchRun=[[RUN, None]])
    async with serving(script) as target, Client(target) as client:
        seen = asyncio.Event()

        async def watch() -> None:
            async for _ in client.watch_run("a", 2):
                seen.set()

        task = asyncio.create_task(watch())
        await seen.wait()
        task.cancel()
        await asyncio.wait([task])

        async def ended() -> bool:
            return script.cancelled["WatchRun"] == 1

        await eventually(ended)


async def test_a_watch_goes_on_after_a_restart() -> None:
    tailing = run_pb2.Run(name=RUN.name, state=run_pb2.Run.TAILING)
    script = Script(WatchRun=[[RUN, AWAY], [AWAY], [RUN, tailing], [errors.NotFound("RUN_NOT_FOUND", "It is gone.")]])
    async with serving(script) as target, Client(target) as client:
        states = [run.state.value async for run in client.watch_run("a", 2)]
        assert states == ["REPLAYING", "REPLAYING", "TAILING"]
        with pytest.raises(errors.NotFound):
            _ = [run async for run in client.watch_run("a", 2)]


async def test_a_watch_that_says_nothing_is_given_up() -> None:
    async with serving(Script(WatchRun=[[None]])) as target, Client(target) as client:
        with pytest.raises(errors.DeadlineExceeded, match="replayer did not answer"):
            _ = [run async for run in client.watch_run("a", 2, timeout_s=0.2)]


async def test_each_service_has_its_target_and_each_target_one_channel() -> None:
    registry, rest = Script(GetJob=[JOB]), Script(GetRun=[RUN], GetRoute=[route_pb2.Route(name="jobs/a/route")])
    async with serving(registry) as one, serving(rest) as two:
        targets = {"registry": one, "replayer": two, "switcher": two, "query": two}
        async with Client(targets=targets) as client:
            await client.get_job("a")
            assert (await client.get_run("a", 2)).version == 2
            assert (await client.route("a")).job == "a"
            assert len(client._connections._channels) == 2
    assert registry.requests.keys() == {"GetJob"}
    assert rest.requests.keys() == {"GetRun", "GetRoute"}


async def test_requests_say_what_the_method_was_given() -> None:
    script = Script(
        StartRun=[RUN],
        SetRunRate=[RUN],
        SetRunPriority=[RUN],
        PauseRun=[RUN],
        ResumeRun=[RUN],
        StopRun=[RUN],
        UpdateCapacity=[capacity_pb2.Capacity()],
    )
    async with serving(script) as target, Client(target) as client:
        await client.start_run("a", 2, workers=4, rate_limit=1000, priority=7)
        await client.set_run_rate("a", 2, None)
        await client.set_run_priority("a", 2, -7)
        await client.update_capacity(copies_max=0, read_p99_ratio_max=1.5, etag="e")
        with pytest.raises(errors.InvalidInput, match="Nothing is to be changed"):
            await client.update_capacity()
        await client.pause_run("a", 2)
        await client.resume_run("a", 2)
        await client.stop_run("a", 2)
    (start,) = script.requests["StartRun"]
    assert (start.version, start.workers, start.rate_limit) == ("jobs/a/versions/2", 4, 1000)
    assert (start.priority, bool(start.request_id)) == (7, True)
    assert script.requests["SetRunPriority"][0].priority == -7
    (update,) = script.requests["UpdateCapacity"]
    assert update.update_mask.paths == ["copies_max", "read_p99_ratio_max"]
    assert (update.capacity.copies_max, update.capacity.read_p99_ratio_max, update.capacity.etag) == (0, 1.5, "e")
    assert script.requests["SetRunRate"] == [run_pb2.SetRunRateRequest(name="jobs/a/versions/2/run")]
    assert {request.name for method in ("PauseRun", "ResumeRun", "StopRun") for request in script.requests[method]} == {
        "jobs/a/versions/2/run"
    }


async def test_lists_are_read_to_their_end() -> None:
    runs = [
        run_pb2.ListRunsResponse(runs=[RUN, RUN], next_page_token="two"),
        run_pb2.ListRunsResponse(next_page_token="three"),
        run_pb2.ListRunsResponse(runs=[RUN]),
    ]
    script = Script(ListRuns=runs)
    async with serving(script) as target, Client(target) as client:
        assert len([run async for run in client.list_runs()]) == 3
    assert [request.page_token for request in script.requests["ListRuns"]] == ["", "two", "three"]
    assert script.requests["ListRuns"][0].parent == "jobs/-"
