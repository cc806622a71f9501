"""Stands in for the replayer: what the others ask of it, with its rules of runs, view and drop, without records."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tests.simulation.real import Real
from turnout.errors import FailedPrecondition, NotFound
from turnout.names import VersionId, parse_run, parse_version
from turnout.replayer.v1 import comparison_pb2, gate_pb2, run_pb2, table_pb2
from turnout.schema import table_name

GATES = ("catch-up", "coverage", "schema")
_RANGES = 3  # of every comparison


class Flaw(Enum):
    """What is wrong with the code of a version, for good."""

    LACKS = "coverage"  # its table begins too late
    DIFFERS = "comparison"  # its rows are not those of the others
    HARMS = "harm"  # whoever reads it errs


@dataclass
class Tables:
    """What survives the replayer's death: tables, runs and views."""

    real: Real
    runs: dict[VersionId, int] = field(default_factory=dict)
    dropped: set[VersionId] = field(default_factory=set)
    views: dict[str, tuple[int, int]] = field(default_factory=dict)  # of a job: epoch, version
    before_drop: list[Any] = field(default_factory=list)
    end: int = 1  # of the log
    at_gates: Callable[[], Awaitable[None]] | None = None  # whenever gates are asked
    moody: bool = True  # whether the replayer now and then refuses, and is slow
    flaws: dict[VersionId, Flaw] = field(default_factory=dict)
    compared: dict[str, int] = field(default_factory=dict)  # of a comparison, by its request: ranges that are done

    def make(self, version: VersionId) -> None:
        """A table with one row, which tells its version, and its run."""
        name = table_name(version.job, version.number)
        self.real.execute(
            f'create table if not exists serving."{name}" (k text primary key, version bigint not null) '
            "with (autovacuum_enabled = off);"
            f"insert into serving.\"{name}\" values ('k', {version.number}) on conflict do nothing;"
            "insert into serving.positions (version, topic, partition, start_offset, next_offset) "
            f"values ('{version.name}', 'log', 0, 0, 1)"
        )
        self.runs[version] = run_pb2.Run.TAILING

    def tick(self, rng: random.Random) -> None:
        """The log grows, and the runs that are not stopped read on, each at a speed of its own."""
        self.end += rng.randint(1, 4)
        tailing = [version for version, state in self.runs.items() if state == run_pb2.Run.TAILING]
        read = {version.name: self.end - rng.randint(0, 6) for version in tailing if rng.random() < 0.5}
        self.real.execute(
            "update serving.positions set next_offset = greatest(next_offset, read.until) "
            "from unnest($1::text[], $2::bigint[]) as read (version, until) where positions.version = read.version",
            *(list(read), list(read.values())),
        )

    def drop(self, version: VersionId) -> None:
        for check in self.before_drop:
            check(version)
        self.real.execute(f'drop table serving."{table_name(version.job, version.number)}"')
        self.real.execute(f"delete from serving.positions where version = '{version.name}'")
        self.dropped.add(version)


class Replayer:
    """The methods of the contract that the others call; what they change is changed at one instant."""

    def __init__(self, tables: Tables, rng: random.Random) -> None:
        self._tables = tables
        self._rng = rng

    def __getattr__(self, name: str) -> Any:
        if name[:1].isupper():  # a method of the contract that nobody calls here
            return None
        raise AttributeError(name)

    async def CheckGates(self, request: gate_pb2.CheckGatesRequest, context: Any) -> gate_pb2.CheckGatesResponse:
        if self._tables.at_gates is not None:
            await self._tables.at_gates()
        candidate = parse_version(request.candidate)
        runs = self._tables.runs.get(candidate) == run_pb2.Run.TAILING
        against = {"catch-up"} if self._chance(0.05) else set()
        against |= set(GATES) if not runs else set()
        if self._tables.flaws.get(candidate) is Flaw.LACKS:
            against.add("coverage")
        if self._chance(0.2):  # the evidence takes its time, while fronts come and go
            await asyncio.sleep(self._rng.uniform(0.0, 0.8))
        response = gate_pb2.CheckGatesResponse()
        for gate in GATES:
            passed = gate not in against
            response.gates.add(gate=gate, passed=passed, evidence=[] if passed else ["it is not so"])
        return response

    async def StartRun(self, request: run_pb2.StartRunRequest, context: Any) -> run_pb2.Run:
        version = parse_version(request.version)
        if version in self._tables.dropped:
            raise FailedPrecondition("VERSION_DROPPED", f"The table of {version} was dropped.")
        if version not in self._tables.runs:
            self._tables.make(version)
        return self._seen(version)

    async def EstimateRun(self, request: run_pb2.EstimateRunRequest, context: Any) -> run_pb2.EstimateRunResponse:
        return run_pb2.EstimateRunResponse()

    async def CompareTables(
        self, request: comparison_pb2.CompareTablesRequest, context: Any
    ) -> AsyncIterator[comparison_pb2.Comparison]:
        old, new = parse_version(request.old_version), parse_version(request.new_version)
        compared = self._tables.compared
        comparison = f"{new.job}-{old.number}-{new.number}-{request.request_id}"
        found = comparison_pb2.Comparison(name=f"jobs/{new.job}/comparisons/{comparison}", aligned=True)
        while (done := compared.setdefault(comparison, 0)) < _RANGES:
            for version in (old, new):
                self._run(version.run_name)
                if version in self._tables.dropped:
                    raise FailedPrecondition("VERSION_DROPPED", f"The table of {version} was dropped.")
            found.state = comparison_pb2.Comparison.UNFINISHED
            yield found
            await asyncio.sleep(self._rng.uniform(0.0, 0.1))
            compared[comparison] = done + 1
        found.state = comparison_pb2.Comparison.FINISHED
        flawed = self._tables.flaws.get(new) is Flaw.DIFFERS
        if request.HasField("contract"):
            found.verdict = comparison_pb2.Comparison.FAILED if flawed else comparison_pb2.Comparison.PASSED
        yield found

    async def ListComparisons(
        self, request: comparison_pb2.ListComparisonsRequest, context: Any
    ) -> comparison_pb2.ListComparisonsResponse:
        return comparison_pb2.ListComparisonsResponse()

    async def GetRun(self, request: run_pb2.GetRunRequest, context: Any) -> run_pb2.Run:
        version, _ = self._run(request.name)
        return self._seen(version)

    async def ResumeRun(self, request: run_pb2.ResumeRunRequest, context: Any) -> run_pb2.Run:
        version, _ = self._run(request.name)
        if version in self._tables.dropped:
            raise FailedPrecondition("VERSION_DROPPED", f"The table of {version} was dropped.")
        self._tables.runs[version] = run_pb2.Run.TAILING
        return run_pb2.Run(name=version.run_name, state=run_pb2.Run.TAILING)

    async def StopRun(self, request: run_pb2.StopRunRequest, context: Any) -> run_pb2.Run:
        version, _ = self._run(request.name)
        self._tables.runs[version] = run_pb2.Run.STOPPED
        return run_pb2.Run(name=version.run_name, state=run_pb2.Run.STOPPED)

    async def MoveView(self, request: table_pb2.MoveViewRequest, context: Any) -> table_pb2.MoveViewResponse:
        version = parse_version(request.version)
        self._run(version.run_name)
        if version in self._tables.dropped:
            raise FailedPrecondition("VERSION_DROPPED", f"The table of {version} was dropped; no view can show it.")
        epoch, shown = self._tables.views.get(version.job, (0, 0))
        if epoch > request.epoch and shown != version.number:
            return table_pb2.MoveViewResponse(moved=False, waiting_for="the view follows a later epoch already")
        if self._chance(0.1):
            return table_pb2.MoveViewResponse(moved=False, waiting_for="a session holds a lock on the view")
        self._tables.views[version.job] = (max(epoch, request.epoch), version.number)
        return table_pb2.MoveViewResponse(moved=True)

    async def DropTable(self, request: table_pb2.DropTableRequest, context: Any) -> table_pb2.DropTableResponse:
        version = parse_version(request.version)
        run = self._tables.runs.get(version)
        if run is None or version in self._tables.dropped:
            return table_pb2.DropTableResponse()
        if run != run_pb2.Run.STOPPED:
            raise FailedPrecondition("RUN_NOT_STOPPED", f"The run of {version} goes on.")
        if self._tables.views.get(version.job, (0, 0))[1] == version.number:
            raise FailedPrecondition("TABLE_IN_USE", f"The view shows {version}.")
        self._tables.drop(version)
        return table_pb2.DropTableResponse()

    def _seen(self, version: VersionId) -> run_pb2.Run:
        state: Any = self._tables.runs[version]
        return run_pb2.Run(name=version.run_name, state=state, partitions=[run_pb2.PartitionProgress(topic="log")])

    def _chance(self, share: float) -> bool:
        return self._tables.moody and self._rng.random() < share

    def _run(self, name: str) -> tuple[VersionId, int]:
        version = parse_run(name)
        if version not in self._tables.runs:
            raise NotFound("RUN_NOT_FOUND", f"There is no run of {version}.")
        return version, self._tables.runs[version]
