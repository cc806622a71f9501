"""The embedded stack: a real PostgreSQL and a real Kafka as child processes, for development, the demo and tests."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType

from deploy.local.child import Child
from deploy.local.errors import LocalStackError
from deploy.local.kafka import Kafka, SecondListener
from deploy.local.postgres import Postgres

FREE_BYTES_MIN = 1024**3


class LocalStack:
    """PostgreSQL and Kafka on 127.0.0.1, their data kept in a directory and used again at the next start.

        async with LocalStack(Path(".turnout")) as stack:
            stack.kafka      # "127.0.0.1:PORT"
            stack.postgres   # connection string, password included: never log it

    Ports are those of the last time on the directory if they are free, otherwise free ones, unless given. Several
    stacks run side by side, each on its own directory. On exit, and should this process be killed, both are stopped.
    `with_postgres=False` or `with_kafka=False` leaves a part out, for those who use their own. Each part can be killed,
    stopped and started again on the same port, for fault tests; `kafka_second` is a way to Kafka through a proxy.

    Raises LocalStackError with one line that says what to do.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        kafka_port: int | None = None,
        postgres_port: int | None = None,
        with_kafka: bool = True,
        with_postgres: bool = True,
        kafka_second: SecondListener | None = None,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self._kafka = Kafka(self.data_dir, port=kafka_port, second=kafka_second) if with_kafka else None
        self._postgres = Postgres(self.data_dir, port=postgres_port) if with_postgres else None
        self._lock: int | None = None

    @property
    def kafka(self) -> str:
        return self._kafka_part().bootstrap

    @property
    def postgres(self) -> str:
        return self._postgres_part().dsn

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the parts that run now."""
        parts = {"kafka": self._kafka, "postgres": self._postgres}
        return {name: part.child.pid for name, part in parts.items() if part and part.child.pid is not None}

    @property
    def ended(self) -> Child | None:
        """A part that is gone although nobody stopped or killed it."""
        children = [part.child for part in (self._kafka, self._postgres) if part is not None]
        return next((child for child in children if child.ended_by_itself), None)

    async def __aenter__(self) -> LocalStack:
        self._take_directory()
        try:
            require_disk_space(self.data_dir)
            await _together([part.start() for part in (self._postgres, self._kafka) if part is not None])
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop()

    async def start_postgres(self) -> None:
        """Start it again, on the same port and data."""
        await self._postgres_part().start()

    async def stop_postgres(self) -> None:
        await self._postgres_part().stop()

    async def kill_postgres(self) -> None:
        """SIGKILL, as a crash would be; returns when nothing of it is left."""
        await self._postgres_part().kill()

    async def start_kafka(self) -> None:
        """Start it again, on the same port and data."""
        await self._kafka_part().start()

    async def stop_kafka(self) -> None:
        await self._kafka_part().stop()

    async def kill_kafka(self) -> None:
        """SIGKILL, as a crash would be; returns when nothing of it is left."""
        await self._kafka_part().kill()

    async def _stop(self) -> None:
        try:
            await asyncio.gather(*(part.stop() for part in (self._kafka, self._postgres) if part is not None))
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def _take_directory(self) -> None:
        """Make the directory ours until this process ends, however it ends."""
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self.data_dir / "stack.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise LocalStackError(
                f"cannot use {self.data_dir} for data ({error.strerror}): name another directory with --data-dir"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(lock, 20, 0).decode().strip()
            os.close(lock)
            raise LocalStackError(
                f"{self.data_dir} is in use by another running stack (process {owner}): stop that one, or name another "
                f"directory with --data-dir"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        self._lock = lock

    def _kafka_part(self) -> Kafka:
        assert self._kafka is not None, "this stack has no embedded Kafka"
        return self._kafka

    def _postgres_part(self) -> Postgres:
        assert self._postgres is not None, "this stack has no embedded PostgreSQL"
        return self._postgres


def owner_of(data_dir: Path) -> int | None:
    """Process id of the stack that runs on the directory now, if one does."""
    try:
        lock = os.open(data_dir / "stack.lock", os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.pread(lock, 20, 0).decode().strip() or 0) or None
    finally:
        os.close(lock)
    return None


def require_disk_space(directory: Path) -> None:
    free = shutil.disk_usage(directory).free
    if free < FREE_BYTES_MIN:
        raise LocalStackError(
            f"only {free / 1024**2:.0f} MiB are free on the disk of {directory}, the stack needs "
            f"{FREE_BYTES_MIN / 1024**2:.0f}: free some space, or name another directory with --data-dir"
        )


async def _together(work: list[Coroutine[None, None, None]]) -> None:
    """Await everything; the first error ends the rest at once and is raised alone."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for coroutine in work:
                tasks.create_task(coroutine)
    except* LocalStackError as errors:
        raise errors.exceptions[0] from None
