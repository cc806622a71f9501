"""Stands in for the replayer: what the others ask of it, with its rules of runs, view and drop, without records."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.real import Real
from turnout.errors import FailedPrecondition, NotFound
from turnout.names import VersionId, parse_run, parse_version
from turnout.replayer.v1 import replayer_pb2 as pb
from turnout.schema import table_name

GATES = ("catch-up", "coverage", "schema")


@dataclass
class Tables:
    """What survives the replayer's death: tables, runs and views."""

    real: Real
    runs: dict[VersionId, int] = field(default_factory=dict)
    dropped: set[VersionId] = field(default_factory=set)
    views: dict[str, tuple[int, int]] = field(default_factory=dict)  # of a job: epoch, version
    before_drop: list[Any] = field(default_factory=list)
    moody: bool = True  # whether the replayer now and then refuses, and is slow

    def make(self, version: VersionId) -> None:
        """A table with one row, which tells its version, and its run."""
        name = table_name(version.job, version.number)
        self.real.execute(
            f'create table if not exists serving."{name}" (k text primary key, version bigint not null);'
            f"insert into serving.\"{name}\" values ('k', {version.number}) on conflict do nothing;"
            "insert into serving.positions (version, topic, partition, start_offset, next_offset) "
            f"values ('{version.name}', 'log', 0, 0, 1)"
        )
        self.runs[version] = pb.Run.TAILING

    def tick(self, rng: random.Random) -> None:
        """The runs that are not stopped read on, each at a speed of its own."""
        tailing = [version for version, state in self.runs.items() if state == pb.Run.TAILING]
        read = {version.name: rng.randint(1, 5) for version in tailing if rng.random() < 0.5}
        self.real.execute(
            "update serving.positions set next_offset = next_offset + read.records "
            "from unnest($1::text[], $2::bigint[]) as read (version, records) where positions.version = read.version",
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

    async def CheckGates(self, request: pb.CheckGatesRequest, context: Any) -> pb.CheckGatesResponse:
        run = self._tables.runs.get(parse_version(request.candidate))
        passed = run == pb.Run.TAILING and not self._chance(0.05)
        if self._chance(0.2):  # the evidence takes its time, while fronts come and go
            await asyncio.sleep(self._rng.uniform(0.0, 0.8))
        response = pb.CheckGatesResponse()
        for gate in GATES:
            response.gates.add(gate=gate, passed=passed, evidence=[] if passed else ["it is not so"])
        return response

    async def GetRun(self, request: pb.GetRunRequest, context: Any) -> pb.Run:
        version, state = self._run(request.name)
        return pb.Run(name=version.run_name, state=state)  # type: ignore[arg-type]

    async def ResumeRun(self, request: pb.ResumeRunRequest, context: Any) -> pb.Run:
        version, _ = self._run(request.name)
        if version in self._tables.dropped:
            raise FailedPrecondition("VERSION_DROPPED", f"The table of {version} was dropped.")
        self._tables.runs[version] = pb.Run.TAILING
        return pb.Run(name=version.run_name, state=pb.Run.TAILING)

    async def StopRun(self, request: pb.StopRunRequest, context: Any) -> pb.Run:
        version, _ = self._run(request.name)
        self._tables.runs[version] = pb.Run.STOPPED
        return pb.Run(name=version.run_name, state=pb.Run.STOPPED)

    async def MoveView(self, request: pb.MoveViewRequest, context: Any) -> pb.MoveViewResponse:
        version = parse_version(request.version)
        self._run(version.run_name)
        if version in self._tables.dropped:
            raise FailedPrecondition("VERSION_DROPPED", f"The table of {version} was dropped; no view can show it.")
        epoch, shown = self._tables.views.get(version.job, (0, 0))
        if epoch > request.epoch and shown != version.number:
            return pb.MoveViewResponse(moved=False, waiting_for="the view follows a later epoch already")
        if self._chance(0.1):
            return pb.MoveViewResponse(moved=False, waiting_for="a session holds a lock on the view")
        self._tables.views[version.job] = (max(epoch, request.epoch), version.number)
        return pb.MoveViewResponse(moved=True)

    async def DropTable(self, request: pb.DropTableRequest, context: Any) -> pb.DropTableResponse:
        version = parse_version(request.version)
        run = self._tables.runs.get(version)
        if run is None or version in self._tables.dropped:
            return pb.DropTableResponse()
        if run != pb.Run.STOPPED:
            raise FailedPrecondition("RUN_NOT_STOPPED", f"The run of {version} goes on.")
        if self._tables.views.get(version.job, (0, 0))[1] == version.number:
            raise FailedPrecondition("TABLE_IN_USE", f"The view shows {version}.")
        self._tables.drop(version)
        return pb.DropTableResponse()

    def _chance(self, share: float) -> bool:
        return self._tables.moody and self._rng.random() < share

    def _run(self, name: str) -> tuple[VersionId, int]:
        version = parse_run(name)
        if version not in self._tables.runs:
            raise NotFound("RUN_NOT_FOUND", f"There is no run of {version}.")
        return version, self._tables.runs[version]
