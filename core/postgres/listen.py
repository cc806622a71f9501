"""LISTEN with reconnect: a hint that something may have changed. Whoever uses it polls behind it."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from turnout.postgres.away import is_away
from turnout.postgres.pool import connect
from turnout.tasks import end

log = logging.getLogger(__name__)

_RETRY_S = 0.5
_CHECK_S = 5.0


class Listener:
    """Calls what belongs to a channel for each notification on it, and all of them once after every (re)connect."""

    def __init__(self, dsn: str, channels: Mapping[str, Callable[[], None]]) -> None:
        self._dsn = dsn
        self._channels = channels
        self._named = ", ".join(channels)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen, in the background."""
        self._task = asyncio.create_task(self._run(), name=f"listen {self._named}")

    async def stop(self) -> None:
        """End listening."""
        await end(self._task)

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except Exception as error:
                if not is_away(error):
                    log.exception("listening on %s failed", self._named)
            await asyncio.sleep(_RETRY_S)

    async def _listen(self) -> None:
        connection = await connect(self._dsn, application_name="turnout listen", command_timeout_s=_CHECK_S)
        try:
            for channel in self._channels:
                await connection.add_listener(channel, self._notified)
            for told in self._channels.values():
                told()
            while not connection.is_closed():
                await asyncio.sleep(_CHECK_S)
                await connection.execute("select 1")
        finally:
            connection.terminate()

    def _notified(self, _connection: Any, _process: int, channel: str, _payload: str) -> None:
        self._channels[channel]()
