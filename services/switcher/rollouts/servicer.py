"""The gRPC edge of rollouts: check the form, call, convert."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import grpc

from core.domain.paging import from_token, page_of, page_size
from core.domain.text import ID_MAX, TEXT_MAX, text
from services.switcher.experiments.convert import intent_of
from services.switcher.experiments.servicer import ExperimentMethods, replayed
from services.switcher.names import ROLLOUTS, parse_parent
from services.switcher.records import CommandKind
from services.switcher.rollouts import convert
from services.switcher.rollouts.conducting import Asked, Rollouts
from services.switcher.rollouts.record import recomputed
from services.switcher.rollouts.store import RolloutStore
from turnout.switcher.v1 import decision_pb2, rollout_pb2

Context = grpc.aio.ServicerContext[Any, Any]
Verb = (
    rollout_pb2.PauseRolloutRequest
    | rollout_pb2.ResumeRolloutRequest
    | rollout_pb2.PromoteRolloutRequest
    | rollout_pb2.AbortRolloutRequest
)
_WATCH_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class RolloutParts:
    """What the methods call."""

    store: RolloutStore
    rollouts: Rollouts


class RolloutMethods(ExperimentMethods):
    """The methods of turnout.switcher.v1.Switcher that are of rollouts, or of both."""

    @property
    def rollout_parts(self) -> RolloutParts:
        """What the methods call; Unavailable while the switcher starts."""
        raise NotImplementedError

    async def CreateRollout(self, request: rollout_pb2.CreateRolloutRequest, context: Context) -> rollout_pb2.Rollout:
        job = parse_parent(request.parent)
        name = ROLLOUTS.name(job, request.rollout_id)
        ROLLOUTS.parse(name)
        units_per_day, risk = convert.expected_of(request)
        asked = Asked(
            job=job,
            rollout_id=request.rollout_id,
            version=request.rollout.version,
            plan=convert.plan_of(request.rollout.plan),
            units_per_day=units_per_day,
            risk=risk,
        )
        intent = intent_of(CommandKind.ROLL_OUT, request)
        made = await self.rollout_parts.rollouts.create(asked, intent, validate_only=request.validate_only)
        if made.stored is None:
            message = convert.checked_message(name, made.rollout)
        else:
            message = convert.rollout_message(made.stored)
        return convert.add_foreseen(message, made.foreseen)

    async def GetRollout(self, request: rollout_pb2.GetRolloutRequest, context: Context) -> rollout_pb2.Rollout:
        return convert.rollout_message(await self.rollout_parts.store.read(*ROLLOUTS.parse(request.name)))

    async def ListRollouts(
        self, request: rollout_pb2.ListRolloutsRequest, context: Context
    ) -> rollout_pb2.ListRolloutsResponse:
        job = parse_parent(request.parent, all_jobs=True)
        size, last = page_size(request.page_size), from_token(request.page_token, request.parent)
        found = await self.rollout_parts.store.list_rollouts(job, int(last) if last else None, size + 1)
        found, token = page_of(found, size, request.parent, lambda stored: stored.number)
        rollouts = [convert.rollout_message(stored) for stored in found]
        return rollout_pb2.ListRolloutsResponse(rollouts=rollouts, next_page_token=token)

    async def WatchRollout(
        self, request: rollout_pb2.WatchRolloutRequest, context: Context
    ) -> AsyncIterator[rollout_pb2.Rollout]:
        job, rollout = ROLLOUTS.parse(request.name)
        sent: rollout_pb2.Rollout | None = None
        while True:
            stored = await self.rollout_parts.store.read(job, rollout)
            message = convert.rollout_message(stored)
            if message != sent:
                yield message
            if stored.rollout.state.over:
                return
            sent = message
            await asyncio.sleep(_WATCH_EVERY_S)

    async def PauseRollout(self, request: rollout_pb2.PauseRolloutRequest, context: Context) -> rollout_pb2.Rollout:
        return await self._say("PAUSE", request)

    async def ResumeRollout(self, request: rollout_pb2.ResumeRolloutRequest, context: Context) -> rollout_pb2.Rollout:
        return await self._say("RESUME", request)

    async def PromoteRollout(self, request: rollout_pb2.PromoteRolloutRequest, context: Context) -> rollout_pb2.Rollout:
        return await self._say("PROMOTE", request, request.step - 1)

    async def AbortRollout(self, request: rollout_pb2.AbortRolloutRequest, context: Context) -> rollout_pb2.Rollout:
        return await self._say("ABORT", request)

    async def ListDecisions(
        self, request: decision_pb2.ListDecisionsRequest, context: Context
    ) -> decision_pb2.ListDecisionsResponse:
        if not ROLLOUTS.holds(request.parent):
            return await super().ListDecisions(request, context)
        job, rollout = ROLLOUTS.parse(request.parent)
        size, last = page_size(request.page_size), from_token(request.page_token, request.parent)
        store = self.rollout_parts.store
        await store.read(job, rollout)
        rows = await store.list_decisions(job, rollout, int(last) if last else None, size + 1)
        rows, token = page_of(rows, size, request.parent, lambda row: row.decision)
        decisions = [convert.decision_message(row, whole=False) for row in rows]
        return decision_pb2.ListDecisionsResponse(decisions=decisions, next_page_token=token)

    async def GetDecision(self, request: decision_pb2.GetDecisionRequest, context: Context) -> decision_pb2.Decision:
        if not ROLLOUTS.holds(request.name):
            return await super().GetDecision(request, context)
        row = await self.rollout_parts.store.decision(*ROLLOUTS.parse_decision(request.name))
        return convert.decision_message(row, whole=True)

    async def ReplayDecision(
        self, request: decision_pb2.ReplayDecisionRequest, context: Context
    ) -> decision_pb2.ReplayDecisionResponse:
        if not ROLLOUTS.holds(request.name):
            return await super().ReplayDecision(request, context)
        row = await self.rollout_parts.store.decision(*ROLLOUTS.parse_decision(request.name))
        return replayed(row.record, recomputed)

    async def _say(self, verb: str, request: Verb, place: int = 0) -> rollout_pb2.Rollout:
        job, rollout = ROLLOUTS.parse(request.name)
        actor = text(request.claimed_actor, "claimed_actor", ID_MAX)
        reason = text(request.reason, "reason", TEXT_MAX)
        return convert.rollout_message(
            await self.rollout_parts.rollouts.say(job, rollout, verb, place, (actor, reason))
        )
