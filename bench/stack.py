"""Everything a measurement needs: the embedded Kafka and PostgreSQL, a database of its own, the four services."""

import asyncio
import contextlib
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.local.ports import HOST, free_port
from deploy.local.stack import LocalStack
from tests.support.workers import worker_pids
from turnout.client import Client

_SERVING_S: Final = 60.0


@dataclass(frozen=True)
class Stack:
    """Addresses, a client of the services, and a connection to look at tables with."""

    kafka: str
    postgres: str = field(repr=False)
    target: str
    client: Client
    look: Any
    services_pid: int
    directory: Path

    def workers(self) -> list[int]:
        """Process ids of the worker processes that live now; none where the system has no /proc."""
        return worker_pids(self.services_pid)


@asynccontextmanager
async def running(data_dir: Path | None, options: Sequence[str] = ()) -> AsyncIterator[Stack]:
    """Start everything, and end it afterwards. `data_dir` None = a temporary one; else topics are kept in it.
    `options` go to the services."""
    task = asyncio.current_task()
    assert task is not None
    # Like Ctrl-C: whoever ends a benchmark that takes too long leaves nothing running.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.ExitStack() as cleanup:
        directory = data_dir or Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="turnout-bench-")))
        async with (
            LocalStack(directory) as local,
            _database(local.postgres) as postgres,
            _services(local.kafka, postgres, directory / f"services-{secrets.token_hex(4)}", options) as (target, pid),
            Client(target, actor="bench") as client,
        ):
            look = await asyncpg.connect(postgres)
            try:
                yield Stack(local.kafka, postgres, target, client, look, pid, directory)
            finally:
                await look.close()


@asynccontextmanager
async def _database(server: str) -> AsyncIterator[str]:
    """An empty database, dropped afterwards."""
    name = f"bench_{secrets.token_hex(4)}"
    await _execute(server, f'create database "{name}"')
    try:
        yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    finally:
        await _execute(server, f'drop database "{name}" with (force)')


async def _execute(server: str, statement: str) -> None:
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@dataclass(frozen=True)
class Front:
    """A front's target and process id."""

    target: str
    pid: int


@asynccontextmanager
async def front(stack: Stack) -> AsyncIterator[Front]:
    """One more front, in a process of its own, as on a cluster."""
    others = [word for name in ("registry", "replayer", "switcher") for word in (f"--{name}", stack.target)]
    directory = stack.directory / f"front-{secrets.token_hex(4)}"
    async with _services(stack.kafka, stack.postgres, directory, ["query", *others]) as (target, pid):
        yield Front(target, pid)


@asynccontextmanager
async def _services(
    kafka: str, postgres: str, directory: Path, options: Sequence[str]
) -> AsyncIterator[tuple[str, int]]:
    """Services in one process, all four where the options name none: its target and process id."""
    directory.mkdir(parents=True, exist_ok=True)
    target = f"{HOST}:{free_port()}"
    log = directory / "services.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services", *options),
            *("--listen", target, "--kafka", kafka, "--data-dir", str(directory)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "TURNOUT_POSTGRES": postgres},
            start_new_session=True,
        )
    try:
        await _serving(process, target, log)
        yield target, process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _serving(process: asyncio.subprocess.Process, target: str, log: Path) -> None:
    deadline_s = asyncio.get_running_loop().time() + _SERVING_S
    while process.returncode is None and asyncio.get_running_loop().time() < deadline_s:
        with contextlib.suppress(grpc.aio.AioRpcError):
            async with grpc.aio.insecure_channel(target) as channel:
                stub: Any = health_pb2_grpc.HealthStub(channel)  # typed for the synchronous API only
                answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5.0)
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
        await asyncio.sleep(0.1)
    raise RuntimeError(f"the services did not start; {log} ends:\n{log.read_text(encoding='utf-8')[-2000:]}")
