"""Everything that the rounds are played on: Kafka, PostgreSQL, the proxies before them, the product, the producer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, ParamSpec, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

from confluent_kafka.admin import AdminClient

from bench.faults.feed import SILENT, Feed
from bench.faults.network import Transactions
from bench.faults.product import Addresses, Service, Workers
from deploy.local.kafka import SecondListener
from deploy.local.ports import HOST, free_port
from deploy.local.stack import LocalStack
from tests.support.proxy import TcpProxy
from turnout.client import Client
from turnout.errors import DeadlineExceeded, Unavailable

P = ParamSpec("P")
T = TypeVar("T")

INSIST_S: Final = 60.0


class World:
    """Made whole again after every round by `mend`.

    Workers and replayers reach Kafka and PostgreSQL through the proxies; the producer, the comparison and the services
    beside the replayer reach them directly.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.transactions = Transactions()
        self.crashes = 0  # of PostgreSQL: each may take back what was committed asynchronously
        self.stack: LocalStack
        self.kafka_proxy: TcpProxy
        self.postgres_proxy: TcpProxy
        self.replayers: list[Service]
        self.workers: Workers
        self.client: Client
        self.feed: Feed
        self.admin: AdminClient
        self._replicas = 1
        self._mending = asyncio.Lock()
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._exits.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._exits.aclose()

    async def _open(self) -> None:
        enter = self._exits.enter_async_context
        second = free_port()
        self.kafka_proxy = await enter(TcpProxy(HOST, second))
        self.stack = await enter(LocalStack(self.directory, kafka_second=SecondListener(second, self.kafka_proxy.port)))
        url = urlsplit(self.stack.postgres)
        self.postgres_proxy = await enter(TcpProxy(HOST, url.port or 0, sent=self.transactions.sent))
        self.feed = Feed(self.stack.kafka)
        self.admin = AdminClient({"bootstrap.servers": self.stack.kafka}, logger=SILENT)
        await self._open_product(
            through=urlunsplit(url._replace(netloc=_at_port(url.netloc, self.postgres_proxy.port)))
        )

    async def _open_product(self, through: str) -> None:
        direct = Addresses(self.stack.postgres, self.stack.kafka)
        proxied = Addresses(through, f"{HOST}:{self.kafka_proxy.port}")
        others = Service("control", ("registry", "switcher", "query"), direct, self.directory)
        self.replayers = [
            Service(name, ("replayer",), proxied, self.directory) for name in ("replayer", "second-replayer")
        ]
        targets = dict.fromkeys(("registry", "switcher", "query"), others.target)
        targets["replayer"] = self.replayers[0].target
        self.workers = Workers(self.replayers)
        self._exits.callback(self.workers.end)
        for service in (others, *self.replayers):
            service.know(targets)
            self._exits.push_async_callback(service.stop)
        await asyncio.gather(others.start(), self.replayers[0].start())
        self.client = await self._exits.enter_async_context(Client(targets=targets, actor="bench"))
        await insist(self.client.update_capacity, copies_max=0)  # all jobs replay at once

    async def staff(self, replicas: int) -> None:
        """Let so many replayers share the runs."""
        self._replicas = replicas
        for replayer in self.replayers[replicas:]:
            await replayer.stop()
        await self.mend()

    async def mend(self) -> None:
        """Everything is up and connected again."""
        async with self._mending:
            await self.kafka_proxy.restore()
            await self.postgres_proxy.restore()
            self.transactions.release()
            await self.stack.start_postgres()
            await self.stack.start_kafka()
            for replayer in self.replayers[: self._replicas]:
                if replayer.pid is None:
                    await replayer.start()


def _at_port(netloc: str, port: int) -> str:
    return f"{netloc.rpartition(':')[0]}:{port}"


async def insist(call: Callable[P, Awaitable[T]], *arguments: P.args, **named: P.kwargs) -> T:
    """Call again while something is away, or no answer came in time: all that is called here may be repeated."""
    deadline_s = asyncio.get_running_loop().time() + INSIST_S
    while True:
        try:
            return await call(*arguments, **named)
        except (Unavailable, DeadlineExceeded):
            if asyncio.get_running_loop().time() > deadline_s:
                raise
            await asyncio.sleep(0.2)
