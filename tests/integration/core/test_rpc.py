"""The chain of interceptors, over a real channel: errors with details, masking, deadlines, trace, health."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry import trace

from core.rpc.errors import CODES
from core.rpc.server import RpcServer, ServiceApp
from tests.support.eventually import eventually
from turnout.channel import connect
from turnout.errors import (
    Aborted,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    ResourceExhausted,
    TurnoutError,
    Unavailable,
    Violation,
)
from turnout.replayer.v1 import replayer_pb2_grpc as pb_grpc
from turnout.replayer.v1 import run_pb2
from turnout.status import from_rpc_error
from turnout.telemetry import current_traceparent, remote_context

GATES = (Violation("catch-up", "v2", "flights/3: 40 behind"), Violation("schema", "v2", "on_time is gone"))


class Replayer(pb_grpc.ReplayerServicer):
    """Fails as the name in the request says."""

    def __init__(self) -> None:
        self.traceparent = ""
        self.held = 0
        self.let_go = asyncio.Event()

    async def GetRun(self, request: run_pb2.GetRunRequest, context: Any) -> run_pb2.Run:
        self.traceparent = current_traceparent()
        if request.name == "hold":
            self.held += 1
            await self.let_go.wait()
        if request.name == "bug":
            raise ZeroDivisionError("secret detail")
        if request.name in ERRORS:
            raise ERRORS[request.name]
        return run_pb2.Run(name=request.name)

    async def WatchRun(self, request: run_pb2.WatchRunRequest, context: Any) -> AsyncIterator[run_pb2.Run]:
        yield run_pb2.Run(name=request.name)
        if request.name == "for ever":
            await asyncio.Event().wait()
        raise ERRORS["gates"]


ERRORS: dict[str, TurnoutError] = {
    "gates": FailedPrecondition("GATE_FAILED", "v2 may not serve.", violations=GATES, metadata={"job": "x"}),
    **{kind.__name__: kind("SOME_REASON", "What happened.", metadata={"a": "b"}) for kind in CODES},
}


class App(ServiceApp):
    name = "replayer"
    service_names: tuple[str, ...] = ("turnout.replayer.v1.Replayer",)

    def __init__(self) -> None:
        self.is_ready = True
        self.servicer = Replayer()  # type: ignore[abstract]  # only what these tests call
        self.stopped = False

    def register(self, server: grpc.aio.Server) -> None:
        pb_grpc.add_ReplayerServicer_to_server(self.servicer, server)  # type: ignore[no-untyped-call, unused-ignore]

    @property
    def ready(self) -> bool:
        return self.is_ready

    async def start(self) -> None: ...

    async def stop(self) -> None:
        self.stopped = True


@pytest.fixture
async def app() -> AsyncIterator[tuple[App, Any, str]]:
    app = App()
    server = RpcServer("127.0.0.1:0", [app])
    target = f"127.0.0.1:{await server.start()}"
    channel = connect(target)
    try:
        yield app, pb_grpc.ReplayerStub(channel), target
    finally:
        await channel.close()
        await server.stop()
        assert app.stopped


@pytest.mark.parametrize("name", ERRORS)
async def test_each_domain_error_comes_back_as_itself(app: tuple[App, Any, str], name: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await app[1].GetRun(run_pb2.GetRunRequest(name=name), timeout=5)
    sent, back = ERRORS[name], from_rpc_error(caught.value, "replayer")
    assert caught.value.code() is CODES[type(sent)]
    assert (type(back), back.reason, back.message, back.metadata) == (
        type(sent),
        sent.reason,
        sent.message,
        sent.metadata,
    )
    if isinstance(sent, FailedPrecondition):
        assert isinstance(back, FailedPrecondition)
        assert back.violations == sent.violations


async def test_an_unknown_error_is_masked(app: tuple[App, Any, str], caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await app[1].GetRun(run_pb2.GetRunRequest(name="bug"), timeout=5)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(caught.value.details())
    assert "secret detail" in caplog.text


async def test_streams_are_covered_too(app: tuple[App, Any, str]) -> None:
    call = app[1].WatchRun(run_pb2.WatchRunRequest(name="a"))
    assert (await call.read()).name == "a"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    back = from_rpc_error(caught.value, "replayer")
    assert isinstance(back, FailedPrecondition)
    assert back.violations == GATES


async def test_a_call_without_deadline_is_refused(app: tuple[App, Any, str]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await app[1].GetRun(run_pb2.GetRunRequest(name="a"))
    assert from_rpc_error(caught.value, "replayer").reason == "DEADLINE_REQUIRED"


async def test_a_trace_crosses_the_channel(app: tuple[App, Any, str]) -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    parent = trace.get_current_span(remote_context(traceparent))
    with trace.use_span(parent):
        await app[1].GetRun(run_pb2.GetRunRequest(name="a"), timeout=5)
    assert app[0].servicer.traceparent.split("-")[1] == traceparent.split("-")[1]


async def test_a_service_that_is_away_is_named() -> None:
    async with connect("127.0.0.1:1") as channel:
        stub: Any = pb_grpc.ReplayerStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetRun(run_pb2.GetRunRequest(name="a"), timeout=5)
    back = from_rpc_error(caught.value, "replayer")
    assert isinstance(back, Unavailable)
    assert back.reason == "REPLAYER_UNAVAILABLE"


async def test_health_is_there(app: tuple[App, Any, str]) -> None:
    async with grpc.aio.insecure_channel(app[2]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", *App.service_names):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_health_follows_readiness(app: tuple[App, Any, str]) -> None:
    async with grpc.aio.insecure_channel(app[2]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        async def health(service: str) -> int:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
            return int(answer.status)

        app[0].is_ready = False
        not_serving = health_pb2.HealthCheckResponse.NOT_SERVING

        async def followed() -> bool:
            return bool(await health(App.service_names[0]) == not_serving)

        await eventually(followed, 60)
        assert await health("") == health_pb2.HealthCheckResponse.SERVING


async def test_a_stopping_server_ends_its_watches() -> None:
    server = RpcServer("127.0.0.1:0", [App()])
    async with connect(f"127.0.0.1:{await server.start()}") as channel:
        stub: Any = pb_grpc.ReplayerStub(channel)
        call = stub.WatchRun(run_pb2.WatchRunRequest(name="for ever"))
        assert (await call.read()).name == "for ever"
        # Without an end of its own the watch would hold the server for the whole grace.
        await asyncio.wait_for(server.stop(grace_s=100.0), 20)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert from_rpc_error(caught.value, "replayer").reason == "STOPPING"


async def test_a_service_with_too_much_to_do_refuses_calls_and_no_health_checks() -> None:
    app = App()
    app.calls_max = 2
    server = RpcServer("127.0.0.1:0", [app])
    async with connect(f"127.0.0.1:{await server.start()}") as channel:
        stub: Any = pb_grpc.ReplayerStub(channel)
        watch = stub.WatchRun(run_pb2.WatchRunRequest(name="for ever"))
        assert (await watch.read()).name == "for ever", "a watch takes no place"
        held = [stub.GetRun(run_pb2.GetRunRequest(name="hold"), timeout=20) for _ in range(3)]
        gone = held.pop()

        async def two_hold() -> bool:
            return app.servicer.held == 2

        await eventually(two_hold)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gone
        back = from_rpc_error(caught.value, "replayer")
        assert (type(back), back.reason) == (ResourceExhausted, "OVERLOADED")
        checked = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert checked.status == health_pb2.HealthCheckResponse.SERVING
        held[0].cancel()  # a caller that leaves gives its place back

        async def a_place_again() -> bool:
            try:
                await stub.GetRun(run_pb2.GetRunRequest(name="a"), timeout=5)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                return False
            return True

        await eventually(a_place_again)
        app.servicer.let_go.set()
        assert (await held[1]).name == "hold"
        watch.cancel()
    await server.stop()


async def test_a_taken_port_is_told(app: tuple[App, Any, str]) -> None:
    second = RpcServer(app[2], [App()])
    try:
        with pytest.raises(InvalidInput, match="another process has it"):
            await second.start()
    finally:
        await second.stop()


def test_the_table_of_errors_is_one_to_one() -> None:
    assert len(set(CODES.values())) == len(CODES)
    assert {NotFound, Aborted} <= set(CODES)
