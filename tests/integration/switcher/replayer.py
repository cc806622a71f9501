"""A replayer that answers as a test tells it to, over a real channel."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from core.rpc.interceptors import Watches, chain
from turnout.errors import FailedPrecondition, NotFound, Unavailable
from turnout.names import VersionId, parse_version
from turnout.replayer.v1 import comparison_pb2, gate_pb2, run_pb2, table_pb2
from turnout.replayer.v1 import replayer_pb2_grpc as rpc

GATES = ("catch-up", "coverage", "schema")


class ReplayerOnDemand(rpc.ReplayerServicer):
    """Gates pass, runs tail and views move, until a test says otherwise."""

    target: str

    def __init__(self) -> None:
        self.failing: dict[tuple[int, str], list[str]] = {}
        """(version, gate) -> its evidence."""
        self.runs: dict[str, run_pb2.Run] = {}
        """Run name -> run; others do tail."""
        self.without_run: set[str] = set()
        """Names of runs that are not there."""
        self.view_blocked_by = ""
        self.views: dict[str, tuple[int, int]] = {}
        """Job -> version that the view shows, epoch."""
        self.asked: list[tuple[int, int]] = []
        """Gates asked: candidate and baseline (0 = none), in order."""
        self.resumed: list[str] = []
        self.resume_fails = ""
        self.runs_away = False
        """Calls about runs are not answered."""
        self.silent: set[str] = set()
        """Gates that get no answer."""
        self.evidence = ""
        """Of every gate that passes, where it is not to be the default."""
        self.comparison: gate_pb2.Gate | None = None
        """Told with the gates, where it is demanded."""
        self.comparisons: list[comparison_pb2.Comparison] = []
        """The newest first."""
        self.started: list[str] = []
        """Versions whose run was started, once for each call."""
        self.compared: dict[str, list[comparison_pb2.Comparison]] = {}
        """What a comparison of the new version's name finds, message by message; none = nobody can compare them."""
        self.compare_requests: list[comparison_pb2.CompareTablesRequest] = []
        self.patience_s: list[float] = []
        """What each look at a run had left of its time as it came."""
        self._hold: tuple[str, int] = ("", 0)
        self._held = asyncio.Event()

    async def start(self) -> None:
        """Listen at `target`."""
        self._server = grpc.aio.server(interceptors=chain(Watches()))
        rpc.add_ReplayerServicer_to_server(self, self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        self.target = f"127.0.0.1:{port}"

    async def stop(self) -> None:
        await self._server.stop(None)

    def hold(self, method: str, call: int = 1) -> asyncio.Event:
        """Never answer the method's n-th call from now on; the event tells that it has come."""
        self._hold, self._held = (method, call), asyncio.Event()
        return self._held

    async def _may_hold(self, method: str) -> None:
        name, left = self._hold
        if name != method:
            return
        self._hold = (name, left - 1)
        if left == 1:
            self._hold = ("", 0)
            self._held.set()
            await asyncio.Event().wait()

    async def CheckGates(self, request: gate_pb2.CheckGatesRequest, context: Any) -> gate_pb2.CheckGatesResponse:
        await self._may_hold("CheckGates")
        version = parse_version(request.candidate)
        candidate = version.number
        _refuse_unknown(version)
        self.asked.append((candidate, parse_version(request.baseline).number if request.baseline else 0))
        gates = [
            gate_pb2.Gate(
                gate=gate,
                passed=(candidate, gate) not in self.failing,
                evidence=self.failing.get((candidate, gate), [self.evidence or f"{gate} holds."]),
            )
            for gate in GATES
            if gate not in self.silent
        ]
        if self.comparison is not None and request.comparison:
            gates.append(self.comparison)
        return gate_pb2.CheckGatesResponse(gates=gates)

    async def GetRun(self, request: run_pb2.GetRunRequest, context: Any) -> run_pb2.Run:
        self.patience_s.append(context.time_remaining())
        await self._may_hold("GetRun")
        if self.runs_away:
            raise Unavailable("POSTGRES_UNAVAILABLE", "PostgreSQL does not answer.")
        if request.name in self.without_run:
            raise NotFound("RUN_NOT_FOUND", f"{request.name} is not there; start one first.")
        return self.runs.get(request.name, run_pb2.Run(name=request.name, state=run_pb2.Run.TAILING))

    async def ListComparisons(
        self, request: comparison_pb2.ListComparisonsRequest, context: Any
    ) -> comparison_pb2.ListComparisonsResponse:
        return comparison_pb2.ListComparisonsResponse(comparisons=self.comparisons)

    async def StartRun(self, request: run_pb2.StartRunRequest, context: Any) -> run_pb2.Run:
        await self._may_hold("StartRun")
        self.started.append(request.version)
        return self.runs.get(
            f"{request.version}/run", run_pb2.Run(name=f"{request.version}/run", state=run_pb2.Run.QUEUED)
        )

    async def EstimateRun(self, request: run_pb2.EstimateRunRequest, context: Any) -> run_pb2.EstimateRunResponse:
        return run_pb2.EstimateRunResponse(duration=Duration(seconds=90), remarks=["It reads 1,000 records."])

    async def CompareTables(
        self, request: comparison_pb2.CompareTablesRequest, context: Any
    ) -> AsyncIterator[comparison_pb2.Comparison]:
        await self._may_hold("CompareTables")
        self.compare_requests.append(request)
        if request.new_version not in self.compared:
            raise FailedPrecondition("KEYS_DIFFER", "The two tables have different keys.")
        for found in self.compared[request.new_version]:
            yield found

    async def ResumeRun(self, request: run_pb2.ResumeRunRequest, context: Any) -> run_pb2.Run:
        await self._may_hold("ResumeRun")
        if self.resume_fails:
            raise FailedPrecondition("TOPIC_RECREATED", self.resume_fails)
        self.resumed.append(request.name)
        self.runs[request.name] = run_pb2.Run(name=request.name, state=run_pb2.Run.REPLAYING)
        return self.runs[request.name]

    async def MoveView(self, request: table_pb2.MoveViewRequest, context: Any) -> table_pb2.MoveViewResponse:
        await self._may_hold("MoveView")
        if self.view_blocked_by:
            return table_pb2.MoveViewResponse(waiting_for=self.view_blocked_by)
        version = parse_version(request.version)
        if self.views.get(version.job, (0, 0))[1] <= request.epoch:
            self.views[version.job] = (version.number, request.epoch)
        return table_pb2.MoveViewResponse(moved=True)


def _refuse_unknown(version: VersionId) -> None:
    if version.number > 90:
        raise NotFound("RUN_NOT_FOUND", f"{version} has no run.")
