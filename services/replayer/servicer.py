"""The gRPC edge: validate, call, map."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from core.domain import definitions
from core.domain.paging import from_token, page_of, page_size
from services.replayer import convert
from services.replayer.admission import Admission
from services.replayer.budget import books_of, rows_per_s
from services.replayer.capacity import read_capacity, update_capacity
from services.replayer.comparison import Comparisons, Question
from services.replayer.comparison_convert import (
    RANGES_SHOWN,
    comparison_message,
    contract_of,
    parse_comparison,
    versions_of,
)
from services.replayer.definition_check import problems_of
from services.replayer.drop import Drops
from services.replayer.estimate import Wish, estimate_run
from services.replayer.fleet import Fleet
from services.replayer.judging import check_comparison, check_gates
from services.replayer.run import Run
from services.replayer.runs import Runs, check_limits, check_priority
from services.replayer.states import State
from services.replayer.surroundings import Surroundings
from services.replayer.topic_checks import TopicChecks
from services.replayer.verdict import AGE_MAX
from services.replayer.view import move_view
from turnout.clock import Clock
from turnout.kind_values import seconds_of
from turnout.names import VersionId, parse_job, parse_run, parse_version
from turnout.replayer.v1 import capacity_pb2, comparison_pb2, gate_pb2, replayer_pb2_grpc, run_pb2, table_pb2

Context = grpc.aio.ServicerContext[Any, Any]

_ANY_JOB = "jobs/-"


class ReplayerServicer(replayer_pb2_grpc.ReplayerServicer):
    """`turnout.replayer.v1.Replayer`."""

    def __init__(
        self, around: Surroundings, fleet: Fleet, runs: Runs, admission: Admission, drops: Drops, clock: Clock
    ) -> None:
        self._around = around
        self._fleet = fleet
        self._runs = runs
        self._admission = admission
        self._drops = drops
        self._clock = clock
        self._comparisons = Comparisons(around, clock)
        self._topics = TopicChecks(runs.check_topics, clock)

    async def EstimateRun(self, request: run_pb2.EstimateRunRequest, context: Context) -> run_pb2.EstimateRunResponse:
        version = parse_version(request.version)
        check_limits(0, request.rate_limit)
        check_priority(request.priority)
        wish = Wish(request.rate_limit, request.priority)
        return convert.estimate_message(await estimate_run(self._around, version, self._clock.now(), wish))

    async def CheckDefinition(
        self, request: run_pb2.CheckDefinitionRequest, context: Context
    ) -> run_pb2.CheckDefinitionResponse:
        definition = definitions.definition(request.definition)
        log_range = definitions.log_range(request.log_range, definition)
        found = await problems_of(self._around, definition, log_range, self._clock.now())
        problems = [run_pb2.DefinitionProblem(reason=one.reason, message=one.message) for one in found]
        return run_pb2.CheckDefinitionResponse(problems=problems)

    async def StartRun(self, request: run_pb2.StartRunRequest, context: Context) -> run_pb2.Run:
        version = parse_version(request.version)
        run = await self._runs.start(
            version, request.workers, request.rate_limit, request.request_id, priority=request.priority
        )
        return await self._message(run)

    async def GetRun(self, request: run_pb2.GetRunRequest, context: Context) -> run_pb2.Run:
        return await self._message(await self._around.store.get(parse_run(request.name)))

    async def ListRuns(self, request: run_pb2.ListRunsRequest, context: Context) -> run_pb2.ListRunsResponse:
        job = None if request.parent == _ANY_JOB else parse_job(request.parent)
        size = page_size(request.page_size)
        token = from_token(request.page_token, request.parent)
        after = parse_run(token) if token is not None else VersionId("", 0)
        runs = await self._around.store.page(job, (after.job, after.number), size + 1)
        samples = await self._around.sampler.fresh()
        runs, more = page_of(runs, size, request.parent, lambda run: run.name)
        shown = [self._with_progress(run, samples) for run in runs]
        return run_pb2.ListRunsResponse(runs=shown, next_page_token=more)

    async def WatchRun(self, request: run_pb2.WatchRunRequest, context: Context) -> AsyncIterator[run_pb2.Run]:
        version = parse_run(request.name)
        told = await self._message(await self._around.store.get(version))
        yield told
        sampler, gone = self._around.sampler, False
        while True:
            await sampler.next_sample()
            sample = sampler.newest
            if sample is None:
                continue
            run = sample.runs.get(version)
            if run is not None:
                gone = False
            elif gone:
                continue
            else:  # begun since the sample, or dropped: then this is the last change
                run, gone = await self._around.store.get(version), True
            now = self._with_progress(run, sampler.samples)
            if now != told:
                told = now
                yield told

    async def PauseRun(self, request: run_pb2.PauseRunRequest, context: Context) -> run_pb2.Run:
        return await self._message(await self._runs.pause(parse_run(request.name)))

    async def ResumeRun(self, request: run_pb2.ResumeRunRequest, context: Context) -> run_pb2.Run:
        return await self._message(await self._runs.resume(parse_run(request.name)))

    async def StopRun(self, request: run_pb2.StopRunRequest, context: Context) -> run_pb2.Run:
        return await self._message(await self._runs.stop(parse_run(request.name)))

    async def SetRunRate(self, request: run_pb2.SetRunRateRequest, context: Context) -> run_pb2.Run:
        return await self._message(await self._runs.set_rate(parse_run(request.name), request.rate_limit))

    async def SetRunPriority(self, request: run_pb2.SetRunPriorityRequest, context: Context) -> run_pb2.Run:
        return await self._message(await self._runs.set_priority(parse_run(request.name), request.priority))

    async def GetCapacity(self, request: capacity_pb2.GetCapacityRequest, context: Context) -> capacity_pb2.Capacity:
        convert.check_capacity_name(request.name)
        return await self._capacity()

    async def UpdateCapacity(
        self, request: capacity_pb2.UpdateCapacityRequest, context: Context
    ) -> capacity_pb2.Capacity:
        await update_capacity(self._around.store, convert.capacity_change(request), request.capacity.etag)
        await self._admission.admit()
        return await self._capacity()

    async def CheckGates(self, request: gate_pb2.CheckGatesRequest, context: Context) -> gate_pb2.CheckGatesResponse:
        candidate = parse_version(request.candidate)
        baseline = parse_version(request.baseline) if request.baseline else None
        judgement = await check_gates(self._around, self._topics, self._clock, candidate, baseline)
        asked = list(judgement.gates)
        if request.comparison:
            age_max = request.comparison_age_max.ToTimedelta() if request.HasField("comparison_age_max") else AGE_MAX
            asked.append(await check_comparison(self._comparisons, candidate, baseline, age_max))
        partitions = convert.partition_messages(judgement.candidate, self._around.sampler.samples)
        return gate_pb2.CheckGatesResponse(gates=convert.gate_messages(asked), partitions=partitions)

    async def CompareTables(
        self, request: comparison_pb2.CompareTablesRequest, context: Context
    ) -> AsyncIterator[comparison_pb2.Comparison]:
        question = Question(
            old=parse_version(request.old_version),
            new=parse_version(request.new_version),
            contract=contract_of(request),
            sample_size=request.sample_size,
            allow_unaligned=request.allow_unaligned,
            align_within_s=seconds_of(request.align_within),
            range_rows=request.range_rows,
            request_id=request.request_id,
        )
        async with aclosing(self._comparisons.compare(question, _remaining_s(context))) as steps:
            async for found in steps:
                yield comparison_message(found)

    async def ResumeComparison(
        self, request: comparison_pb2.ResumeComparisonRequest, context: Context
    ) -> AsyncIterator[comparison_pb2.Comparison]:
        begun = await self._comparisons.store.get(*parse_comparison(request.name))
        async with aclosing(self._comparisons.resume(begun, _remaining_s(context))) as steps:
            async for found in steps:
                yield comparison_message(found)

    async def GetComparison(
        self, request: comparison_pb2.GetComparisonRequest, context: Context
    ) -> comparison_pb2.Comparison:
        found = await self._comparisons.store.get(*parse_comparison(request.name))
        return comparison_message(found, ranges=RANGES_SHOWN)

    async def ListComparisons(
        self, request: comparison_pb2.ListComparisonsRequest, context: Context
    ) -> comparison_pb2.ListComparisonsResponse:
        job, versions = parse_job(request.parent), versions_of(request)
        size = page_size(request.page_size)
        collection = f"{request.parent} {sorted(request.versions)}"
        after = from_token(request.page_token, collection)
        found = await self._comparisons.store.page(job, after, versions, size + 1)
        found, more = page_of(found, size, collection, lambda one: one.id)
        shown = [comparison_message(one, samples=False) for one in found]
        return comparison_pb2.ListComparisonsResponse(comparisons=shown, next_page_token=more)

    async def MoveView(self, request: table_pb2.MoveViewRequest, context: Context) -> table_pb2.MoveViewResponse:
        done = await move_view(self._around.store, parse_version(request.version), request.epoch)
        return table_pb2.MoveViewResponse(moved=done.moved, waiting_for=done.waiting_for)

    async def DropTable(self, request: table_pb2.DropTableRequest, context: Context) -> table_pb2.DropTableResponse:
        version = parse_version(request.version)
        run = await self._around.store.find(version)
        if run is not None and not run.state.wants_workers:
            await self._fleet.idle(version)
        return table_pb2.DropTableResponse(dropped=await self._drops.drop(version))

    def runs_now(self) -> list[run_pb2.Run]:
        """All runs that have a table, as they were measured last."""
        sampler = self._around.sampler
        runs = sampler.newest.runs.values() if sampler.newest is not None else ()
        return [self._with_progress(run, sampler.samples) for run in runs]

    async def _message(self, run: Run) -> run_pb2.Run:
        return self._with_progress(run, await self._around.sampler.fresh())

    def _with_progress(self, run: Run, samples: Any) -> run_pb2.Run:
        waiting = self._admission.waiting(run)
        reason = waiting.reason if waiting is not None else self._fleet.status(run, samples)
        status = self._around.sampler.away or reason
        message = convert.run_message(run, samples, status, self._around.guard.outlook(run))
        message.queue_position = waiting.position if waiting is not None else 0
        throttle, _ = self._around.governing.pace_of(run)
        if throttle is not None and run.state in (State.REPLAYING, State.TAILING):
            message.throttle.CopyFrom(convert.throttle_message(throttle))
        return message

    async def _capacity(self) -> capacity_pb2.Capacity:
        capacity = await read_capacity(self._around.store)
        samples = await self._around.sampler.fresh()
        newest = samples[-1]
        books = books_of(newest.runs.values(), newest.positions, newest.ends, await self._around.sizes.known())
        return convert.capacity_message(capacity, books, rows_per_s(samples))


def _remaining_s(context: Context) -> float:
    remaining_s = context.time_remaining()
    assert remaining_s is not None, "the chain of interceptors refuses calls without a deadline"
    return float(remaining_s)
