"""The tests' own tools, since every other test believes them."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.support import ports
from tests.support.databases import fresh_database, with_database
from tests.support.eventually import eventually
from tests.support.ports import listens, own_port
from tests.support.proxy import TcpProxy
from tests.support.topics import Record, Topics


async def test_eventually() -> None:
    answers = iter([0, 0, 7])

    async def count() -> int:
        return next(answers)

    assert await eventually(count, every_s=0) == 7


async def test_eventually_fails_with_the_last_answer() -> None:
    async def zero() -> int:
        return 0

    async def refuse() -> None:
        raise AssertionError("two rows, not three")

    with pytest.raises(AssertionError, match="the last answer was: 0"):
        await eventually(zero, deadline_s=0)
    with pytest.raises(AssertionError, match="the last answer was: two rows, not three"):
        await eventually(refuse, deadline_s=0)


async def test_every_test_has_its_own_database(postgres: str) -> None:
    open_until_dropped = []
    async with fresh_database(postgres) as other:
        assert other != postgres
        assert other == with_database(postgres, other.rpartition("/")[2].partition("?")[0])
        for dsn in (postgres, other):
            connection = await asyncpg.connect(dsn)
            open_until_dropped.append(connection)
            await connection.execute("CREATE TABLE only_here ()")
    for connection in open_until_dropped:
        connection.terminate()


async def test_topics(kafka: Topics) -> None:
    topic = await kafka.create(2)
    await kafka.produce(topic, [Record(b"a", partition=0), Record(b"b", b"key", 1), Record(None, b"key", 1)])
    assert await kafka.end_offsets(topic) == {0: 1, 1: 2}
    await kafka.delete(topic)


_OTHER_SESSION = """
import fcntl, sys
from tests.support import ports
try:
    fcntl.lockf(ports._locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(sys.argv[1]))
except OSError:
    print("taken", flush=True)
sys.stdin.read()
"""


async def test_a_port_is_given_once_and_who_listens_there_is_known(echo: asyncio.Server) -> None:
    port = own_port()
    assert own_port() != port
    other = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _OTHER_SESSION, str(port)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert other.stdout is not None
    assert await other.stdout.readline() == b"taken\n"
    assert not listens(os.getpid(), port)
    async with echo:
        of_echo = echo.sockets[0].getsockname()[1]
        assert listens(os.getpid(), of_echo)
        assert not listens(other.pid, of_echo), "a stranger"
    assert other.stdin is not None
    other.stdin.close()
    assert await other.wait() == 0


def test_a_lock_file_that_cannot_be_opened_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ports, "_LOCKS", tmp_path / "none" / "ports.lock")
    monkeypatch.setattr(ports, "_locks", ports._locks.__wrapped__)
    with pytest.raises(RuntimeError, match=r"ports\.lock, by which test sessions share ports, cannot be opened"):
        own_port()


def test_a_lock_file_that_takes_no_locks_is_no_port_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none_left)
    with pytest.raises(OSError, match="No locks available"):
        own_port()


@pytest.mark.parametrize("locked", [True, False], ids=["by listeners", "by other sessions"])
def test_where_every_port_is_taken_that_is_said(monkeypatch: pytest.MonkeyPatch, locked: bool) -> None:
    def lock(_: int) -> bool:
        return locked

    def not_free(_: int) -> bool:
        return False

    for name, value in {"_given": set(), "_lock": lock, "is_free": not_free}.items():
        monkeypatch.setattr(ports, name, value)
    with pytest.raises(RuntimeError, match=r"None of 1,000 ports from 10000 to 19999 was free\. End test sessions"):
        own_port()


@pytest.fixture
async def echo() -> asyncio.Server:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(100):
                writer.write(chunk)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()

    return await asyncio.start_server(answer, "127.0.0.1", 0)


async def _say(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], word: bytes) -> bytes:
    connection[1].write(word)
    return await connection[0].readexactly(len(word))


async def test_proxy(echo: asyncio.Server) -> None:
    async with echo, TcpProxy("127.0.0.1", echo.sockets[0].getsockname()[1]) as proxy:
        connection = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await _say(connection, b"hello") == b"hello"
        assert proxy.connections == 1

        proxy.stall()
        said = asyncio.ensure_future(_say(connection, b"later"))
        done, _ = await asyncio.wait([said], timeout=0.05)
        assert not done
        await proxy.restore()
        assert await said == b"later"

        await proxy.cut()
        assert proxy.connections == 0
        with pytest.raises(OSError, match="reset"):
            await connection[0].read()
        with pytest.raises(OSError, match="Connect call failed"):
            await asyncio.open_connection("127.0.0.1", proxy.port)

        await proxy.restore()
        connection = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await _say(connection, b"again") == b"again"

        proxy.half_open()
        connection[1].write(b"anybody?")
        heard = asyncio.ensure_future(connection[0].read())
        done, _ = await asyncio.wait([heard], timeout=0.05)
        assert not done, "the client hears neither an answer nor an end"
        await proxy.cut()
        with pytest.raises(OSError, match="reset"):
            await heard
