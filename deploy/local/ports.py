"""TCP ports on 127.0.0.1."""

from __future__ import annotations

import random
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from deploy.local.errors import LocalStackError

HOST = "127.0.0.1"
DEFAULT_PORT = 7400  # of the services; the same as turnout.addresses, which the doctor runs without

# Below the range from which Linux and macOS give out the ports of outgoing connections: otherwise, while a server is
# down, a client that retries may be given the server's own port, and the server could not come back.
_FIRST, _LAST = 20_000, 32_000
_ATTEMPTS = 5


class PortTakenError(Exception):
    """A server could not listen on the port it was given."""


def free_port() -> int:
    """A port that nobody listens on now. Another process may take it before its use: see `on_a_port`."""
    ports = random.SystemRandom()
    while True:
        port = ports.randint(_FIRST, _LAST)
        if is_free(port):
            return port


def is_free(port: int, host: str = HOST) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT do not matter
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


async def on_a_port(
    what: str, port: int | None, launch: Callable[[int], Awaitable[None]], *, remembered: Path | None = None
) -> int:
    """Launch a server on the port, or on a free one, again when somebody was faster. Returns the port.

    `launch` raises PortTakenError when the server could not listen. The file `remembered` keeps the port that was
    found, so that addresses in other shells stay right: the next time it is the first choice if it is free.
    """
    if port is not None:
        try:
            if not is_free(port):
                raise PortTakenError
            await launch(port)
        except PortTakenError:
            raise taken(port, what) from None
        return port
    last_time = _port_in(remembered)
    for attempt in range(_ATTEMPTS):
        port = last_time if attempt == 0 and last_time is not None else free_port()
        try:
            await launch(port)
        except PortTakenError:
            continue
        if remembered is not None:
            remembered.write_text(f"{port}\n")
        return port
    raise LocalStackError(f"no free port for {what} was found in {_ATTEMPTS} attempts: start again")


def taken(port: int, what: str, *, option: str | None = None) -> LocalStackError:
    """The error for a port that is not free; `option` is the command line's way to choose another."""
    another = f"choose another port with {option}" if option else "choose another port"
    return LocalStackError(f"port {port} for {what} is taken by another process: stop that one, or {another}")


def _port_in(file: Path | None) -> int | None:
    """The port that the file keeps, if it is one that could be used now."""
    if file is None:
        return None
    try:
        port = int(file.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return port if _FIRST <= port <= _LAST and is_free(port) else None
