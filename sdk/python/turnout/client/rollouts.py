"""Rollouts, and the decisions on them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from turnout.client import rollout_proto as proto
from turnout.client.calls import job_name, new_request_id, pages
from turnout.client.connection import CHANGE_S, QUICK_S
from turnout.client.decisions import DecisionCalls
from turnout.errors import InvalidInput
from turnout.experiments import Replay
from turnout.rollouts import Rollout, RolloutDecision, RolloutPlan
from turnout.switcher.v1 import rollout_pb2


class RolloutCalls(DecisionCalls):
    """Methods of the switcher that are of rollouts."""

    async def create_rollout(
        self,
        job: str,
        rollout: str,
        version: int,
        plan: RolloutPlan,
        *,
        expected_units_per_day: float | None = None,
        expected_risk: float | None = None,
        validate_only: bool = False,
        reason: str = "",
        timeout_s: float | None = None,
    ) -> Rollout:
        """Begin to roll a version out; from then on the rollout owns the job's route and goes by itself.

        plan: `turnout.rollout_file` has templates, and reads files. For what the answer says of each step:
        expected_units_per_day, units that read for the first time in a day, and expected_risk, the part of them that
        errs within its window, 0 to 1; None = as in the job's last experiment. InvalidInput (INVALID_PLAN) with all
        that is wrong; FailedPrecondition (ROUTE_OWNED, ROUTE_SHARED, VERSION_RELEASED); AlreadyExists (ROLLOUT_EXISTS,
        ROLLOUT_RUNS); NotFound (ROUTE_NOT_FOUND, VERSION_NOT_FOUND).
        """
        request = rollout_pb2.CreateRolloutRequest(
            parent=job_name(job),
            rollout_id=rollout,
            rollout=rollout_pb2.Rollout(version=version, plan=proto.plan_message(plan)),
            expected_units_per_day=expected_units_per_day,
            expected_risk=expected_risk,
            request_id=new_request_id(),
            validate_only=validate_only,
            claimed_actor=self._actor,
            reason=reason,
        )
        return await self._rollout("CreateRollout", request, timeout_s, CHANGE_S)

    async def get_rollout(self, job: str, rollout: str, *, timeout_s: float | None = None) -> Rollout:
        """A rollout, what the gates said at its last look, and what it waits for. NotFound (ROLLOUT_NOT_FOUND)."""
        return await self._rollout("GetRollout", rollout_pb2.GetRolloutRequest(name=_name(job, rollout)), timeout_s)

    async def list_rollouts(
        self, job: str | None = None, *, page_size: int = 0, timeout_s: float | None = None
    ) -> AsyncIterator[Rollout]:
        """The rollouts of a job, or of all, newest first. timeout_s: of each request."""
        parent = "jobs/-" if job is None else job_name(job)

        async def fetch(token: str) -> tuple[list[Rollout], str]:
            answer = await self._connections.unary(
                "switcher",
                "ListRollouts",
                rollout_pb2.ListRolloutsRequest(parent=parent, page_size=page_size, page_token=token),
                rollout_pb2.ListRolloutsResponse,
                timeout_s=timeout_s,
                default_s=QUICK_S,
            )
            return [proto.rollout(message) for message in answer.rollouts], answer.next_page_token

        async for one in pages(fetch):
            yield one

    async def watch_rollout(
        self, job: str, rollout: str, *, timeout_s: float | None = None
    ) -> AsyncGenerator[Rollout, None]:
        """The rollout now and after every change, at most once a second, until it is over.

        Goes on when the switcher restarts. timeout_s: how long to try to reach it, then Unavailable.
        Break off with `contextlib.aclosing` around it to end the stream at once.
        """
        stream = self._connections.watch(
            "switcher",
            "WatchRollout",
            rollout_pb2.WatchRolloutRequest(name=_name(job, rollout)),
            rollout_pb2.Rollout,
            timeout_s=timeout_s,
        )
        try:
            async for message in stream:
                yield proto.rollout(message)
        finally:
            await stream.aclose()

    async def pause_rollout(
        self, job: str, rollout: str, *, reason: str = "", timeout_s: float | None = None
    ) -> Rollout:
        """Let nothing move forward; a gate that fails still takes the candidate back. One that is paused stays so.

        FailedPrecondition (ROLLOUT_OVER, ROLLOUT_ROLLING_BACK).
        """
        request = rollout_pb2.PauseRolloutRequest(name=_name(job, rollout), claimed_actor=self._actor, reason=reason)
        return await self._rollout("PauseRollout", request, timeout_s)

    async def resume_rollout(
        self, job: str, rollout: str, *, reason: str = "", timeout_s: float | None = None
    ) -> Rollout:
        """Let a paused rollout go on: what it was paused for is tried again, or passed over for the present step where
        another try would tell nothing new. A route that was changed over its head is taken over again.

        FailedPrecondition (ROLLOUT_OVER, ROLLOUT_ROLLING_BACK).
        """
        request = rollout_pb2.ResumeRolloutRequest(name=_name(job, rollout), claimed_actor=self._actor, reason=reason)
        return await self._rollout("ResumeRollout", request, timeout_s)

    async def promote_rollout(
        self, job: str, rollout: str, step: int, *, reason: str = "", timeout_s: float | None = None
    ) -> Rollout:
        """Pass over what is left to wait for of a step: never over harm, nor over what the step does.

        step: from 1, as in `Rollout.step`; because it is named, saying it twice passes over one.

        InvalidInput (INVALID_STEP); FailedPrecondition (ROLLOUT_OVER, ROLLOUT_ROLLING_BACK, ROLLOUT_NOT_THERE,
        STEP_NOT_TAKEN).
        """
        request = rollout_pb2.PromoteRolloutRequest(
            name=_name(job, rollout), step=step, claimed_actor=self._actor, reason=reason
        )
        return await self._rollout("PromoteRollout", request, timeout_s)

    async def abort_rollout(
        self, job: str, rollout: str, *, reason: str = "", timeout_s: float | None = None
    ) -> Rollout:
        """Take the candidate back, to no unit at all; answers at once. One that is over stays as it is."""
        request = rollout_pb2.AbortRolloutRequest(name=_name(job, rollout), claimed_actor=self._actor, reason=reason)
        return await self._rollout("AbortRollout", request, timeout_s)

    # --- decisions ---

    async def rollout_decisions(
        self, job: str, rollout: str, *, page_size: int = 0, timeout_s: float | None = None
    ) -> AsyncIterator[RolloutDecision]:
        """All that ever became of a rollout, newest first, without the records. timeout_s: of each request."""
        async for one in self._decisions_on(_name(job, rollout), proto.decision, page_size, timeout_s):
            yield one

    async def get_rollout_decision(
        self, job: str, rollout: str, decision: int, *, timeout_s: float | None = None
    ) -> RolloutDecision:
        """One decision with its whole record. NotFound (DECISION_NOT_FOUND)."""
        name = f"{_name(job, rollout)}/decisions/{decision}"
        return proto.decision(await self._decision(name, timeout_s))

    async def replay_rollout_decision(
        self, job: str, rollout: str, decision: int, *, timeout_s: float | None = None
    ) -> Replay:
        """Let the switcher draw a decision's conclusion again from its record, and compare.

        FailedPrecondition (RULES_CHANGED) where another release with other rules made it.
        """
        return await self._decided_again(f"{_name(job, rollout)}/decisions/{decision}", timeout_s)

    async def _rollout(
        self,
        method: str,
        request: rollout_pb2.CreateRolloutRequest
        | rollout_pb2.GetRolloutRequest
        | rollout_pb2.PauseRolloutRequest
        | rollout_pb2.ResumeRolloutRequest
        | rollout_pb2.PromoteRolloutRequest
        | rollout_pb2.AbortRolloutRequest,
        timeout_s: float | None,
        default_s: float = QUICK_S,
    ) -> Rollout:
        return proto.rollout(
            await self._connections.unary(
                "switcher", method, request, rollout_pb2.Rollout, timeout_s=timeout_s, default_s=default_s
            )
        )


def _name(job: str, rollout: str) -> str:
    if not rollout or "/" in rollout:
        raise InvalidInput("INVALID_NAME", f"{rollout!r} is not the id of a rollout.")
    return f"{job_name(job)}/rollouts/{rollout}"
