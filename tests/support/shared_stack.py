"""One PostgreSQL and one Kafka for all processes of a test session.

The process that divides the tests starts `python -m tests.support.shared_stack DIRECTORY`, the others read there where
the two are. It stops them when its standard input ends, also because the process that held it open was killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import asyncpg

from deploy.local.errors import LocalStackError
from deploy.local.stack import LocalStack
from tests.support.eventually import eventually

_REPOSITORY = Path(__file__).parents[2]
_STARTED_WITHIN_S = 180.0
_STOPPED_WITHIN_S = 120.0


@dataclass(frozen=True)
class Addresses:
    """Where PostgreSQL (a connection string) and Kafka (HOST:PORT) are."""

    postgres: str = field(repr=False)
    kafka: str


@asynccontextmanager
async def temporary_stack(data_dir: Path) -> AsyncIterator[LocalStack]:
    """A stack whose data go afterwards and whose logs stay, as long as pytest keeps its temporary directories."""
    async with LocalStack(data_dir) as started:
        yield started
    for part in ("postgres", "kafka"):
        shutil.rmtree(data_dir / part)


@asynccontextmanager
async def session_stack(data_dir: Path) -> AsyncIterator[Addresses]:
    """A temporary stack that tests do not break. Its PostgreSQL writes as ever and waits for no disk: what that guards
    against, a machine that stops, would end the tests too, and each test makes and drops a database."""
    async with temporary_stack(data_dir) as stack:
        connection = await asyncpg.connect(stack.postgres)
        await connection.execute("alter system set fsync = off")
        await connection.execute("select pg_reload_conf()")
        await connection.close()
        yield Addresses(stack.postgres, stack.kafka)


class SharedStack:
    """The stack as the process that divides the tests holds it: started at once, and stopped."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        # Out of reach of Ctrl-C: who is interrupted says so by `stop`, when nobody uses it any more.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.shared_stack", str(directory)],
            cwd=_REPOSITORY,
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def stop(self) -> None:
        """Stop it; returns when nothing of it is left."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(_STOPPED_WITHIN_S)


async def addresses_of(directory: Path) -> Addresses:
    """Where the parts of the stack in the directory are, once they have started. RuntimeError when they cannot."""

    async def told() -> str:
        file = directory / "addresses.json"
        return file.read_text(encoding="utf-8") if file.exists() else ""

    found = json.loads(await eventually(told, _STARTED_WITHIN_S))
    if "error" in found:
        raise RuntimeError(f"The stack for the tests did not start: {found['error']}.")
    return Addresses(**found)


async def _hold(directory: Path) -> None:
    try:
        async with session_stack(directory) as started:
            _tell(directory, asdict(started))
            await asyncio.to_thread(sys.stdin.read)
    except Exception as error:  # whatever it is: nobody is to wait in vain for addresses
        _tell(directory, {"error": str(error) if isinstance(error, LocalStackError) else repr(error)})
        raise


def _tell(directory: Path, what: dict[str, str]) -> None:
    half = directory / "addresses.unfinished"
    with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
        json.dump(what, file)
    half.rename(directory / "addresses.json")


if __name__ == "__main__":
    asyncio.run(_hold(Path(sys.argv[1])))
