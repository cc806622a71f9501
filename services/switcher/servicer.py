"""The gRPC edge: check the form, call, convert."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

import grpc

from core.domain.paging import from_token, page_of, page_size
from core.domain.text import ID_MAX, text
from services.switcher import convert
from services.switcher.change import Changes, Order
from services.switcher.experiments.servicer import ExperimentParts
from services.switcher.presence import FrontStore
from services.switcher.readiness import RollbackReadiness
from services.switcher.records import CommandKind
from services.switcher.releases import ReleaseStore
from services.switcher.rollouts.servicer import RolloutMethods, RolloutParts
from services.switcher.shadow_store import ShadowStore
from services.switcher.store import RouteStore
from services.switcher.switch import CutOver, Reinstate, Release, RequireGates, RollBack, SetShadow, SetTraffic
from services.switcher.watch import Watch
from turnout.errors import NotFound, Unavailable
from turnout.names import parse_route, parse_version
from turnout.shadow import Shadow
from turnout.switcher.v1 import change_pb2, front_pb2, release_pb2, route_pb2, shadow_pb2

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Parts:
    """What the servicer calls; there once the app has started."""

    store: RouteStore
    changes: Changes
    releases: ReleaseStore
    readiness: RollbackReadiness
    watch: Watch
    fronts: FrontStore
    experiments: ExperimentParts
    rollouts: RolloutParts
    shadows: ShadowStore


class SwitcherServicer(RolloutMethods):
    """turnout.switcher.v1.Switcher"""

    def __init__(self) -> None:
        self.started: Parts | None = None

    @property
    def _parts(self) -> Parts:
        if self.started is None:
            raise Unavailable("SWITCHER_STARTING", "The switcher is starting; try again.")
        return self.started

    @property
    def experiment_parts(self) -> ExperimentParts:
        return self._parts.experiments

    @property
    def rollout_parts(self) -> RolloutParts:
        return self._parts.rollouts

    async def GetRoute(self, request: route_pb2.GetRouteRequest, context: Context) -> route_pb2.Route:
        job = parse_route(request.name)
        record = await self._parts.store.read(job)
        if record.state.route is None:
            raise NotFound("ROUTE_NOT_FOUND", f"{job} has no route yet: its first cutover creates it.")
        return convert.route_record_message(record)

    async def ListRoutes(self, request: route_pb2.ListRoutesRequest, context: Context) -> route_pb2.ListRoutesResponse:
        size, after = page_size(request.page_size), from_token(request.page_token, "routes")
        records = await self._parts.store.list_routes(after or "", size + 1)
        records, token = page_of(records, size, "routes", lambda record: record.state.job)
        routes = [convert.route_record_message(record) for record in records]
        return route_pb2.ListRoutesResponse(routes=routes, next_page_token=token)

    async def SetTraffic(self, request: change_pb2.SetTrafficRequest, context: Context) -> change_pb2.RouteChange:
        weights = tuple((arm.version, arm.weight) for arm in request.arms)
        gates = tuple(request.override_gates), request.etag, tuple(request.require_gates)
        order = parse_route(request.name), SetTraffic(weights, *gates, request.override_owner)
        return await self._change_one(CommandKind.SET_TRAFFIC, order, request, context)

    async def CutOverRoute(self, request: change_pb2.CutOverRouteRequest, context: Context) -> change_pb2.RouteChange:
        gates = tuple(request.override_gates), request.etag, tuple(request.require_gates)
        order = parse_route(request.name), CutOver(request.version, *gates, request.override_owner)
        return await self._change_one(CommandKind.CUT_OVER, order, request, context)

    async def CutOverRoutes(
        self, request: change_pb2.CutOverRoutesRequest, context: Context
    ) -> change_pb2.CutOverRoutesResponse:
        changes = await self._change(CommandKind.CUT_OVER, convert.orders_of(request), request, context)
        return change_pb2.CutOverRoutesResponse(route_changes=changes)

    async def RollBackRoute(self, request: change_pb2.RollBackRouteRequest, context: Context) -> change_pb2.RouteChange:
        order = parse_route(request.name), RollBack(request.etag)
        return await self._change_one(CommandKind.ROLL_BACK, order, request, context)

    async def RollBackRoutes(
        self, request: change_pb2.RollBackRoutesRequest, context: Context
    ) -> change_pb2.RollBackRoutesResponse:
        changes = await self._change(CommandKind.ROLL_BACK, convert.orders_of(request), request, context)
        return change_pb2.RollBackRoutesResponse(route_changes=changes)

    async def SetShadow(self, request: shadow_pb2.SetShadowRequest, context: Context) -> change_pb2.RouteChange:
        shadow = Shadow(request.shadow.version, request.shadow.share) if request.HasField("shadow") else None
        command = SetShadow(shadow, tuple(request.override_gates), request.etag, request.override_owner)
        order = parse_route(request.name), command
        return await self._change_one(CommandKind.SET_SHADOW, order, request, context)

    async def RequireGates(self, request: change_pb2.RequireGatesRequest, context: Context) -> change_pb2.RouteChange:
        order = parse_route(request.name), RequireGates(tuple(request.gates), request.etag)
        return await self._change_one(CommandKind.REQUIRE_GATES, order, request, context)

    async def GetShadow(self, request: shadow_pb2.GetShadowRequest, context: Context) -> shadow_pb2.ShadowReport:
        return convert.shadow_report_message(await self._parts.shadows.report(parse_route(request.name)))

    async def RecordShadowCounts(
        self, request: shadow_pb2.RecordShadowCountsRequest, context: Context
    ) -> shadow_pb2.RecordShadowCountsResponse:
        front, source = text(request.front, "front", ID_MAX), text(request.source, "source", ID_MAX)
        await self._parts.shadows.record(front, source, convert.shadow_tallies_of(request))
        return shadow_pb2.RecordShadowCountsResponse()

    async def GetRollbackReadiness(
        self, request: change_pb2.GetRollbackReadinessRequest, context: Context
    ) -> change_pb2.RollbackReadiness:
        job = parse_route(request.name)
        return convert.readiness_message(job, await self._parts.readiness.of(job))

    async def ReleaseVersion(self, request: release_pb2.ReleaseVersionRequest, context: Context) -> release_pb2.Release:
        version = parse_version(request.version)
        actor = text(request.claimed_actor, "claimed_actor", ID_MAX)
        releases = self._parts.releases
        await releases.release(version.job, Release(version.number, request.forgo_rollback), actor)
        progress = await releases.progress(version.job, version.number)
        return convert.release_message(version.name, *progress)

    async def ReinstateVersion(
        self, request: release_pb2.ReinstateVersionRequest, context: Context
    ) -> release_pb2.ReinstateVersionResponse:
        version = parse_version(request.version)
        actor = text(request.claimed_actor, "claimed_actor", ID_MAX)
        await self._parts.releases.reinstate(version.job, Reinstate(version.number), actor)
        return release_pb2.ReinstateVersionResponse()

    async def WatchRoutes(
        self, request_iterator: AsyncIterator[front_pb2.WatchRoutesRequest], context: Context
    ) -> AsyncIterator[front_pb2.WatchRoutesResponse]:  # the snapshot comes encoded
        def whole() -> bool:
            return not context.cancelled() and not context.done()

        async with aclosing(self._parts.watch.serve(request_iterator, whole)) as responses:
            async for response in responses:
                yield cast(front_pb2.WatchRoutesResponse, response)

    async def ListRouteChanges(
        self, request: change_pb2.ListRouteChangesRequest, context: Context
    ) -> change_pb2.ListRouteChangesResponse:
        job, size = parse_route(request.parent), page_size(request.page_size)
        last = from_token(request.page_token, request.parent)
        records = await self._parts.store.list_changes(job, int(last) if last else None, size + 1)
        records, token = page_of(records, size, request.parent, lambda record: record.route.epoch)
        changes = [convert.change_message(record) for record in records]
        return change_pb2.ListRouteChangesResponse(route_changes=changes, next_page_token=token)

    async def GetReadLoad(
        self, request: front_pb2.GetReadLoadRequest, context: Context
    ) -> front_pb2.GetReadLoadResponse:
        return convert.read_load_message(await self._parts.fronts.read_load())

    async def _change_one(
        self, kind: CommandKind, order: Order, request: convert.ChangeRequest, context: Context
    ) -> change_pb2.RouteChange:
        (change,) = await self._change(kind, [order], request, context)
        return change

    async def _change(
        self, kind: CommandKind, orders: Sequence[Order], request: convert.ChangeRequest, context: Context
    ) -> list[change_pb2.RouteChange]:
        await context.send_initial_metadata(())  # a client goes to another switcher where it hears nothing soon
        return await self._parts.changes.change(
            orders,
            convert.intent_of(kind, request),
            validate_only=request.validate_only,
            time_left_s=context.time_remaining() or 0.0,
        )
