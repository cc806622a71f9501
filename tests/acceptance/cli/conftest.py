"""The installed program `turnout`, run as a person or a script runs it."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import ServiceProcesses
from tests.support.topics import Topics

PROGRAM = Path(sys.executable).parent / "turnout"
_ENDS_WITHIN_S = 120.0


@dataclass(frozen=True)
class Result:
    """What a run of the program came to."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output, which is one JSON document."""
        return json.loads(self.out)

    @property
    def documents(self) -> list[Any]:
        """Standard output, one JSON document a line."""
        return [json.loads(line) for line in self.out.splitlines()]


class Program:
    """Runs `turnout` in a directory, with services and Kafka named by the environment."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.directory = directory
        kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "FORCE_COLOR", "NO_COLOR")}
        self.environment = kept | dict(environment)

    async def run(self, *arguments: str | Path, code: int = 0) -> Result:
        """The result of the command line, which has to end with the code and never with a traceback."""
        async with self.started(*arguments) as process:
            out, err = await asyncio.wait_for(process.communicate(), _ENDS_WITHIN_S)
        assert process.returncode is not None
        result = Result(process.returncode, out.decode(), err.decode())
        assert result.code == code, f"{arguments}: {result}"
        assert "Traceback" not in result.err
        assert "\x1b" not in result.out + result.err
        return result

    @asynccontextmanager
    async def started(self, *arguments: str | Path) -> AsyncIterator[asyncio.subprocess.Process]:
        """The program as it runs; killed if it still does at the end."""
        process = await asyncio.create_subprocess_exec(
            PROGRAM,
            *map(str, arguments),
            cwd=self.directory,
            env=self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()

    async def in_terminal(
        self, *arguments: str | Path, environment: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """(exit code, everything it drew) on a terminal of 80 columns."""
        return await asyncio.wait_for(
            asyncio.to_thread(_in_terminal, arguments, self.directory, self.environment | dict(environment or {})),
            _ENDS_WITHIN_S,
        )


def _in_terminal(arguments: Sequence[str | Path], directory: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(directory)
        os.execve(PROGRAM, [str(PROGRAM), *map(str, arguments)], {**environment, "TERM": "xterm", "COLUMNS": "80"})
    drawn = b""
    while True:
        try:
            piece = os.read(terminal, 65_536)
        except OSError:  # Linux says so when the last writer has gone
            break
        if not piece:
            break
        drawn += piece
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), drawn.decode()


@pytest.fixture
async def program(services: ServiceProcesses, kafka: Topics, tmp_path: Path) -> Program:
    """The program against all services in one process."""
    directory = tmp_path / "work"
    directory.mkdir()
    return Program(directory, {"TURNOUT_TARGET": services.target("query"), "TURNOUT_KAFKA": kafka.bootstrap})
