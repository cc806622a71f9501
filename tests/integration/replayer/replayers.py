"""Replayers in processes of their own, killed, frozen and stopped at will, with their workers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, cast

import grpc

from tests.integration.replayer.stage import Calls, Stage
from tests.support.eventually import eventually
from tests.support.ports import HOST, listens, own_port
from tests.support.processes import is_serving
from tests.support.workers import worker_pids
from turnout.channel import connect
from turnout.replayer.v1.replayer_pb2_grpc import ReplayerStub

if TYPE_CHECKING:
    from turnout.replayer.v1.replayer_pb2_grpc import ReplayerAsyncStub

_SERVING_WITHIN_S = 60.0
_STOP_WITHIN_S = 30.0


class Replica(Calls):
    """One replica, on the stage's database, broker and registry."""

    def __init__(self, process: asyncio.subprocess.Process, channel: grpc.aio.Channel, target: str) -> None:
        self.process = process
        self.target = target
        self._channel = channel

    @property
    def stub(self) -> ReplayerAsyncStub:
        return cast("ReplayerAsyncStub", ReplayerStub(self._channel))

    @property
    def workers(self) -> list[int]:
        return worker_pids(self.process.pid)

    def holds(self, owner: str) -> bool:
        """Whether a worker of this replica wrote its name there."""
        return f"-{self.process.pid}-" in owner

    def signal(self, number: signal.Signals, *, workers: bool = False) -> None:
        """To the replica alone, or to its workers as well."""
        for pid in [self.process.pid, *(self.workers if workers else ())]:
            os.kill(pid, number)

    async def kill(self) -> None:
        """SIGKILL to the process alone; its workers have to notice by themselves."""
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        """SIGTERM, and its exit status."""
        self.process.terminate()
        return await asyncio.wait_for(self.process.wait(), _STOP_WITHIN_S)


@contextlib.asynccontextmanager
async def replica(stage: Stage, name: str) -> AsyncIterator[Replica]:
    """A replica that is SERVING; what is left of it at the end is killed."""
    port = own_port()
    target = f"{HOST}:{port}"
    arguments = ["replayer", "--listen", target, "--kafka", stage.kafka.bootstrap, "--registry", stage.registry.target]
    arguments += ["--switcher", stage.registry.target]  # nobody reads here: that it is none changes nothing
    arguments += ["--data-dir", str(stage.directory / name), "--run-lease-s", str(stage.run_lease_s)]
    with (stage.directory / f"{name}.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services",
            *arguments,
            stdout=log,
            stderr=log,
            env={**os.environ, "TURNOUT_POSTGRES": stage.postgres},
        )
    try:
        async with connect(target) as channel:

            async def serves() -> bool:
                if process.returncode is not None:
                    raise RuntimeError(f"{name} ended with status {process.returncode}; its log is beside its data")
                return listens(process.pid, port) and await is_serving(target)

            await eventually(serves, _SERVING_WITHIN_S)
            yield Replica(process, channel, target)
    finally:
        for pid in worker_pids(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if process.returncode is None:
            process.kill()
            await process.wait()
