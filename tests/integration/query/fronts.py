"""A real front on a port, and values for its requests."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import asyncpg
import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from core.config import Settings
from core.kafka.properties import KafkaConfig
from core.rpc.server import RpcServer
from services.query.app import QueryApp, build
from tests.support.ports import own_port
from turnout.query.v1 import query_pb2 as pb
from turnout.query.v1 import query_pb2_grpc

POSITIONS = (Path(__file__).parents[3] / "services/replayer/migrations/0001_serving.sql").read_text(encoding="utf-8")
TOPIC_IDS = "alter table serving.positions add column topic_id text"  # as a later migration does
TIMEOUT_S = 20.0


class FrontProcess:
    """The query service with its real server and interceptors. `query` is a client of it."""

    def __init__(self, postgres: str, switcher: str, data_dir: Path, **settings: Any) -> None:
        self.settings = Settings(
            listen=f"127.0.0.1:{own_port()}",
            kafka=KafkaConfig.of_bootstrap("127.0.0.1:1"),  # no front speaks to Kafka
            postgres=postgres,
            data_dir=data_dir,
            registry_target=switcher,
            replayer_target=switcher,
            switcher_target=switcher,
        )
        self.settings = dataclasses.replace(self.settings, **settings)

    async def start(self) -> None:
        self.app: QueryApp = build(self.settings)
        self._server = RpcServer(self.settings.listen, [self.app])
        await self._server.start()
        self._channel = grpc.aio.insecure_channel(self.settings.listen)
        self.query: Any = query_pb2_grpc.QueryStub(self._channel)

    async def stop(self) -> None:
        await self._channel.close()
        await self._server.stop(grace_s=1)

    # --- reads ---

    async def get(self, *key: pb.Value, job: str = "j", unit: str = "", version: int = 0) -> pb.GetResponse:
        request = pb.GetRequest(job=f"jobs/{job}", key=pb.Key(values=key), unit=unit, version=version)
        response: pb.GetResponse = await self.query.Get(request, timeout=TIMEOUT_S)
        return response

    async def batch(self, *keys: pb.Key, job: str = "j", unit: str = "", version: int = 0) -> pb.BatchGetResponse:
        request = pb.BatchGetRequest(job=f"jobs/{job}", keys=keys, unit=unit, version=version)
        response: pb.BatchGetResponse = await self.query.BatchGet(request, timeout=TIMEOUT_S)
        return response

    async def scan(self, *order_by: str, job: str = "j", limit: int = 0, unit: str = "", version: int = 0) -> Scanned:
        order = [pb.ScanRequest.OrderBy(column=c.removeprefix("-"), descending=c.startswith("-")) for c in order_by]
        request = pb.ScanRequest(job=f"jobs/{job}", order_by=order, limit=limit, unit=unit, version=version)
        return Scanned([page async for page in self.query.Scan(request, timeout=TIMEOUT_S)])


class Scanned:
    """All pages of a scan."""

    def __init__(self, pages: list[pb.ScanResponse]) -> None:
        self.pages = pages
        self.served = pages[0].served
        self.rows = [plain(row) for page in pages for row in page.rows]


def i(value: int) -> pb.Value:
    return pb.Value(int64_value=value)


def s(value: str) -> pb.Value:
    return pb.Value(string_value=value)


def key(*values: pb.Value) -> pb.Key:
    return pb.Key(values=values)


def plain(row: pb.Row) -> list[Any]:
    """The values of a row, null as None."""
    return [None if (kind := value.WhichOneof("kind")) is None else getattr(value, kind) for value in row.values]


def error_of(error: grpc.aio.AioRpcError) -> tuple[grpc.StatusCode, str, str]:
    """Code, reason and message."""
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    assert status is not None, error
    status.details[0].Unpack(info)
    assert info.domain == "turnout"
    return error.code(), info.reason, error.details() or ""


async def refused(call: Any) -> tuple[grpc.StatusCode, str, str]:
    """Code, reason and message of a call that has to fail."""
    try:
        response = await call
    except grpc.aio.AioRpcError as error:
        return error_of(error)
    raise AssertionError(f"it was answered: {response}")


class Serving:
    """The schema that a replayer would write: tables by SQL, positions beside them."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    @classmethod
    async def create(cls, dsn: str) -> Serving:
        connection = await asyncpg.connect(dsn)
        await connection.execute(POSITIONS)
        await connection.execute(TOPIC_IDS)
        return cls(connection)

    async def sql(self, statement: str, *arguments: Any) -> None:
        await self.connection.execute(statement, *arguments)

    async def numbers(self, version: int, rows: dict[int, str], *, job: str = "j", offset: int = 0) -> None:
        """The simplest table: id -> text, and one position."""
        table = f"serving.{job}__v{version}"
        await self.sql(f"create table {table} (id bigint primary key, name text)")
        await self.connection.executemany(f"insert into {table} values ($1, $2)", list(rows.items()))
        await self.position(version, offset, job=job)

    async def position(
        self, version: int, offset: int, *, partition: int = 0, topic: str = "t", job: str = "j", event_time: Any = None
    ) -> None:
        await self.sql(
            """insert into serving.positions (version, topic, partition, start_offset, next_offset, event_time)
            values ($1, $2, $3, 0, $4, $5)
            on conflict (version, topic, partition)
            do update set next_offset = excluded.next_offset, event_time = excluded.event_time""",
            f"jobs/{job}/versions/{version}",
            topic,
            partition,
            offset,
            event_time,
        )

    async def drop(self, version: int, *, job: str = "j") -> None:
        await self.sql(f"drop table serving.{job}__v{version}")
        await self.sql("delete from serving.positions where version = $1", f"jobs/{job}/versions/{version}")
