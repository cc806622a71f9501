"""The comparison of a candidate with what readers are answered."""

from __future__ import annotations

from collections.abc import Iterable

from turnout.client import convert
from turnout.client.calls import Calls, new_request_id, route_name
from turnout.client.connection import CHANGE_S, QUICK_S
from turnout.results import RouteChange
from turnout.shadow import ShadowReport
from turnout.switcher.v1 import change_pb2, shadow_pb2


class ShadowCalls(Calls):
    """Methods of the switcher that are of shadows."""

    async def set_shadow(
        self,
        job: str,
        version: int,
        share: int,
        *,
        override_gates: Iterable[str] = (),
        override_owner: bool = False,
        etag: str = "",
        validate_only: bool = False,
        reason: str = "",
        timeout_s: float | None = None,
    ) -> RouteChange:
        """Let fronts read a candidate beside the active version for a share of the reads, and compare.

        share: basis points, 1 to 10000 (see `basis_points`). Readers get nothing of it. It asks the gate "schema", and
        ends when another version becomes active. override_owner: also while an experiment or a rollout owns the route,
        which goes on. The others, and errors, as for set_traffic.
        """
        request = shadow_pb2.SetShadowRequest(
            name=route_name(job),
            shadow=shadow_pb2.Shadow(version=version, share=share),
            override_gates=override_gates,
            override_owner=override_owner,
            etag=etag,
            request_id=new_request_id(),
            validate_only=validate_only,
            claimed_actor=self._actor,
            reason=reason,
        )
        return await self._set_shadow(request, timeout_s)

    async def stop_shadow(
        self,
        job: str,
        *,
        override_owner: bool = False,
        etag: str = "",
        reason: str = "",
        timeout_s: float | None = None,
    ) -> RouteChange:
        """Let fronts compare nothing any more; what was counted stays."""
        request = shadow_pb2.SetShadowRequest(
            name=route_name(job),
            override_owner=override_owner,
            etag=etag,
            request_id=new_request_id(),
            claimed_actor=self._actor,
            reason=reason,
        )
        return await self._set_shadow(request, timeout_s)

    async def shadow(self, job: str, *, timeout_s: float | None = None) -> ShadowReport:
        """What was compared, and what that says. NotFound (SHADOW_NOT_FOUND) where nothing is and nothing was."""
        answer = await self._connections.unary(
            "switcher",
            "GetShadow",
            shadow_pb2.GetShadowRequest(name=route_name(job)),
            shadow_pb2.ShadowReport,
            timeout_s=timeout_s,
            default_s=QUICK_S,
        )
        return convert.shadow_report(answer)

    async def _set_shadow(self, request: shadow_pb2.SetShadowRequest, timeout_s: float | None) -> RouteChange:
        answer = await self._connections.unary(
            "switcher", "SetShadow", request, change_pb2.RouteChange, timeout_s=timeout_s, default_s=CHANGE_S
        )
        return convert.route_change(answer)
