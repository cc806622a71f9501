"""Routes and their changes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from decimal import Decimal
from typing import Any

from turnout.client import convert
from turnout.client.calls import Calls, new_request_id, pages, route_name
from turnout.client.connection import CHANGE_S, QUICK_S
from turnout.errors import InvalidInput
from turnout.readiness import RollbackReadiness
from turnout.results import Route, RouteChange
from turnout.switcher.v1 import change_pb2, route_pb2


def basis_points(percent: Decimal | float) -> int:
    """A percentage as basis points: 12.5 -> 1250. InvalidInput outside 0 to 100 or finer than a hundredth."""
    points = Decimal(str(percent)) * 100
    if not points.is_finite() or not 0 <= points <= 10_000:
        raise InvalidInput("INVALID_WEIGHT", f"{percent} % is not a share; use 0 to 100.")
    if points != int(points):
        raise InvalidInput("INVALID_WEIGHT", f"{percent} % is finer than 0.01 %, the smallest share.")
    return int(points)


class SwitcherCalls(Calls):
    """Methods of the switcher."""

    async def route(self, job: str, *, timeout_s: float | None = None) -> Route:
        """Which version serves which share of readers. NotFound (ROUTE_NOT_FOUND) before the first cutover."""
        return convert.route(
            await self._connections.unary(
                "switcher",
                "GetRoute",
                route_pb2.GetRouteRequest(name=route_name(job)),
                route_pb2.Route,
                timeout_s=timeout_s,
                default_s=QUICK_S,
            )
        )

    async def routes(self, *, page_size: int = 0, timeout_s: float | None = None) -> AsyncIterator[Route]:
        """All routes, ordered by name. timeout_s: of each request."""

        async def fetch(token: str) -> tuple[list[Route], str]:
            answer = await self._connections.unary(
                "switcher",
                "ListRoutes",
                route_pb2.ListRoutesRequest(page_size=page_size, page_token=token),
                route_pb2.ListRoutesResponse,
                timeout_s=timeout_s,
                default_s=QUICK_S,
            )
            return [convert.route(message) for message in answer.routes], answer.next_page_token

        async for route in pages(fetch):
            yield route

    async def set_traffic(
        self,
        job: str,
        weights: Mapping[int, int],
        *,
        override_gates: Iterable[str] = (),
        require_gates: Iterable[str] = (),
        override_owner: bool = False,
        etag: str = "",
        validate_only: bool = False,
        reason: str = "",
        timeout_s: float | None = None,
    ) -> RouteChange:
        """Give each version its share: weights of version -> basis points, summing to 10000 (see `basis_points`).

        A version left out gets 0; the active version stays active. etag: of the route the change rests on, Aborted
        (STALE_ETAG) when it has moved on; "" = whatever it is now. validate_only: ask the gates, change nothing.
        FailedPrecondition lists each failed gate with its evidence; override_gates passes over gates by name, and
        require_gates demands more, as the method of that name does for all changes: "comparison", that a stored
        comparison shows no difference but those expected, and "shadow", that live reads were compared and show none.
        override_owner: also while an experiment or a rollout owns the route (ROUTE_OWNED); weights among its arms let
        it go on, whatever else ends it.
        """
        for version, weight in weights.items():
            if isinstance(weight, bool) or not isinstance(weight, int):
                raise InvalidInput(
                    "INVALID_WEIGHT",
                    f"The weight of v{version} is {weight!r}; use whole basis points, such as basis_points(12.5).",
                )
        request = change_pb2.SetTrafficRequest(
            name=route_name(job),
            arms=[route_pb2.Arm(version=version, weight=weight) for version, weight in weights.items()],
            override_gates=override_gates,
            require_gates=require_gates,
            override_owner=override_owner,
            etag=etag,
            request_id=new_request_id(),
            validate_only=validate_only,
            claimed_actor=self._actor,
            reason=reason,
        )
        return await self._change("SetTraffic", request, timeout_s)

    async def cut_over(
        self,
        job: str,
        version: int,
        *,
        override_gates: Iterable[str] = (),
        require_gates: Iterable[str] = (),
        override_owner: bool = False,
        etag: str = "",
        validate_only: bool = False,
        reason: str = "",
        timeout_s: float | None = None,
    ) -> RouteChange:
        """Make a version the active one with all the traffic; the first call for a job creates its route.

        Parameters and errors as for set_traffic; also Aborted (NOT_PREPARED) when a front could not follow. The gate
        "rollback" fails where one could not come back to what readers have now.
        """
        request = change_pb2.CutOverRouteRequest(
            name=route_name(job),
            version=version,
            override_gates=override_gates,
            require_gates=require_gates,
            override_owner=override_owner,
            etag=etag,
            request_id=new_request_id(),
            validate_only=validate_only,
            claimed_actor=self._actor,
            reason=reason,
        )
        return await self._change("CutOverRoute", request, timeout_s)

    async def cut_over_many(
        self,
        versions: Mapping[str, int],
        *,
        override_gates: Iterable[str] = (),
        require_gates: Iterable[str] = (),
        etags: Mapping[str, str] | None = None,
        validate_only: bool = False,
        reason: str = "",
        timeout_s: float | None = None,
    ) -> tuple[RouteChange, ...]:
        """Make a version of each of these jobs the active one, all in one step or none; the changes, by job.

        versions: job -> version. Parameters and errors as for cut_over, for each of the jobs; etags: job -> etag. A
        read that brings the token of one from after the step is answered from after it, whatever its job.
        """
        known = etags or {}
        request = change_pb2.CutOverRoutesRequest(
            cut_overs=[
                change_pb2.CutOver(name=route_name(job), version=version, etag=known.get(job, ""))
                for job, version in versions.items()
            ],
            override_gates=override_gates,
            require_gates=require_gates,
            request_id=new_request_id(),
            validate_only=validate_only,
            claimed_actor=self._actor,
            reason=reason,
        )
        answer = await self._connections.unary(
            "switcher",
            "CutOverRoutes",
            request,
            change_pb2.CutOverRoutesResponse,
            timeout_s=timeout_s,
            default_s=CHANGE_S,
        )
        return tuple(convert.route_change(change) for change in answer.route_changes)

    async def roll_back_many(
        self,
        jobs: Iterable[str],
        *,
        etags: Mapping[str, str] | None = None,
        validate_only: bool = False,
        reason: str = "",
        timeout_s: float | None = None,
    ) -> tuple[RouteChange, ...]:
        """Restore the routes of these jobs as they were before their last cutovers, all in one step or none."""
        known = etags or {}
        request = change_pb2.RollBackRoutesRequest(
            roll_backs=[change_pb2.RollBack(name=route_name(job), etag=known.get(job, "")) for job in jobs],
            request_id=new_request_id(),
            validate_only=validate_only,
            claimed_actor=self._actor,
            reason=reason,
        )
        answer = await self._connections.unary(
            "switcher",
            "RollBackRoutes",
            request,
            change_pb2.RollBackRoutesResponse,
            timeout_s=timeout_s,
            default_s=CHANGE_S,
        )
        return tuple(convert.route_change(change) for change in answer.route_changes)

    async def require_gates(
        self,
        job: str,
        gates: Iterable[str],
        *,
        etag: str = "",
        validate_only: bool = False,
        reason: str = "",
        timeout_s: float | None = None,
    ) -> RouteChange:
        """Demand these gates of every later change of the route, instead of those that it demands now; none = no more.

        They are "comparison" and "shadow", asked at each growth of a weight and each cutover, passed over by name as
        any other. Parameters and errors as for set_traffic.
        """
        request = change_pb2.RequireGatesRequest(
            name=route_name(job),
            gates=gates,
            etag=etag,
            request_id=new_request_id(),
            validate_only=validate_only,
            claimed_actor=self._actor,
            reason=reason,
        )
        return await self._change("RequireGates", request, timeout_s)

    async def rollback_readiness(self, job: str, *, timeout_s: float | None = None) -> RollbackReadiness:
        """Whether roll_back would be accepted now, and how stale what readers would return to is. Changes nothing."""
        return convert.rollback_readiness(
            await self._connections.unary(
                "switcher",
                "GetRollbackReadiness",
                change_pb2.GetRollbackReadinessRequest(name=route_name(job)),
                change_pb2.RollbackReadiness,
                timeout_s=timeout_s,
                default_s=QUICK_S,
            )
        )

    async def roll_back(
        self,
        job: str,
        *,
        etag: str = "",
        validate_only: bool = False,
        reason: str = "",
        timeout_s: float | None = None,
    ) -> RouteChange:
        """Restore the route as it was before the last cutover; how stale that is stands in the answer's warnings.

        Where an experiment or a rollout owned the route then, the active version alone: its split does not come back.
        """
        request = change_pb2.RollBackRouteRequest(
            name=route_name(job),
            etag=etag,
            request_id=new_request_id(),
            validate_only=validate_only,
            claimed_actor=self._actor,
            reason=reason,
        )
        return await self._change("RollBackRoute", request, timeout_s)

    async def route_changes(
        self, job: str, *, page_size: int = 0, timeout_s: float | None = None
    ) -> AsyncIterator[RouteChange]:
        """The audit of a route, newest first. timeout_s: of each request."""
        parent = route_name(job)

        async def fetch(token: str) -> tuple[list[RouteChange], str]:
            answer = await self._connections.unary(
                "switcher",
                "ListRouteChanges",
                change_pb2.ListRouteChangesRequest(parent=parent, page_size=page_size, page_token=token),
                change_pb2.ListRouteChangesResponse,
                timeout_s=timeout_s,
                default_s=QUICK_S,
            )
            return [convert.route_change(message) for message in answer.route_changes], answer.next_page_token

        async for change in pages(fetch):
            yield change

    async def _change(self, method: str, request: Any, timeout_s: float | None) -> RouteChange:
        return convert.route_change(
            await self._connections.unary(
                "switcher", method, request, change_pb2.RouteChange, timeout_s=timeout_s, default_s=CHANGE_S
            )
        )
