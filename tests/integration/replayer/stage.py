"""The replayer with everything around it that it needs, real, and jobs to run on it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import asyncpg
import grpc

from core.config import Settings
from core.kafka import KafkaConfig
from core.rpc.server import RpcServer
from services.replayer.app import ReplayerApp, build
from tests.integration.replayer.registry import Registered, SmallRegistry
from tests.support.eventually import eventually
from tests.support.topics import Record, Topics
from turnout import testing
from turnout.channel import connect
from turnout.errors import TurnoutError
from turnout.names import parse_version
from turnout.replayer.v1 import comparison_pb2, gate_pb2, replayer_pb2_grpc, run_pb2
from turnout.status import from_rpc_error

if TYPE_CHECKING:
    from turnout.replayer.v1.replayer_pb2_grpc import ReplayerAsyncStub

CALL_S = 30.0

AGGREGATE = '''
"""Departures and their delays by carrier."""
from turnout import Key, Record, Row, Sum, aggregate

class Flight(Record):
    carrier: str
    delay: int | None

class Punctuality(Row):
    carrier: Key[str]
    flights: Sum[int] = 1
    on_time: Sum[int] = 0
{columns}
@aggregate("punctuality", topic="{topic}", derived={{"share": "{share}"}}{options})
def punctuality(flight: Flight) -> Punctuality:
    return Punctuality(carrier=flight.carrier, on_time={on_time}{values})
'''
LATE_COUNTS_MISSING_AS_ON_TIME = "(flight.delay or 0) < 15"
ON_TIME = "flight.delay is not None and flight.delay < 15"


def aggregate_source(
    topic: str,
    *,
    on_time: str = LATE_COUNTS_MISSING_AS_ON_TIME,
    columns: str = "",
    values: str = "",
    options: str = "",
    share: str = "on_time::float8 / flights",
) -> str:
    """A job file: flights and those on time by carrier."""
    return AGGREGATE.format(topic=topic, on_time=on_time, columns=columns, values=values, options=options, share=share)


def flights(count: int, *, first: int = 0, partitions: int = 4) -> list[Record]:
    """Records numbered from `first`, spread over the partitions; each 7th has no delay."""
    return [
        Record(
            json.dumps({"carrier": f"C{n % 13}", "delay": None if n % 7 == 0 else n % 40}).encode(),
            partition=n % partitions,
        )
        for n in range(first, first + count)
    ]


class Calls:
    """What tests say to a replayer."""

    @property
    def stub(self) -> ReplayerAsyncStub:
        raise NotImplementedError

    async def call(self, method: str, request: Any, timeout_s: float = CALL_S) -> Any:
        """Call; a failed call raises the domain error behind it."""
        try:
            return await getattr(self.stub, method)(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "replayer") from None

    async def begin(self, version: str, **changes: Any) -> run_pb2.Run:
        return cast(run_pb2.Run, await self.call("StartRun", run_pb2.StartRunRequest(version=version, **changes)))

    async def get(self, version: str) -> run_pb2.Run:
        return cast(run_pb2.Run, await self.call("GetRun", run_pb2.GetRunRequest(name=f"{version}/run")))

    async def resume(self, version: str) -> run_pb2.Run:
        return cast(run_pb2.Run, await self.call("ResumeRun", run_pb2.ResumeRunRequest(name=f"{version}/run")))

    async def pause(self, version: str) -> run_pb2.Run:
        return cast(run_pb2.Run, await self.call("PauseRun", run_pb2.PauseRunRequest(name=f"{version}/run")))

    async def end(self, version: str) -> run_pb2.Run:
        return cast(run_pb2.Run, await self.call("StopRun", run_pb2.StopRunRequest(name=f"{version}/run")))

    async def gates(self, candidate: str, baseline: str = "") -> dict[str, gate_pb2.Gate]:
        request = gate_pb2.CheckGatesRequest(candidate=candidate, baseline=baseline)
        answer = await self.call("CheckGates", request)
        return {gate.gate: gate for gate in answer.gates}

    async def compare(self, old: str, new: str, **asked: Any) -> comparison_pb2.Comparison:
        """The finished comparison. Unless told otherwise, runs have time to come to the cut on a busy machine."""
        asked.setdefault("align_within", {"seconds": 20})
        return (
            await self.comparing(
                "CompareTables", comparison_pb2.CompareTablesRequest(old_version=old, new_version=new, **asked)
            )
        )[-1]

    async def comparing(self, method: str, request: Any, timeout_s: float = CALL_S) -> list[comparison_pb2.Comparison]:
        """Everything that a comparison says as it goes along."""
        try:
            return [found async for found in getattr(self.stub, method)(request, timeout=timeout_s)]
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "replayer") from None

    # --- waiting ---

    async def in_state(self, version: str, *states: str, deadline_s: float = 60.0) -> run_pb2.Run:
        """The run once it is in one of the states."""

        async def there() -> run_pb2.Run | None:
            run = await self.get(version)
            assert run_pb2.Run.State.Name(run.state) in states, f"{run_pb2.Run.State.Name(run.state)}: {run}"
            return run

        found = await eventually(there, deadline_s)
        assert found is not None
        return found

    async def applied(self, version: str, records: int, deadline_s: float = 60.0) -> run_pb2.Run:
        """The run once it has read so many records and is at the end of the log."""

        async def there() -> run_pb2.Run | None:
            run = await self.get(version)
            assert (run.records, run.lag) == (records, 0), f"{run.records} records, lag {run.lag}: {run}"
            return run

        found = await eventually(there, deadline_s)
        assert found is not None
        return found


class Stage(Calls):
    """A replayer in this process, its workers as real processes, on the test's own database and topics."""

    def __init__(self, postgres: str, kafka: Topics, directory: Path, *, bootstrap: str | None = None) -> None:
        self.kafka = kafka
        self.postgres = postgres
        self.directory = directory
        self.registry = SmallRegistry(directory)  # type: ignore[abstract]  # the others are UNIMPLEMENTED
        self._bootstrap = bootstrap or kafka.bootstrap
        self._server: RpcServer | None = None
        self._channel: grpc.aio.Channel | None = None
        self.app: ReplayerApp | None = None
        self.run_lease_s = 10.0
        self.switcher_target = "127.0.0.1:1"

    async def start(self) -> None:
        settings = Settings(
            listen="127.0.0.1:0",
            kafka=KafkaConfig.of_bootstrap(self._bootstrap),
            postgres=self.postgres,
            data_dir=self.directory / "data",
            registry_target=self.registry.target,
            replayer_target="",
            switcher_target=self.switcher_target,
            run_lease_s=self.run_lease_s,
        )
        self.app = build(settings)
        self._server = RpcServer(settings.listen, [self.app])
        self._channel = connect(f"127.0.0.1:{await self._server.start()}")

    async def stop(self) -> None:
        if self._channel is not None:
            await self._channel.close()
            self._channel = None
        if self._server is not None:
            await self._server.stop(grace_s=5.0)
            self._server = None

    @property
    def stub(self) -> ReplayerAsyncStub:
        assert self._channel is not None
        return cast("ReplayerAsyncStub", replayer_pb2_grpc.ReplayerStub(self._channel))

    async def tailed(self, version: str) -> int:
        """The process of the run's tail, once it holds partitions. A run in TAILING has for a moment the worker that
        copied, and then none, until that of the tail has taken its place."""

        async def there() -> int:
            assert self.app is not None
            supervisor = self.app._fleet._supervisors[parse_version(version)]
            workers = [(one.pid, one.background, one.working) for one in supervisor._slots.workers]
            assert [told[1:] for told in workers] == [(False, True)], workers
            return workers[0][0]

        await self.in_state(version, "TAILING")
        return await eventually(there, 60.0)

    # --- tables ---

    async def query(self, statement: str, *arguments: Any) -> list[Any]:
        connection = await asyncpg.connect(self.postgres)
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()

    async def rows(self, relation: str, columns: Sequence[str]) -> list[tuple[Any, ...]]:
        listed = ", ".join(columns)
        return [tuple(row) for row in await self.query(f"select {listed} from serving.{relation} order by 1")]

    async def table_is_that_of(self, version: Registered, records: Iterable[Record], number: int = 1) -> None:
        """The stored rows equal those that the job makes of the records in memory."""
        columns = [column.name for column in version.job.definition.columns]
        expected = testing.run(version.job, [record.value for record in records if record.value is not None])
        stored = await self.rows(f"punctuality__v{number}", columns)
        assert stored == [tuple(getattr(row, column) for column in columns) for row in expected]


async def refused(work: Any) -> TurnoutError:
    """The domain error that the awaited call fails with."""
    try:
        answer = await work
    except TurnoutError as error:
        return error
    raise AssertionError(f"it was not refused: {answer}")
