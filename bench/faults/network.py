"""The network between a replayer with its workers and PostgreSQL, broken inside a transaction on purpose."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

from tests.support.proxy import Connection

# What the workers' driver sends: the copy of a batch's rows, by either of the two ways into the table, and the end of
# its transaction.
_COPIES: Final = {b'COPY "serving".': "new rows", b'COPY "pg_temp"."staging"': "merged rows"}
_COMMIT: Final = b"COMMIT;\0"


class Transactions:
    """Watches what clients send to PostgreSQL through a proxy, for the transactions that write rows.

    `lose_answer`: the next such COMMIT reaches the server, its answer never the client. `hold`: the next such
    transaction stands still in its middle until `release`.
    """

    def __init__(self) -> None:
        self._writing: dict[Connection, str] = {}
        self.struck = ""  # the way into the table of the transaction that was caught last
        self._lose: asyncio.Future[Connection] | None = None
        self._hold: asyncio.Future[Connection] | None = None
        self._released = asyncio.Event()

    async def sent(self, connection: Connection, chunk: bytes) -> None:
        """A client is about to send this; called by the proxy."""
        way = next((way for copy, way in _COPIES.items() if copy in chunk), None)
        if way is not None:
            self._writing[connection] = way
            if self._hold is not None and not self._hold.done():
                self.struck = way
                self._hold.set_result(connection)
                await self._released.wait()
        if _COMMIT in chunk and connection in self._writing:
            way = self._writing.pop(connection)
            if self._lose is not None and not self._lose.done():
                self.struck = way
                connection.mute()
                self._lose.set_result(connection)

    async def lose_answer(self, within_s: float) -> Connection | None:
        """The connection whose answer is lost, once the server has given it; None if no such commit came in time."""
        self._lose = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(within_s):
                connection = await self._lose
                await connection.answered()
                return connection
        except TimeoutError:
            return None
        finally:
            self._lose = None

    async def hold(self, within_s: float) -> Connection | None:
        """The connection whose transaction stands still now; None if there was none in time. Release it afterwards."""
        self._released.clear()
        self._hold = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(within_s):
                return await self._hold
        except TimeoutError:
            return None
        finally:
            self._hold = None

    def release(self) -> None:
        """Let what is held go on to the server."""
        self._released.set()


def process_of(port: int, pids: list[int]) -> int | None:
    """Which of the processes has the client's end of the connection from that local port."""
    inode = _inode(port)
    for pid in pids:
        try:
            for link in Path(f"/proc/{pid}/fd").iterdir():
                if os.readlink(link) == f"socket:[{inode}]":
                    return pid
        except OSError:
            continue  # it has just ended, or closed the file
    return None


def _inode(port: int) -> str:
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == port and fields[9] != "0":
            return fields[9]
    return ""
