"""Several processes of one service behind one port: a supervisor that starts them, and starts again what dies.

Each is `python -m services` with the arguments of the supervisor, a number of its own and a directory by that number,
and is to everybody else a process like any other: a query front has its own reader lease and stored routes. The kernel
spreads *connections* over the processes that listen (SO_REUSEPORT), not calls: what a client sends on one connection is
answered by one process.

The supervisor holds the port with a socket that never listens, so that nobody else takes it while a process is being
started again. A process that the supervisor has lost, because it was killed, finds the end of its input and stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time
from collections.abc import Sequence

from turnout.errors import InvalidInput

log = logging.getLogger(__name__)

REFUSED = 2
"""The exit status of a process that was given something that it cannot start with: it would say the same again."""

_WAIT_S = 0.2
_WAIT_S_MAX = 5.0
_STEADY_S = 10.0  # a process that ran for so long is started again at once
_STOP_S = 30.0


class Port:
    """An address, held for the processes that will listen on it."""

    def __init__(self, listen: str) -> None:
        """InvalidInput when another process listens there."""
        host, _, port = listen.rpartition(":")
        if listen.startswith("unix:") or not port.isdecimal():
            raise InvalidInput("INVALID_LISTEN", f"Several processes share a port, and {listen} is no HOST:PORT.")
        family, kind, _, _, address = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as alone:
            # To share a port is up to each socket: this one asks whether it is free, as one that does not share.
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                alone.bind(address)
            except OSError:
                raise InvalidInput(
                    "PORT_TAKEN", f"Cannot listen on {listen}: another process has it. Choose another with --listen."
                ) from None
            address = alone.getsockname()
        self._held = socket.socket(family, kind)
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._held.bind(address)
        self.listen = f"{host}:{address[1]}"

    def close(self) -> None:
        """Let the port go."""
        self._held.close()


async def supervise(arguments: Sequence[str], count: int, listen: str) -> int:
    """Run so many processes until SIGTERM or SIGINT, which they are given too; the exit status.

    arguments: of `python -m services`. InvalidInput when the port is taken.
    """
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    with contextlib.closing(Port(listen)) as port:
        shared = [*arguments, "--listen", port.listen]
        keeping = [
            asyncio.create_task(_keep([*shared, "--process", str(number)], number, stopping))
            for number in range(1, count + 1)
        ]
        return max(await asyncio.gather(*keeping))


async def _keep(arguments: Sequence[str], number: int, stopping: asyncio.Event) -> int:
    """Run one process, again and again, until told to stop or refused."""
    wait_s = _WAIT_S
    while not stopping.is_set():
        began_s = time.monotonic()
        status = await _run(arguments, stopping)
        if status == REFUSED:
            stopping.set()  # it has said why, and the others would or will say the same
            return status
        if stopping.is_set():
            return 0
        wait_s = _WAIT_S if time.monotonic() - began_s >= _STEADY_S else min(_WAIT_S_MAX, wait_s * 2)
        log.error("process %d ended with status %d and is started again in %.1f s", number, status, wait_s)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), wait_s)
    return 0


async def _run(arguments: Sequence[str], stopping: asyncio.Event) -> int:
    """One life of a process; its exit status."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services", *arguments),
        stdin=asyncio.subprocess.PIPE,
        start_new_session=True,  # a Ctrl-C is for the supervisor, who passes it on
    )
    ended, stopped = asyncio.create_task(process.wait()), asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait([ended, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            process.terminate()
            await asyncio.wait([ended], timeout=_STOP_S)
    finally:
        stopped.cancel()
        if not ended.done():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    return await ended
