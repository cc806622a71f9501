"""Who uses it: operators who change routes and retire versions, several at once, and readers who never pause."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

import grpc

from services.switcher.questions import ALWAYS_ASKED, ROLLBACK
from tests.simulation.network import channel
from tests.simulation.replayer import Flaw
from tests.simulation.world import FrontHost, World
from turnout.names import VersionId
from turnout.query.v1 import query_pb2, query_pb2_grpc
from turnout.registry.v1 import registry_pb2, registry_pb2_grpc
from turnout.routing import WHOLE
from turnout.status import from_rpc_error
from turnout.switcher.v1 import change_pb2, route_pb2, switcher_pb2_grpc

_CHANGE_S = 5.0
_READ_S = 1.5
GATES = (*ALWAYS_ASKED, ROLLBACK)
_AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class Operator:
    """Gives one command after another; repeats one with the same request id while it does not know what came of it."""

    def __init__(self, world: World, name: str, rng: random.Random) -> None:
        self._world = world
        self._name = name
        self._rng = rng
        self._switcher: Any = switcher_pb2_grpc.SwitcherStub(channel(world.network, "switcher"))
        self._registry: Any = registry_pb2_grpc.RegistryStub(channel(world.network, "registry"))
        self._number = 0
        self._over_heads = 0.0  # how often it changes a route that something owns

    async def begin(self) -> None:
        """The first cutover of each job."""
        for job in sorted(self._world.jobs):
            request = change_pb2.CutOverRouteRequest(name=f"jobs/{job}/route", version=1, override_gates=GATES)
            while await self._change(self._switcher.CutOverRoute, request) is None:
                await asyncio.sleep(0.1)

    async def work(self, until_s: float) -> None:
        loop = self._world.loop
        while loop.time() < until_s:
            await self._one()
            await asyncio.sleep(self._rng.uniform(0.01, 0.5))

    async def _one(self) -> None:
        job = self._rng.choice(sorted(self._world.jobs))
        versions = self._world.jobs[job]
        # Now and then the version without a table, whose fronts must refuse it.
        version = versions + 1 if self._rng.random() < 0.05 else self._rng.randint(1, versions)
        doing = self._rng.choices(
            ["replace", "cut over", "cut over all", "split", "abort", "roll back", "retire", "unretire"],
            [5, 6, 2, 4, 2, 4, 3, 1],
        )[0]
        self._number += 1
        common: dict[str, Any] = {"claimed_actor": self._name, "request_id": f"{self._name}-{self._number}"}
        change: dict[str, Any] = {"name": f"jobs/{job}/route", **common}
        over = list(GATES) if self._rng.random() < 0.5 else []
        head: dict[str, Any] = {"override_owner": self._rng.random() < self._over_heads, **change}
        named = VersionId(job, version).name
        match doing:
            case "cut over":
                request: Any = change_pb2.CutOverRouteRequest(version=version, override_gates=over, **head)
                await self._change(self._switcher.CutOverRoute, request)
            case "replace":
                await self._replace(job, versions, change, common)
            case "cut over all":
                await self._all(common, over)
            case "split":
                await self._split(job, version, head, over)
            case "abort":
                await self._abort(job, head)
            case "roll back":
                await self._change(self._switcher.RollBackRoute, change_pb2.RollBackRouteRequest(**change))
            case "retire":
                route = self._world.checks.newest(job)
                unused = [n for n in range(1, versions + 1) if route is None or n not in route.versions]
                named = VersionId(job, self._rng.choice(unused or [version])).name
                request = registry_pb2.RetireVersionRequest(
                    name=named, forgo_rollback=self._rng.random() < 0.8, **common
                )
                request.retain_for.FromMilliseconds(int(self._rng.choice([0, 0, 0, 2000])))
                await self._call(self._registry.RetireVersion, request)
            case "unretire":
                await self._call(
                    self._registry.UnretireVersion, registry_pb2.UnretireVersionRequest(name=named, **common)
                )

    async def _replace(self, job: str, versions: int, change: dict[str, Any], common: dict[str, Any]) -> None:
        """Cut over, and have the version before dropped at once: the table may be gone while a front still reads it."""
        route = self._world.checks.newest(job)
        if route is None:
            return
        number = route.active_version % versions + 1
        request = change_pb2.CutOverRouteRequest(version=number, override_gates=GATES, **change)
        if await self._change(self._switcher.CutOverRoute, request) is not None:
            name = VersionId(job, route.active_version).name
            retire = registry_pb2.RetireVersionRequest(name=name, forgo_rollback=True, **common)
            retire.retain_for.FromMilliseconds(0)
            await self._call(self._registry.RetireVersion, retire)

    async def _all(self, common: dict[str, Any], over: list[str]) -> None:
        """Every job in one step."""
        request = change_pb2.CutOverRoutesRequest(override_gates=over, **common)
        for job, versions in sorted(self._world.jobs.items()):
            request.cut_overs.add(name=f"jobs/{job}/route", version=self._rng.randint(1, versions))
        answer = await self._call(self._switcher.CutOverRoutes, request)
        for change in [] if answer is None else answer.route_changes:
            self._world.checks.answered(change)

    async def _split(self, job: str, version: int, change: dict[str, Any], over: list[str]) -> None:
        active = await self._active(job)
        if active is None or active == version:
            return
        weight = self._rng.choice([100, 1000, 5000, 9999, WHOLE])
        arms = [
            route_pb2.Arm(version=active, weight=WHOLE - weight),
            route_pb2.Arm(version=version, weight=weight),
        ]
        await self._change(
            self._switcher.SetTraffic, change_pb2.SetTrafficRequest(arms=arms, override_gates=over, **change)
        )

    async def _abort(self, job: str, change: dict[str, Any]) -> None:
        active = await self._active(job)
        if active is None:
            return
        arms = [route_pb2.Arm(version=active, weight=WHOLE)]
        answer = await self._change(self._switcher.SetTraffic, change_pb2.SetTrafficRequest(arms=arms, **change))
        if answer is not None:
            self._world.checks.aborted(answer)

    async def _active(self, job: str) -> int | None:
        request = route_pb2.GetRouteRequest(name=f"jobs/{job}/route")
        route = await self._call(self._switcher.GetRoute, request)
        return None if route is None else int(route.active_version)

    async def _change(self, method: Any, request: Any) -> change_pb2.RouteChange | None:
        answer: change_pb2.RouteChange | None = await self._call(method, request)
        if answer is not None:
            self._world.checks.answered(answer)
        return answer

    async def _call(self, method: Any, request: Any) -> Any:
        for _ in range(self._rng.randint(1, 4)):
            try:
                return await method(request, timeout=_CHANGE_S)
            except grpc.aio.AioRpcError as error:
                said = from_rpc_error(error, "service")
                self._world.checks.count(f"refused {said.reason}")
                if error.code() is grpc.StatusCode.UNKNOWN:
                    self._world.checks.fail(f"{type(request).__name__} was answered by {error.details()}")
                if error.code() not in _AGAIN:
                    return None
            await asyncio.sleep(self._rng.uniform(0.05, 0.5))
        return None


class Reader:
    """Reads one unit of a job after another, with the token of its last answer; a read is one call, and one more on
    another front if that one is away."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._rng = rng
        self._stubs: dict[str, Any] = {}
        self._seen: dict[str, tuple[int, int]] = {}  # of a job: the newest epoch and offset that it was answered by
        self._tokens: dict[str, bytes] = {}
        self.failed = 0

    async def work(self, until_s: float, every_s: float) -> None:
        while self._world.loop.time() < until_s:
            await self.read()
            await asyncio.sleep(self._rng.uniform(0.0, 2 * every_s))

    def forget(self) -> None:
        """Be somebody new, whose reads nothing can be behind of."""
        self._tokens.clear()
        self._seen.clear()

    def _stub(self, host: FrontHost) -> Any:
        if host.name not in self._stubs:
            self._stubs[host.name] = query_pb2_grpc.QueryStub(channel(self._world.network, host.name))
        return self._stubs[host.name]

    async def read(self) -> bool:
        """One read; whether it was answered. A job without a route answers nothing, rightly."""
        job = self._rng.choice(sorted(self._world.jobs))
        unit = f"unit-{self._rng.randrange(1000)}"
        at_least = self._world.checks.adopted.get(job, 0)
        request = query_pb2.GetRequest(job=f"jobs/{job}", unit=unit, token=self._tokens.get(job, b""))
        request.key.values.add(string_value="k")
        fronts = self._rng.sample(self._world.fronts, min(2, len(self._world.fronts)))
        for host in fronts:
            try:
                response = await self._stub(host).Get(request, timeout=_READ_S)
            except grpc.aio.AioRpcError as error:
                if self._refused(error, host, job, at_least):
                    return True
                continue
            self._answered(response, job, unit, at_least if host.heard else 0)
            await self._reported(response, host, VersionId(job, response.served.version))
            return True
        self.failed += 1
        return False

    async def _reported(self, response: Any, host: FrontHost, version: VersionId) -> None:
        """Say that the answer was wrong, where it is one of an experiment: mostly of a version that does harm."""
        harms = self._world.tables.flaws.get(version) is Flaw.HARMS
        if not response.exposure_id or self._rng.random() > (0.9 if harms else 0.02):
            return
        outcome = query_pb2.Outcome(exposure_id=response.exposure_id, error=query_pb2.ErrorOutcome())
        with contextlib.suppress(grpc.aio.AioRpcError):
            request = query_pb2.ReportOutcomesRequest(outcomes=[outcome])
            await self._stub(host).ReportOutcomes(request, timeout=_READ_S)

    def _refused(self, error: grpc.aio.AioRpcError, host: FrontHost, job: str, at_least: int) -> bool:
        """Whether a read was refused rightly. at_least: the epoch that all fronts were said to serve as it began."""
        said = from_rpc_error(error, "front")
        self._world.checks.count(f"read {said.reason}")
        if said.reason == "JOB_NOT_ROUTED":
            if at_least and host.heard:
                self._world.checks.fail(f"{host.name} has no route of {job}")
            return True
        if error.code() not in _AGAIN or said.reason in ("TABLE_MISSING", "TABLE_CHANGING"):
            self._world.checks.fail(
                f"a read of {job} at {host.name} was answered with {said.reason}: {error.details()}"
            )
        return False

    def _answered(self, response: Any, job: str, unit: str, at_least: int) -> None:
        served = response.served
        row = response.row.values[1].int64_value if response.HasField("row") else None
        cause = query_pb2.ServedVersion.Cause.Name(served.cause)
        checks = self._world.checks
        checks.read(job, unit, served.version, served.epoch, cause, row)
        at = sum(position.next_offset for position in served.applied_positions)
        epoch, before = self._seen.get(job, (0, 0))
        if served.epoch < epoch or at < before:
            checks.fail(f"a reader of {job} went back from epoch {epoch}, offset {before} to {served.epoch}, {at}")
        self._seen[job] = (max(served.epoch, epoch), max(at, before))
        self._tokens[job] = response.token
        if served.epoch < at_least:
            checks.fail(
                f"a read of {job} was answered by epoch {served.epoch}; all fronts were said to serve {at_least}"
            )
