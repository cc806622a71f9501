"""The client as a whole."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from turnout.client.connection import SERVICES, Connections
from turnout.client.job_files import JobFileCalls
from turnout.client.query import QueryCalls
from turnout.client.replayer import ReplayerCalls
from turnout.client.switcher import SwitcherCalls
from turnout.errors import InvalidInput

DEFAULT_TARGET = "127.0.0.1:7400"


class Client(JobFileCalls, ReplayerCalls, SwitcherCalls, QueryCalls):
    """Turnout over gRPC, one channel for each distinct target.

    target: "host:port" of all four services. targets: one for each service that is called, by "registry", "replayer",
    "switcher", "query", instead of `target`. actor: who changes things, for the audit; a claim, since there is no
    authentication yet; None = user@host. timeout_s: default deadline of every call; None = 10 s for what is quick, 60 s
    for a change of a route, 120 s for an upload, an estimate, a comparison and a scan. Each method takes its own, too.

    UNAVAILABLE alone is retried, until the deadline; a target that has never answered is given up after two seconds.
    Changes carry a request id, so that a retry is not a second change. Errors: `turnout.errors`.

    Use it as `async with Client() as client:`. Methods may run concurrently.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        targets: Mapping[str, str] | None = None,
        actor: str | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self._connections = Connections(_by_service(target, targets), timeout_s)
        self._actor = _user() if actor is None else actor

    async def __aenter__(self) -> Self:
        self._connections.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._connections.close()


def _by_service(target: str | None, targets: Mapping[str, str] | None) -> Mapping[str, str]:
    if targets is None:
        return dict.fromkeys(SERVICES, target or DEFAULT_TARGET)
    if target is not None:
        raise InvalidInput("INVALID_TARGETS", "Give either target or targets, not both.")
    unknown = sorted(set(targets) - set(SERVICES))
    if unknown:
        raise InvalidInput(
            "INVALID_TARGETS", f"{', '.join(unknown)}: no such service. The services are {', '.join(SERVICES)}."
        )
    return dict(targets)


def _user() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
