"""The product as processes: registry, switcher and query in one, each replayer in one of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.faults.plan import LEASE_S
from deploy.local.ports import HOST, free_port
from tests.support.eventually import eventually
from tests.support.processes import is_serving
from tests.support.workers import stat_of, worker_pids

_WITHIN_S: Final = 60.0
_OPTIONS: Final = (
    *("--run-lease-s", str(LEASE_S), "--reader-lease-s", "2"),
    *("--max-stale-active-s", "5", "--max-stale-experiment-s", "3"),
)


@dataclass(frozen=True, slots=True)
class Addresses:
    """What a process is told of PostgreSQL (a URL) and Kafka (HOST:PORT)."""

    postgres: str
    kafka: str


class Service:
    """One process of some services, on a port that it keeps."""

    def __init__(
        self,
        name: str,
        services: Sequence[str],
        addresses: Addresses,
        directory: Path,
        options: Sequence[str] = _OPTIONS,
    ) -> None:
        self.name = name
        self.target = f"{HOST}:{free_port()}"
        self.log = directory / f"{name}.log"
        self._services = services
        self._addresses = addresses
        self._directory = directory / name
        self._options = options
        self._others: dict[str, str] = {}
        self._process: asyncio.subprocess.Process | None = None

    def know(self, targets: dict[str, str]) -> None:
        """Where the other services are."""
        self._others = targets

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Returns when it is SERVING."""
        assert self._process is None, f"{self.name} runs already"
        command = [sys.executable, "-m", "services", *self._services, "--listen", self.target]
        for service, target in self._others.items():
            if service != "query":
                command += [f"--{service}", target]
        command += ["--kafka", self._addresses.kafka, "--data-dir", str(self._directory), *self._options]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "TURNOUT_POSTGRES": self._addresses.postgres},
                start_new_session=True,
            )
        await eventually(self._serving, _WITHIN_S)

    async def _serving(self) -> bool:
        assert self._process is not None
        if self._process.returncode is not None:
            raise RuntimeError(f"{self.name} ended with status {self._process.returncode}; its log is {self.log}")
        return await is_serving(self.target)

    async def kill(self) -> None:
        """SIGKILL to the process alone: its workers have to notice by themselves."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            await process.wait()

    async def stop(self) -> None:
        """SIGTERM; SIGKILL when it does not end in time."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 20.0)
        except TimeoutError:
            process.kill()
            await process.wait()


class Workers:
    """The worker processes of the replayers, found in /proc; those of replayers that are gone are remembered."""

    def __init__(self, replayers: Sequence[Service]) -> None:
        self._replayers = replayers
        self._seen: dict[int, str] = {}  # process id -> when it began, so that a used id is not taken for it

    def alive(self) -> list[int]:
        """Of the replayers that live, sorted."""
        found = []
        for replayer in self._replayers:
            for pid in worker_pids(replayer.pid):
                with contextlib.suppress(OSError):
                    self._seen[pid] = stat_of(pid)[19]
                    found.append(pid)
        return sorted(found)

    def orphans(self) -> list[int]:
        """Once seen, still there, and no longer of a living replayer."""
        alive = set(self.alive())
        return [pid for pid in self._seen if pid not in alive and self._is_still(pid)]

    def _is_still(self, pid: int) -> bool:
        try:
            fields = stat_of(pid)
        except OSError:
            return False
        return fields[19] == self._seen[pid] and fields[0] != "Z"

    def end(self) -> None:
        """Kill what is left."""
        for pid in [*self.alive(), *self.orphans()]:
            send(pid, signal.SIGKILL)


def parent_of(pid: int) -> int:
    """The process that started it."""
    return int(stat_of(pid)[1])


def send(pid: int, number: signal.Signals) -> bool:
    """Whether the process was there to get the signal."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
