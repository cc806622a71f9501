"""What the switcher asks of the replayer: gates, runs, the SQL view."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import grpc

from services.switcher.gates import Said, answers_to
from services.switcher.pending import PendingView
from services.switcher.questions import COMPARISON, GateQuestion
from services.switcher.records import GateAnswer
from services.switcher.way_back import RESTARTED, Applied, RowsDiffering, RunSeen
from turnout.errors import TurnoutError, Unavailable
from turnout.names import VersionId, job_name
from turnout.replayer.v1 import comparison_pb2, gate_pb2, run_pb2, table_pb2
from turnout.replayer.v1 import replayer_pb2_grpc as rpc
from turnout.status import domain_errors, from_rpc_error

_GATES_TIMEOUT_S = 5.0
_VIEW_TIMEOUT_S = 5.0
_RUN_TIMEOUT_S = 1.0  # a rollback does not wait for a replayer that is away; a gate that refuses a cutover does
_COMPARISONS = 20  # of the newest: some may be unfinished
_RESTARTED = tuple(run_pb2.Run.State.Value(state) for state in RESTARTED)


class ReplayerClient:
    """Calls to the replayer, with its errors as domain errors."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = rpc.ReplayerStub(channel)

    async def gates(
        self, job: str, questions: Iterable[GateQuestion], overridden: frozenset[str]
    ) -> tuple[GateAnswer, ...]:
        """All gates of every candidate, with their evidence; those that fail and are to be passed over are marked."""
        answers = await asyncio.gather(*(self._gates(job, question, overridden) for question in questions))
        return tuple(gate for answer in answers for gate in answer)

    async def _gates(self, job: str, question: GateQuestion, overridden: frozenset[str]) -> tuple[GateAnswer, ...]:
        request = gate_pb2.CheckGatesRequest(
            candidate=VersionId(job, question.candidate).name,
            baseline="" if question.baseline is None else VersionId(job, question.baseline).name,
            comparison=question.comparison,
        )
        with domain_errors("replayer"):
            response = await self._stub.CheckGates(request, timeout=_GATES_TIMEOUT_S)
        said = [Said(gate.gate, gate.passed, tuple(gate.evidence)) for gate in response.gates]
        return answers_to(question, said, overridden)

    async def look_at_runs(self, job: str, versions: Iterable[int]) -> tuple[str, ...]:
        """What a person must know of the runs that a rollback returns to. Never fails."""
        told = await asyncio.gather(*(self._look_at_run(VersionId(job, version)) for version in sorted(versions)))
        return tuple(warning for warnings in told for warning in warnings)

    async def runs(self, job: str, versions: Iterable[int]) -> list[RunSeen]:
        """The runs of these versions; one that could not be looked at says why. Never fails."""
        return list(await asyncio.gather(*(self._seen(VersionId(job, version)) for version in sorted(versions))))

    async def rows_differing(self, job: str, one: int, other: int) -> RowsDiffering | None:
        """In how many keys two versions differ, by the last comparison of the two at one cut; None = that is not known.
        Never fails."""
        for found in await self._comparisons(job, one, other):
            if found.aligned:
                return _rows_differing(found)
        return None

    async def comparison_since(self, job: str, candidate: int, active: int, since: datetime) -> GateAnswer | None:
        """What the last comparison of a candidate with the active version says that was judged by a contract and has
        ended since a moment; None = there is none. Never fails."""
        for found in await self._comparisons(job, candidate, active):
            judged = found.verdict != comparison_pb2.Comparison.VERDICT_UNSPECIFIED
            if judged and found.new_version == VersionId(job, candidate).name:
                if found.end_time.ToDatetime(tzinfo=UTC) < since:
                    return None
                passed = found.verdict == comparison_pb2.Comparison.PASSED
                return GateAnswer(COMPARISON, candidate, passed, overridden=False, evidence=tuple(found.findings))
        return None

    async def _comparisons(self, job: str, one: int, other: int) -> list[comparison_pb2.Comparison]:
        """The finished comparisons of two versions, the newest first; none where the replayer does not answer."""
        between = [VersionId(job, number).name for number in (one, other)]
        request = comparison_pb2.ListComparisonsRequest(parent=job_name(job), page_size=_COMPARISONS, versions=between)
        try:
            answer = await self._stub.ListComparisons(request, timeout=_RUN_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return []
        return [
            found
            for found in answer.comparisons
            if found.state == comparison_pb2.Comparison.FINISHED
            and {found.old_version, found.new_version} == set(between)
        ]

    async def run(self, job: str, version: int) -> run_pb2.Run:
        """The run of a version. NotFound (RUN_NOT_FOUND), Unavailable."""
        with domain_errors("replayer"):
            return await self._run(VersionId(job, version))

    async def _seen(self, version: VersionId) -> RunSeen:
        try:
            return _run_seen(version, await self._run(version, _GATES_TIMEOUT_S))
        except grpc.aio.AioRpcError as error:
            return RunSeen(version.number, problem=from_rpc_error(error, "replayer").message)

    async def _look_at_run(self, version: VersionId) -> list[str]:
        try:
            run = await self._run(version)
        except grpc.aio.AioRpcError as error:
            return [f"The run of {version} could not be looked at: {from_rpc_error(error, 'replayer').message}"]
        warnings = _remarks(version, run)
        if run.state in _RESTARTED:
            warnings.append(f"The run of {version} is {run_pb2.Run.State.Name(run.state)}; the rollback resumes it.")
        return warnings

    async def wake_runs(self, job: str, versions: Iterable[int]) -> tuple[tuple[str, ...], bool]:
        """Resume the runs that a rollback has returned to, where they rest. Never fails.

        What a person must know, and whether the replayer has answered for each of them; if not, ask again.
        """
        woken = await asyncio.gather(*(self._wake_run(VersionId(job, version)) for version in sorted(versions)))
        return tuple(warning for warning, _ in woken if warning), all(answered for _, answered in woken)

    async def _wake_run(self, version: VersionId) -> tuple[str, bool]:
        try:
            if (await self._run(version)).state not in _RESTARTED:
                return "", True
            await self._stub.ResumeRun(run_pb2.ResumeRunRequest(name=version.run_name), timeout=_RUN_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            said = from_rpc_error(error, "replayer")
            if isinstance(said, Unavailable):
                return f"The run of {version} is resumed once the replayer answers: {said.message}", False
            return f"The run of {version} could not be resumed: {said.message}", True
        return "", True  # that the rollback resumes it has been told

    async def _run(self, version: VersionId, within_s: float | None = None) -> run_pb2.Run:
        request = run_pb2.GetRunRequest(name=version.run_name)
        run: run_pb2.Run = await self._stub.GetRun(request, timeout=_RUN_TIMEOUT_S if within_s is None else within_s)
        return run

    async def move_view(self, view: PendingView) -> str | None:
        """Let the SQL view show a version; None once it does, else what it waits for."""
        request = table_pb2.MoveViewRequest(version=VersionId(view.job, view.version).name, epoch=view.epoch)
        try:
            response = await self._stub.MoveView(request, timeout=_VIEW_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            failure: TurnoutError = from_rpc_error(error, "replayer")
            return failure.message
        return None if response.moved else response.waiting_for or "the replayer, which does not say for what"


def _remarks(version: VersionId, run: run_pb2.Run) -> list[str]:
    warnings = []
    if run.state == run_pb2.Run.FAILED:
        warnings.append(f"The run of {version} has FAILED, so its table goes stale: {run.status_message}")
    if run.state == run_pb2.Run.COMPLETED:
        warnings.append(f"{version} is made of a bounded range of the log: its table stays as it is.")
    if run.lag > 0:
        warnings.append(f"{version} is {run.lag:,} offsets behind the end of the log.")
    return warnings


def _rows_differing(found: comparison_pb2.Comparison) -> RowsDiffering:
    keys = found.rows_only_old + found.rows_only_new + found.rows_changed
    of = found.rows_old + found.rows_only_new
    return RowsDiffering(keys, keys / of if of else 0.0, found.create_time.ToDatetime(UTC), found.name)


def _run_seen(version: VersionId, run: run_pb2.Run) -> RunSeen:
    risk = run.retention_risk if run.HasField("retention_risk") else None
    return RunSeen(
        version=version.number,
        state=run_pb2.Run.State.Name(run.state),
        lag=run.lag,
        why=run.status_message if run.state == run_pb2.Run.FAILED else "",
        applied={
            (one.topic, one.partition): Applied(
                one.next_offset, one.event_time.ToDatetime(UTC) if one.HasField("event_time") else None
            )
            for one in run.partitions
        },
        retention=risk.message if risk else "",
        retention_time=risk.crossing_time.ToDatetime(UTC) if risk else None,
    )
