"""Runs, their budget, gates."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from datetime import timedelta
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from turnout.client import convert
from turnout.client.calls import Calls, duration_of, job_name, new_request_id, pages, run_name, version_name
from turnout.client.connection import LONG_S, QUICK_S
from turnout.definition_proto import to_proto as definition_to_proto
from turnout.errors import InvalidInput
from turnout.log_range import LogRange
from turnout.log_range_proto import to_proto as range_to_proto
from turnout.replayer.v1 import capacity_pb2, gate_pb2, run_pb2
from turnout.results import Capacity, DefinitionProblem, Estimate, GateCheck, Run
from turnout.schema import JobDefinition

_CAPACITY = "capacity"


class ReplayerCalls(Calls):
    """Methods of the replayer."""

    async def estimate(
        self,
        job: str,
        version: int,
        *,
        rate_limit: int | None = None,
        priority: int = 0,
        timeout_s: float | None = None,
    ) -> Estimate:
        """What a run of the version would read, write, take and wait for; starts nothing.

        rate_limit, priority: as for start_run; a run that exists keeps its own.
        """
        request = run_pb2.EstimateRunRequest(
            version=version_name(job, version), rate_limit=rate_limit or 0, priority=priority
        )
        return convert.estimate(
            await self._connections.unary(
                "replayer",
                "EstimateRun",
                request,
                run_pb2.EstimateRunResponse,
                timeout_s=timeout_s,
                default_s=LONG_S,
            )
        )

    async def check_definition(
        self, definition: JobDefinition, log_range: LogRange | None = None, *, timeout_s: float | None = None
    ) -> tuple[DefinitionProblem, ...]:
        """What would refuse the run of a version with this definition and range of the log, before there is one: its
        topics, its range, and its table and indexes, which PostgreSQL is asked to create and which are rolled back.

        Empty = nothing that can be known before. InvalidInput (INVALID_RANGE) where the range names a topic that the
        job does not read.
        """
        request = run_pb2.CheckDefinitionRequest(
            definition=definition_to_proto(definition), log_range=range_to_proto(log_range)
        )
        answer = await self._connections.unary(
            "replayer",
            "CheckDefinition",
            request,
            run_pb2.CheckDefinitionResponse,
            timeout_s=timeout_s,
            default_s=LONG_S,
        )
        return tuple(DefinitionProblem(one.reason, one.message) for one in answer.problems)

    async def start_run(
        self,
        job: str,
        version: int,
        *,
        workers: int | None = None,
        rate_limit: int | None = None,
        priority: int = 0,
        timeout_s: float | None = None,
    ) -> Run:
        """Create the version's table and replay into it from the start of the retained log, once the budget of copies
        has a place for it.

        workers: processes during the copy phase, at most one a partition; None = the service's default. rate_limit:
        records a second over all workers; None = none. priority: -100 to 100, the higher one is admitted first.
        Repeating it answers the run there is.
        FailedPrecondition (TOPIC_NOT_FOUND, VERSION_RETIRED).
        """
        request = run_pb2.StartRunRequest(
            version=version_name(job, version),
            workers=workers or 0,
            rate_limit=rate_limit or 0,
            request_id=new_request_id(),
            priority=priority,
        )
        return await self._run("StartRun", request, timeout_s)

    async def get_run(self, job: str, version: int, *, timeout_s: float | None = None) -> Run:
        """The run of a version. NotFound (RUN_NOT_FOUND)."""
        return await self._run("GetRun", run_pb2.GetRunRequest(name=run_name(job, version)), timeout_s)

    async def list_runs(
        self, job: str | None = None, *, page_size: int = 0, timeout_s: float | None = None
    ) -> AsyncIterator[Run]:
        """The runs of a job, or of every job, ordered by name. timeout_s: of each request."""
        parent = "jobs/-" if job is None else job_name(job)

        async def fetch(token: str) -> tuple[list[Run], str]:
            answer = await self._connections.unary(
                "replayer",
                "ListRuns",
                run_pb2.ListRunsRequest(parent=parent, page_size=page_size, page_token=token),
                run_pb2.ListRunsResponse,
                timeout_s=timeout_s,
                default_s=QUICK_S,
            )
            return [convert.run(message) for message in answer.runs], answer.next_page_token

        async for run in pages(fetch):
            yield run

    async def watch_run(self, job: str, version: int, *, timeout_s: float | None = None) -> AsyncGenerator[Run, None]:
        """The run now and after every change, at most four times a second, until the caller breaks off.

        Goes on when the replayer restarts. timeout_s: how long to try to reach it, then Unavailable.
        Break off with `contextlib.aclosing` around it to end the stream at once.
        """
        stream = self._connections.watch(
            "replayer",
            "WatchRun",
            run_pb2.WatchRunRequest(name=run_name(job, version)),
            run_pb2.Run,
            timeout_s=timeout_s,
        )
        try:
            async for message in stream:
                yield convert.run(message)
        finally:
            await stream.aclose()

    async def pause_run(self, job: str, version: int, *, timeout_s: float | None = None) -> Run:
        """Let the workers finish their batch and stop. FailedPrecondition from a state that cannot be paused."""
        return await self._run("PauseRun", run_pb2.PauseRunRequest(name=run_name(job, version)), timeout_s)

    async def resume_run(self, job: str, version: int, *, timeout_s: float | None = None) -> Run:
        """Go on from the stored positions. FailedPrecondition (TOPIC_RECREATED, POSITION_BEYOND_END)."""
        return await self._run("ResumeRun", run_pb2.ResumeRunRequest(name=run_name(job, version)), timeout_s)

    async def stop_run(self, job: str, version: int, *, timeout_s: float | None = None) -> Run:
        """End the run; its table stays, and resume_run takes it up again."""
        return await self._run("StopRun", run_pb2.StopRunRequest(name=run_name(job, version)), timeout_s)

    async def set_run_rate(
        self, job: str, version: int, rate_limit: int | None, *, timeout_s: float | None = None
    ) -> Run:
        """Limit how many records a second the run reads, all workers together; None = no limit."""
        request = run_pb2.SetRunRateRequest(name=run_name(job, version), rate_limit=rate_limit or 0)
        return await self._run("SetRunRate", request, timeout_s)

    async def set_run_priority(self, job: str, version: int, priority: int, *, timeout_s: float | None = None) -> Run:
        """Move a run in the queue of copies; priority: -100 to 100, the higher one is admitted first.

        FailedPrecondition (RUN_STATE) once the run is past its copy.
        """
        request = run_pb2.SetRunPriorityRequest(name=run_name(job, version), priority=priority)
        return await self._run("SetRunPriority", request, timeout_s)

    async def capacity(self, *, timeout_s: float | None = None) -> Capacity:
        """The budget that all copies share, and what is used of it."""
        return await self._capacity("GetCapacity", capacity_pb2.GetCapacityRequest(name=_CAPACITY), timeout_s)

    async def update_capacity(
        self,
        *,
        copies_max: int | None = None,
        rows_per_s_max: int | None = None,
        storage_bytes_max: int | None = None,
        read_p99_ratio_max: float | None = None,
        etag: str = "",
        timeout_s: float | None = None,
    ) -> Capacity:
        """Change the budget that all copies share, at once; what is None stays, 0 = no limit.

        read_p99_ratio_max: how many times their quiet value the reads' p99 may reach before copies slow down. etag: of
        the budget that the change rests on, else Aborted (ETAG_MISMATCH); empty = any. InvalidInput (INVALID_CAPACITY).
        """
        limits: dict[str, Any] = {
            "copies_max": copies_max,
            "rows_per_s_max": rows_per_s_max,
            "storage_bytes_max": storage_bytes_max,
            "read_p99_ratio_max": read_p99_ratio_max,
        }
        changed = {name: limit for name, limit in limits.items() if limit is not None}
        if not changed:  # an empty mask would stand for all four
            raise InvalidInput("INVALID_CAPACITY", f"Nothing is to be changed; give one of {', '.join(limits)}.")
        request = capacity_pb2.UpdateCapacityRequest(
            capacity=capacity_pb2.Capacity(name=_CAPACITY, etag=etag, **changed),
            update_mask=FieldMask(paths=list(changed)),
        )
        return await self._capacity("UpdateCapacity", request, timeout_s)

    async def check_gates(
        self,
        job: str,
        candidate: int,
        *,
        baseline: int | None = None,
        comparison: bool = False,
        comparison_age_max: timedelta | None = None,
        timeout_s: float | None = None,
    ) -> GateCheck:
        """Ask the gates of a candidate against the version that serves now; baseline None = a job's first version.

        comparison: ask too whether the newest comparison with the baseline has passed its contract; it may be
        `comparison_age_max` old, None = one hour.
        """
        request = gate_pb2.CheckGatesRequest(
            candidate=version_name(job, candidate),
            baseline=version_name(job, baseline) if baseline else "",
            comparison=comparison,
            comparison_age_max=duration_of(comparison_age_max),
        )
        answer = await self._connections.unary(
            "replayer",
            "CheckGates",
            request,
            gate_pb2.CheckGatesResponse,
            timeout_s=timeout_s,
            default_s=QUICK_S,
        )
        return convert.gate_check(answer, candidate)

    async def _capacity(self, method: str, request: Any, timeout_s: float | None) -> Capacity:
        return convert.capacity(
            await self._connections.unary(
                "replayer", method, request, capacity_pb2.Capacity, timeout_s=timeout_s, default_s=QUICK_S
            )
        )

    async def _run(self, method: str, request: Any, timeout_s: float | None) -> Run:
        return convert.run(
            await self._connections.unary(
                "replayer", method, request, run_pb2.Run, timeout_s=timeout_s, default_s=QUICK_S
            )
        )
