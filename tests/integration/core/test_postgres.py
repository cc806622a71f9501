"""Nothing that waits for PostgreSQL waits for ever."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from core.postgres import is_away, open_pool, postgres_errors
from tests.support.proxy import TcpProxy
from turnout.errors import Unavailable
from turnout.postgres import pool


@pytest.fixture
async def proxy(postgres: str) -> AsyncIterator[TcpProxy]:
    parts = urlsplit(postgres)
    async with TcpProxy(parts.hostname or "", parts.port or 5432) as started:
        yield started


@pytest.fixture
def through(postgres: str, proxy: TcpProxy) -> str:
    """The test's database through the proxy."""
    parts = urlsplit(postgres)
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{proxy.port}"))


async def test_a_connection_lost_on_the_servers_side_only_is_given_up(proxy: TcpProxy, through: str) -> None:
    """Inside a transaction too, whose end has to be waited for as well."""
    opened = await open_pool(through, application_name="test", max_size=1, command_timeout_s=0.3)

    async def lost() -> None:
        with postgres_errors():
            async with opened.acquire() as connection, connection.transaction():
                await connection.execute("select 1")
                proxy.half_open()
                await connection.execute("select 1")

    async with asyncio.timeout(30):
        with pytest.raises(Unavailable):
            await lost()
        assert await opened.fetchval("select 2", timeout=30) == 2, "over a new connection"
    opened.terminate()


async def test_a_slow_statement_has_a_limit_unless_it_brings_its_own(postgres: str) -> None:
    opened = await open_pool(postgres, application_name="test", max_size=1, command_timeout_s=1.0)
    with pytest.raises(Unavailable, match="TimeoutError"), postgres_errors():
        await opened.execute("select pg_sleep(60)")
    await opened.execute("select pg_sleep(1.2)", timeout=60)
    await opened.close()


async def test_a_pool_without_a_free_connection_has_a_limit(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = await open_pool(postgres, application_name="test", max_size=1)
    async with opened.acquire():
        with monkeypatch.context() as short:
            short.setattr(pool, "ACQUIRE_TIMEOUT_S", 0.1)
            with pytest.raises(Unavailable), postgres_errors():
                await opened.execute("select 1")
    assert await opened.fetchval("select 1") == 1
    await opened.close()


async def test_a_cancelled_statement_says_nothing_against_it(postgres: str) -> None:
    opened = await open_pool(postgres, application_name="test", settings={"statement_timeout": "1s"})
    with pytest.raises(asyncpg.QueryCanceledError) as caught:
        await opened.execute("select pg_sleep(60)")
    assert is_away(caught.value)
    await opened.close()
