"""The way to the switcher: a channel that is left for a new one when whoever it leads to has fallen silent.

A process that is frozen, or a machine whose packets are lost, keeps its connection open: gRPC goes on to use it, and
where there are several switchers no other one is asked. Channels of a link must not share connections with others.
"""

import asyncio
from collections.abc import Callable
from typing import cast

import grpc

from turnout.switcher.v1 import switcher_pb2_grpc
from turnout.tasks import end

LOCAL_CONNECTIONS: tuple[str, int] = ("grpc.use_local_subchannel_pool", 1)
"""The channel option by which a channel has connections of its own."""
_ENDING_S = 15.0  # for calls over a channel that is left: longer than any of them lasts


class SwitcherLink:
    """The stub for the switcher over the newest channel. `make` opens one."""

    def __init__(self, make: Callable[[], grpc.aio.Channel]) -> None:
        self._make = make
        self._leaving: set[asyncio.Task[None]] = set()
        self._open()

    def _open(self) -> None:
        self._channel = self._make()
        self.stub = cast("switcher_pb2_grpc.SwitcherAsyncStub", switcher_pb2_grpc.SwitcherStub(self._channel))

    def renew(self) -> None:
        """Go on over a new channel; calls over the one before may end."""
        leaving = asyncio.create_task(self._channel.close(_ENDING_S))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        self._open()

    async def close(self) -> None:
        """Close every channel."""
        await end(*self._leaving)
        await self._channel.close()
