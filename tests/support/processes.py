"""The services as real processes, all four in one or each on its own, killed and started again at will."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.eventually import eventually
from tests.support.ports import HOST, listens, own_port

SERVICES = ("registry", "replayer", "switcher", "query")
ALL_IN_ONE = "services"

_SERVING_WITHIN_S = 60.0
_STOP_WITHIN_S = 30.0
_LOG_TAIL_CHARACTERS = 4000


class ServiceProcesses:
    """`python -m services` on a database and a broker.

        async with ServiceProcesses(postgres=dsn, kafka="127.0.0.1:9092", data_dir=tmp_path) as services:
            services.target("query")            # HOST:PORT
            await services.kill("query")        # SIGKILL
            await services.start("query")       # the same port again, returns when it is SERVING

    One process by default, named "services", in which every service is found; with `separate=True` one process a
    service, on a port of its own, but for those that are `elsewhere` (service -> HOST:PORT). `options` are passed on to
    every process (for example ["--run-lease-s", "1"]).
    """

    def __init__(
        self,
        *,
        postgres: str,
        kafka: str,
        data_dir: Path,
        separate: bool = False,
        elsewhere: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir
        self._elsewhere = dict(elsewhere or {})
        names = SERVICES if separate else (ALL_IN_ONE,)
        self.names: tuple[str, ...] = tuple(name for name in names if name not in self._elsewhere)
        """Names of the processes."""
        self._kafka = kafka
        self._options = list(options)
        self._environment = {**os.environ, **(environment or {}), "TURNOUT_POSTGRES": postgres}
        self._ports = {name: own_port() for name in self.names}
        self._processes: dict[str, asyncio.subprocess.Process] = {}

    async def __aenter__(self) -> ServiceProcesses:
        try:
            # At once: each must wait for the others as it would anywhere else.
            await asyncio.gather(*(self.start(name) for name in self.names))
        except BaseException:
            await self._end_all()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._end_all()

    def target(self, service: str) -> str:
        """HOST:PORT of a service, or of a process."""
        return self._elsewhere.get(service) or f"{HOST}:{self._ports[self._process_of(service)]}"

    def pid(self, service: str) -> int:
        return self._processes[self._process_of(service)].pid

    def log(self, service: str) -> Path:
        """File with everything that the process wrote, over all its starts."""
        return self.data_dir / f"{self._process_of(service)}.log"

    async def start(self, service: str) -> None:
        """Start it on its port; returns when its health is SERVING."""
        name = self._process_of(service)
        assert name not in self._processes, f"{name} runs already"
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("ab") as log:
            self._processes[name] = await asyncio.create_subprocess_exec(
                *self._command(name),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        await eventually(lambda: self._serving(name), _SERVING_WITHIN_S)

    async def kill(self, service: str) -> None:
        """SIGKILL to the process alone. What it started has to notice by itself."""
        process = self._processes.pop(self._process_of(service))
        process.kill()
        await process.wait()

    async def stop(self, service: str) -> int:
        """SIGTERM, and its exit status. Fails when it does not end in time."""
        process = self._processes.pop(self._process_of(service))
        process.terminate()
        try:
            return await asyncio.wait_for(process.wait(), _STOP_WITHIN_S)
        finally:
            _kill_group(process.pid)

    def _process_of(self, service: str) -> str:
        return service if service in self.names else ALL_IN_ONE

    def _command(self, name: str) -> list[str]:
        command = [sys.executable, "-m", "services"]
        if name != ALL_IN_ONE:
            command.append(name)
            for other in ("registry", "replayer", "switcher"):
                command += [f"--{other}", self.target(other)]
        command += ["--listen", self.target(name), "--kafka", self._kafka, "--data-dir", str(self.data_dir)]
        return command + self._options

    async def _serving(self, name: str) -> bool:
        process = self._processes[name]
        if process.returncode is not None:
            said = self.log(name).read_text(errors="replace")[-_LOG_TAIL_CHARACTERS:]
            raise RuntimeError(f"{name} ended with status {process.returncode}:\n{said}")
        # Who answers there may be a stranger, while the process finds that the port is taken.
        return listens(process.pid, self._ports[name]) and await is_serving(self.target(name))

    async def _end_all(self) -> None:
        for name in list(self._processes):
            with contextlib.suppress(TimeoutError):
                await self.stop(name)


async def is_serving(target: str, service: str = "") -> bool:
    """Whether the standard gRPC health of the target says SERVING."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=2)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _kill_group(leader: int) -> None:
    """End what is left of a process's session, so that a failed test leaves nothing behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
