"""A switcher and a replayer under the test's control: real servers, with the behaviour that a retirement meets."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import grpc

from core.rpc.server import ServiceApp
from turnout.errors import FailedPrecondition, NotFound, TurnoutError
from turnout.replayer.v1 import replayer_pb2_grpc, run_pb2, table_pb2
from turnout.switcher.v1 import release_pb2, switcher_pb2_grpc

_Run = run_pb2.Run


class Calls:
    """What was called, and what is to go wrong: `errors[method]` is raised, one for each call, until it is empty.

    A test that waits to see an error makes it last (`always`) and clears it then.
    """

    def __init__(self) -> None:
        self.made: list[str] = []
        self.errors: defaultdict[str, list[TurnoutError]] = defaultdict(list)
        self.held: dict[str, asyncio.Event] = {}
        """Methods that wait for their event before they answer."""

    def always(self, method: str, error: TurnoutError) -> None:
        """Raise the error until `errors[method]` is cleared."""
        self.errors[method] = [error] * 10_000

    async def note(self, method: str) -> None:
        self.made.append(method)
        if method in self.held:
            await self.held[method].wait()
        if self.errors[method]:
            raise self.errors[method].pop(0)


class FakeSwitcher(switcher_pb2_grpc.SwitcherServicer):
    """Releases what `in_use` does not name."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self.in_use: dict[str, str] = {}
        """Version name -> reason of the refusal."""
        self.released: set[str] = set()
        self.actors: list[str] = []
        """Who released or reinstated, as each call claims."""
        self.undrained: list[str] = []
        self.view_pending = False

    async def ReleaseVersion(self, request: release_pb2.ReleaseVersionRequest, context: Any) -> release_pb2.Release:
        await self.calls.note("ReleaseVersion")
        self.actors.append(request.claimed_actor)
        reason = self.in_use.get(request.version)
        if reason == "ROLLBACK_WINDOW" and request.forgo_rollback:
            reason = None
        if reason is not None:
            raise FailedPrecondition(
                reason, f"{request.version} is named: {reason}. Cut over to another version first."
            )
        self.released.add(request.version)
        return release_pb2.Release(
            version=request.version,
            drained=not self.undrained,
            undrained_fronts=self.undrained,
            view_pending=self.view_pending,
        )

    async def ReinstateVersion(
        self, request: release_pb2.ReinstateVersionRequest, context: Any
    ) -> release_pb2.ReinstateVersionResponse:
        await self.calls.note("ReinstateVersion")
        self.actors.append(request.claimed_actor)
        self.released.discard(request.version)
        return release_pb2.ReinstateVersionResponse()


class FakeReplayer(replayer_pb2_grpc.ReplayerServicer):
    """Runs and tables by the name of the version."""

    def __init__(self, calls: Calls, switcher: FakeSwitcher) -> None:
        self.calls = calls
        self.switcher = switcher
        self.runs: dict[str, int] = {}
        self.tables: set[str] = set()
        self.dropped: list[str] = []

    def start(self, version: str) -> None:
        self.runs[version] = _Run.TAILING
        self.tables.add(version)

    async def StopRun(self, request: run_pb2.StopRunRequest, context: Any) -> _Run:
        await self.calls.note("StopRun")
        version = self._version(request.name)
        assert version in self.switcher.released, "a run was stopped while readers may still be sent to it"
        self.runs[version] = _Run.STOPPED
        return _Run(name=request.name, state=_Run.STOPPED)

    async def ResumeRun(self, request: run_pb2.ResumeRunRequest, context: Any) -> _Run:
        await self.calls.note("ResumeRun")
        version = self._version(request.name)
        if version not in self.tables:
            raise FailedPrecondition("TABLE_DROPPED", "The table is gone.")
        self.runs[version] = _Run.QUEUED
        return _Run(name=request.name, state=_Run.QUEUED)

    async def DropTable(self, request: table_pb2.DropTableRequest, context: Any) -> table_pb2.DropTableResponse:
        await self.calls.note("DropTable")
        if self.runs.get(request.version, _Run.STOPPED) != _Run.STOPPED:
            raise FailedPrecondition("RUN_NOT_STOPPED", "The run is not stopped.")
        assert request.version in self.switcher.released, "a table was dropped that routes may name"
        if request.version not in self.tables:
            return table_pb2.DropTableResponse(dropped=False)
        self.tables.discard(request.version)
        self.dropped.append(request.version)
        return table_pb2.DropTableResponse(dropped=True)

    def _version(self, run: str) -> str:
        version = run.removesuffix("/run")
        if version not in self.runs:
            raise NotFound("RUN_NOT_FOUND", f"{version} has no run.")
        return version


class FakeApp(ServiceApp):
    """Both in one process."""

    name = "fakes"
    service_names: tuple[str, ...] = ("turnout.switcher.v1.Switcher", "turnout.replayer.v1.Replayer")

    def __init__(self) -> None:
        self.calls = Calls()
        self.switcher = FakeSwitcher(self.calls)  # type: ignore[abstract]  # only what a retirement calls
        self.replayer = FakeReplayer(self.calls, self.switcher)  # type: ignore[abstract]  # the same

    def register(self, server: grpc.aio.Server) -> None:
        switcher_pb2_grpc.add_SwitcherServicer_to_server(self.switcher, server)
        replayer_pb2_grpc.add_ReplayerServicer_to_server(self.replayer, server)

    async def start(self) -> None: ...

    async def stop(self) -> None: ...
