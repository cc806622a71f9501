"""The client as a whole."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from turnout.addresses import DEFAULT_TARGET
from turnout.client.audits import AuditCalls
from turnout.client.connection import SERVICES, Connections
from turnout.client.direct import Direct
from turnout.client.experiments import ExperimentCalls
from turnout.client.fronts import FrontReads
from turnout.client.query import QueryCalls
from turnout.client.readers import Reader
from turnout.client.rollouts import RolloutCalls
from turnout.client.shadows import ShadowCalls
from turnout.client.switcher import SwitcherCalls
from turnout.errors import InvalidInput

if TYPE_CHECKING:
    from turnout.direct.reads import DirectReads

_REPLICATED = ("query", "switcher")  # of which one client may be given several


class Client(AuditCalls, SwitcherCalls, ShadowCalls, ExperimentCalls, RolloutCalls, QueryCalls):
    """Turnout over gRPC, one channel for each distinct target.

    target: "host:port" of all four services, or several IP addresses parted by commas, replicas of which the first that
    answers is used. targets: one for each service that is called, by "registry", "replayer", "switcher", "query",
    instead of `target`; several fronts for "query", several replicas for "switcher". direct: reads come straight from
    PostgreSQL, whose URL it is, or the settings that `Direct` describes; the client is then a front to the switcher,
    and needs targets for switcher and registry. actor: who changes things, for the audit; a claim, since there is no
    authentication yet; None = user@host. timeout_s: default deadline of every call; None = 10 s for what is quick, 60 s
    for a change of a route, 120 s for an upload, an estimate and a scan, an hour for a comparison. Each method takes
    its own, too.

    UNAVAILABLE alone is retried, until the deadline; a target that has never answered is given up after two seconds.
    With several fronts or switchers a call is tried once more, at once, on another one. Changes carry a request id, so
    that a retry is not a second change. Errors: `turnout.errors`.

    Use it as `async with Client() as client:`. Methods may run concurrently.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        targets: Mapping[str, str | Sequence[str]] | None = None,
        direct: Direct | str | None = None,
        actor: str | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self._connections = Connections(_by_service(target, targets), timeout_s)
        self._reader: Reader = FrontReads(self._connections)
        self._direct = Direct(direct) if isinstance(direct, str) else direct
        self._direct_reads: DirectReads | None = None
        self._actor = _user() if actor is None else actor

    async def __aenter__(self) -> Self:
        try:
            self._connections.open()
            if self._direct is not None:
                self._direct_reads = self._reader = _direct_reads(self._direct, self._connections)
                await self._direct_reads.open()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        if self._direct_reads is not None:
            await self._direct_reads.close()
        await self._connections.close()


def _direct_reads(settings: Direct, connections: Connections) -> DirectReads:
    try:
        from turnout.direct.reads import DirectReads  # needs a database driver, which other clients do without
    except ImportError as error:
        raise InvalidInput(
            "DIRECT_MISSING", f"Direct mode needs {error.name}, which is not installed: install turnout[direct]."
        ) from error
    return DirectReads(
        settings, connections.channels("switcher"), connections.channel("registry"), connections.deadline_s
    )


def _by_service(target: str | None, targets: Mapping[str, str | Sequence[str]] | None) -> Mapping[str, Sequence[str]]:
    if targets is None:
        return dict.fromkeys(SERVICES, (target or DEFAULT_TARGET,))
    if target is not None:
        raise InvalidInput("INVALID_TARGETS", "Give either target or targets, not both.")
    unknown = sorted(set(targets) - set(SERVICES))
    if unknown:
        raise InvalidInput(
            "INVALID_TARGETS", f"{', '.join(unknown)}: no such service. The services are {', '.join(SERVICES)}."
        )
    given = {service: (some,) if isinstance(some, str) else tuple(some) for service, some in targets.items()}
    for service, some in given.items():
        if not some or (len(some) > 1 and service not in _REPLICATED):
            raise InvalidInput(
                "INVALID_TARGETS",
                f"{service} has {len(some)} targets; give one, and several to {' and '.join(_REPLICATED)} alone, of "
                f"which any answers.",
            )
    return given


def _user() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
