"""The calls of a retirement to the switcher and the replayer: each with a deadline, an outcome instead of an error."""

from typing import cast

import grpc

from services.registry.retirement import Call, Done, Failed, Outcome, Released, Retirement
from turnout.replayer.v1 import replayer_pb2_grpc, run_pb2, table_pb2
from turnout.status import from_rpc_error
from turnout.switcher.v1 import release_pb2, switcher_pb2_grpc

CALL_S = 10.0


class Neighbours:
    """The switcher and the replayer, as a retirement needs them. call_s: deadline of each call."""

    def __init__(self, switcher: grpc.aio.Channel, replayer: grpc.aio.Channel, *, call_s: float = CALL_S) -> None:
        self._switcher = cast("switcher_pb2_grpc.SwitcherAsyncStub", switcher_pb2_grpc.SwitcherStub(switcher))
        self._replayer = cast("replayer_pb2_grpc.ReplayerAsyncStub", replayer_pb2_grpc.ReplayerStub(replayer))
        self.call_s = call_s

    async def make(self, call: Call, retirement: Retirement) -> Outcome:
        """Make the call, and tell what came of it."""
        service = "switcher" if call in (Call.RELEASE, Call.REINSTATE) else "replayer"
        try:
            return await self._make(call, retirement)
        except grpc.aio.AioRpcError as error:
            return Failed(from_rpc_error(error, service))

    async def _make(self, call: Call, retirement: Retirement) -> Outcome:
        version = retirement.version
        match call:
            case Call.RELEASE:
                request = release_pb2.ReleaseVersionRequest(
                    version=version.name,
                    forgo_rollback=retirement.forgo_rollback,
                    claimed_actor=retirement.claimed_actor,
                )
                release = await self._switcher.ReleaseVersion(request, timeout=self.call_s)
                return Released(tuple(release.undrained_fronts), release.drained, release.view_pending)
            case Call.REINSTATE:
                reinstate = release_pb2.ReinstateVersionRequest(
                    version=version.name, claimed_actor=retirement.claimed_actor
                )
                await self._switcher.ReinstateVersion(reinstate, timeout=self.call_s)
            case Call.STOP_RUN:
                stop = run_pb2.StopRunRequest(name=version.run_name)
                await self._replayer.StopRun(stop, timeout=self.call_s)
            case Call.RESUME_RUN:
                resume = run_pb2.ResumeRunRequest(name=version.run_name)
                await self._replayer.ResumeRun(resume, timeout=self.call_s)
            case Call.DROP_TABLE:
                drop = table_pb2.DropTableRequest(version=version.name)
                await self._replayer.DropTable(drop, timeout=self.call_s)
        return Done()
