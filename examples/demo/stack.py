"""`turnout dev` as a child process, on a fresh data directory."""

import asyncio
import contextlib
import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.local.ports import free_port

_READY_WITHIN_S = 120.0


@dataclass(frozen=True)
class Stack:
    """Where everything listens."""

    target: str
    kafka: str
    postgres: str


class StackFailedError(Exception):
    """The stack did not start; the message holds what it said."""


@asynccontextmanager
async def running(data_dir: Path) -> AsyncIterator[Stack]:
    """Start a stack on an emptied `data_dir`, and stop it at the end; its data and logs are kept."""
    shutil.rmtree(data_dir, ignore_errors=True)
    data_dir.mkdir(parents=True)
    log = data_dir / "dev.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "deploy.local", "--data-dir", str(data_dir), "--port", str(free_port()),
            stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        yield await _described(process, data_dir / "dev.json", log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _described(process: asyncio.subprocess.Process, description: Path, log: Path) -> Stack:
    deadline = asyncio.get_running_loop().time() + _READY_WITHIN_S
    while not description.exists():
        if process.returncode is not None or asyncio.get_running_loop().time() > deadline:
            raise StackFailedError(log.read_text(encoding="utf-8").strip() or "The stack did not start in time.")
        await asyncio.sleep(0.1)
    told = json.loads(description.read_text(encoding="utf-8"))
    return Stack(told["target"], told["kafka"], told["postgres"])
