"""What the decisions on an experiment and those on a rollout have in common: how they are asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from turnout.client.calls import Calls, pages
from turnout.client.connection import QUICK_S
from turnout.experiments import Replay
from turnout.switcher.v1 import decision_pb2

D = TypeVar("D")


class DecisionCalls(Calls):
    """Decisions, by the name of what they are on (`parent`), or by their own."""

    async def _decisions_on(
        self, parent: str, decision: Callable[[decision_pb2.Decision], D], page_size: int, timeout_s: float | None
    ) -> AsyncIterator[D]:
        async def fetch(token: str) -> tuple[list[D], str]:
            answer = await self._connections.unary(
                "switcher",
                "ListDecisions",
                decision_pb2.ListDecisionsRequest(parent=parent, page_size=page_size, page_token=token),
                decision_pb2.ListDecisionsResponse,
                timeout_s=timeout_s,
                default_s=QUICK_S,
            )
            return [decision(message) for message in answer.decisions], answer.next_page_token

        async for one in pages(fetch):
            yield one

    async def _decision(self, name: str, timeout_s: float | None) -> decision_pb2.Decision:
        return await self._connections.unary(
            "switcher",
            "GetDecision",
            decision_pb2.GetDecisionRequest(name=name),
            decision_pb2.Decision,
            timeout_s=timeout_s,
            default_s=QUICK_S,
        )

    async def _decided_again(self, name: str, timeout_s: float | None) -> Replay:
        answer = await self._connections.unary(
            "switcher",
            "ReplayDecision",
            decision_pb2.ReplayDecisionRequest(name=name),
            decision_pb2.ReplayDecisionResponse,
            timeout_s=timeout_s,
            default_s=QUICK_S,
        )
        return Replay(answer.equal, answer.recomputed)
