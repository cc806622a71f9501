"""A real switcher on a real database, beside a replayer on demand."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from core.config import Settings
from core.kafka.properties import KafkaConfig
from core.rpc.server import RpcServer
from services.switcher.app import build
from services.switcher.barrier import Limits
from tests.integration.switcher.front import Front
from tests.integration.switcher.patience import LEASE_S, PATIENCE
from tests.integration.switcher.registry import RegistryOnDemand
from tests.integration.switcher.replayer import ReplayerOnDemand
from tests.support.eventually import eventually
from turnout.channel import connect
from turnout.switcher.v1 import change_pb2, release_pb2, route_pb2
from turnout.switcher.v1 import switcher_pb2_grpc as rpc

ROUTE = "jobs/carrier-punctuality/route"
V1, V2, V3 = (f"jobs/carrier-punctuality/versions/{n}" for n in (1, 2, 3))
TIMEOUT_S = 20.0

MakeFront = Callable[[str], Awaitable[Front]]


@dataclass
class Switcher:
    """A running switcher, as a client sees it."""

    target: str
    stub: Any

    async def cut_over(self, version: int, **fields: Any) -> change_pb2.RouteChange:
        request = change_pb2.CutOverRouteRequest(name=ROUTE, version=version, **fields)
        change: change_pb2.RouteChange = await self.stub.CutOverRoute(request, timeout=TIMEOUT_S)
        return change

    async def set_traffic(self, weights: dict[int, int], **fields: Any) -> change_pb2.RouteChange:
        arms = [route_pb2.Arm(version=version, weight=weight) for version, weight in weights.items()]
        request = change_pb2.SetTrafficRequest(name=ROUTE, arms=arms, **fields)
        change: change_pb2.RouteChange = await self.stub.SetTraffic(request, timeout=TIMEOUT_S)
        return change

    async def require_gates(self, *gates: str) -> change_pb2.RouteChange:
        request = change_pb2.RequireGatesRequest(name=ROUTE, gates=gates)
        change: change_pb2.RouteChange = await self.stub.RequireGates(request, timeout=TIMEOUT_S)
        return change

    async def roll_back(self, **fields: Any) -> change_pb2.RouteChange:
        request = change_pb2.RollBackRouteRequest(name=ROUTE, **fields)
        change: change_pb2.RouteChange = await self.stub.RollBackRoute(request, timeout=TIMEOUT_S)
        return change

    async def cut_over_many(self, versions: dict[str, int], **fields: Any) -> list[change_pb2.RouteChange]:
        cut_overs = [change_pb2.CutOver(name=f"jobs/{job}/route", version=version) for job, version in versions.items()]
        request = change_pb2.CutOverRoutesRequest(cut_overs=cut_overs, **fields)
        return list((await self.stub.CutOverRoutes(request, timeout=TIMEOUT_S)).route_changes)

    async def roll_back_many(self, *jobs: str, **fields: Any) -> list[change_pb2.RouteChange]:
        request = change_pb2.RollBackRoutesRequest(
            roll_backs=[change_pb2.RollBack(name=f"jobs/{job}/route") for job in jobs], **fields
        )
        return list((await self.stub.RollBackRoutes(request, timeout=TIMEOUT_S)).route_changes)

    async def readiness(self) -> change_pb2.RollbackReadiness:
        request = change_pb2.GetRollbackReadinessRequest(name=ROUTE)
        found: change_pb2.RollbackReadiness = await self.stub.GetRollbackReadiness(request, timeout=TIMEOUT_S)
        return found

    async def route(self, name: str = ROUTE) -> route_pb2.Route:
        route: route_pb2.Route = await self.stub.GetRoute(route_pb2.GetRouteRequest(name=name), timeout=TIMEOUT_S)
        return route

    async def release(self, version: str, **fields: Any) -> release_pb2.Release:
        request = release_pb2.ReleaseVersionRequest(version=version, **fields)
        release: release_pb2.Release = await self.stub.ReleaseVersion(request, timeout=TIMEOUT_S)
        return release

    async def reinstate(self, version: str, **fields: Any) -> None:
        request = release_pb2.ReinstateVersionRequest(version=version, **fields)
        await self.stub.ReinstateVersion(request, timeout=TIMEOUT_S)

    async def changes(self, **fields: Any) -> change_pb2.ListRouteChangesResponse:
        request = change_pb2.ListRouteChangesRequest(parent=ROUTE, **fields)
        page: change_pb2.ListRouteChangesResponse = await self.stub.ListRouteChanges(request, timeout=TIMEOUT_S)
        return page


StartSwitcher = Callable[..., Awaitable[Switcher]]


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is given up because a process of the test stood still."""
    for name, value in PATIENCE.items():
        monkeypatch.setattr(name, value)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, _patience: None) -> None:
    """For a test that waits for what is given up: as soon as by default."""
    monkeypatch.setattr("services.switcher.app.Limits", Limits)
    monkeypatch.setattr("services.switcher.replayer_client._RUN_TIMEOUT_S", 1.0)


@pytest.fixture
async def replayer() -> AsyncIterator[ReplayerOnDemand]:
    """Stands in for the replayer."""
    replayer = ReplayerOnDemand()  # type: ignore[abstract]  # the methods that the switcher calls
    await replayer.start()
    yield replayer
    await replayer.stop()


@pytest.fixture
async def registry() -> AsyncIterator[RegistryOnDemand]:
    """Stands in for the registry."""
    registry = RegistryOnDemand()  # type: ignore[abstract]  # the methods that the switcher calls
    await registry.start()
    yield registry
    await registry.stop()


@pytest.fixture
async def start_switcher(
    postgres: str, replayer: ReplayerOnDemand, registry: RegistryOnDemand, tmp_path: Path
) -> AsyncIterator[StartSwitcher]:
    """Start a switcher on the test's database; keyword arguments change its settings."""
    async with AsyncExitStack() as ending:

        async def start(**changed: Any) -> Switcher:
            settings = Settings(
                listen="127.0.0.1:0",
                kafka=KafkaConfig.of_bootstrap("127.0.0.1:1"),
                postgres=postgres,
                data_dir=tmp_path,
                registry_target=registry.target,
                replayer_target=replayer.target,
                switcher_target="127.0.0.1:1",
            )
            server = RpcServer(settings.listen, [build(replace(settings, **changed))])
            ending.push_async_callback(server.stop, 0.1)
            target = f"127.0.0.1:{await server.start()}"
            channel = connect(target)
            ending.push_async_callback(channel.close)
            return Switcher(target, rpc.SwitcherStub(channel))

        yield start


@pytest.fixture
async def switcher(start_switcher: StartSwitcher) -> Switcher:
    """A switcher."""
    return await start_switcher(reader_lease_s=LEASE_S)


@pytest.fixture
async def make_front(switcher: Switcher) -> AsyncIterator[MakeFront]:
    """Start a front; it dies after the test."""
    async with AsyncExitStack() as ending:

        async def make(name: str) -> Front:
            front = Front(switcher.target, name)
            ending.push_async_callback(front.die)
            return await front.start()

        yield make


@pytest.fixture
async def database(postgres: str) -> AsyncIterator[Any]:
    """A connection to the test's database, to look and to disturb."""
    connection = await asyncpg.connect(postgres)
    yield connection
    await connection.close()


async def lease_is_over(database: Any, front: str) -> None:
    """Let the lease of a front that does not speak any more run out now: it may be long."""

    async def over() -> bool:
        expires = "update switcher.reader_leases set expires = clock_timestamp() where front = $1"
        await database.execute(expires, front)  # again, should what it said last be heard only now
        live = "select expires > clock_timestamp() from switcher.reader_leases where front = $1"
        return not await database.fetchval(live, front)

    await eventually(over)


@dataclass
class Refusal:
    """Why a call failed, as a client sees it."""

    code: grpc.StatusCode
    reason: str
    message: str
    violations: list[tuple[str, str, str]]


async def refused(call: Awaitable[Any]) -> Refusal:
    """The refusal of a call, which must not succeed."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = rpc_status.from_call(caught.value)
    assert status is not None, caught.value.details()
    info, failure = error_details_pb2.ErrorInfo(), error_details_pb2.PreconditionFailure()
    request = error_details_pb2.BadRequest()
    for detail in status.details:
        _ = detail.Unpack(info) or detail.Unpack(failure) or detail.Unpack(request)
    assert info.domain == "turnout"
    violations = [(v.type, v.subject, v.description) for v in failure.violations]
    violations += [(v.reason, v.field, v.description) for v in request.field_violations]
    return Refusal(caught.value.code(), info.reason, caught.value.details() or "", violations)
