"""`turnout dev` as a person uses it: started in a terminal, told where things are, ended with Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import sys
import textwrap
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from deploy.local.ports import HOST, free_port
from deploy.local.stack import LocalStack
from tests.support.databases import fresh_database
from tests.support.eventually import eventually
from tests.support.processes import is_serving
from tests.support.topics import Topics

_BROKEN_SERVICES = """
    import sys
    print("a line before the end", file=sys.stderr)
    sys.exit("the table is on fire")
"""


class _Dev:
    """A running `turnout dev` and what it has printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.output = ""

    async def read_until(self, text: str) -> None:
        assert self.process.stdout is not None
        while text not in self.output:
            line = await self.process.stdout.readline()
            assert line, f"it ended after: {self.output}"
            self.output += line.decode()

    async def end(self) -> int:
        """Read the rest; the exit status."""
        assert self.process.stdout is not None
        self.output += (await self.process.stdout.read()).decode()
        return await self.process.wait()


@asynccontextmanager
async def _dev(*arguments: str, environment: Mapping[str, str] | None = None) -> AsyncIterator[_Dev]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.local", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
    try:
        yield _Dev(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _all_gone(pids: list[int]) -> None:
    async def gone() -> bool:
        return not any(Path(f"/proc/{pid}").exists() for pid in pids)

    await eventually(gone)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dev") / ".turnout"


async def test_from_start_to_interrupt(data_dir: Path) -> None:
    port = free_port()
    async with _dev("--data-dir", str(data_dir), "--port", str(port)) as dev:
        await dev.read_until("Ctrl-C stops everything")
        assert await is_serving(f"{HOST}:{port}")

        file = data_dir / "dev.json"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        description = json.loads(file.read_text())
        assert description["target"] == f"{HOST}:{port}"
        assert set(description["pids"]) == {"stack", "kafka", "postgres", "services"}
        connection = await asyncpg.connect(description["postgres"])
        await connection.close()
        topics = Topics(description["kafka"])
        await topics.create(1)
        await topics.delete_all()

        password = description["postgres"].split("@")[0].split(":")[-1]
        assert password not in dev.output
        for pid in description["pids"].values():
            assert password not in Path(f"/proc/{pid}/cmdline").read_text()
        for log in (data_dir / "logs").iterdir():
            assert password not in log.read_text(errors="replace")

        os.killpg(dev.process.pid, signal.SIGINT)  # Ctrl-C reaches the whole foreground group
        assert await dev.end() == 0
        assert "Stopped. The data are kept" in dev.output
        assert "Traceback" not in dev.output
        assert not file.exists()
        await _all_gone(list(description["pids"].values()))


async def test_killed_and_started_again(data_dir: Path) -> None:
    port = free_port()
    pids: list[int] = []
    for _ in range(2):
        async with _dev("--data-dir", str(data_dir), "--port", str(port)) as dev:
            await dev.read_until("Ctrl-C stops everything")
            pids += json.loads((data_dir / "dev.json").read_text())["pids"].values()
            dev.process.kill()
            await dev.process.wait()
            await _all_gone(pids)


async def test_interrupted_while_starting(data_dir: Path) -> None:
    async with _dev("--data-dir", str(data_dir), "--port", str(free_port())) as dev:
        await dev.read_until("Starting")
        dev.process.send_signal(signal.SIGTERM)
        assert await dev.end() == 0
        assert "Traceback" not in dev.output
    async with LocalStack(data_dir):
        pass


async def test_ones_own_parts(fault_stack: LocalStack, tmp_path: Path) -> None:
    port = free_port()
    async with fresh_database(fault_stack.postgres) as dsn:
        arguments = ("--data-dir", str(tmp_path), "--port", str(port), "--kafka", fault_stack.kafka)
        async with _dev(*arguments, environment={"TURNOUT_POSTGRES": dsn}) as dev:
            await dev.read_until("Ctrl-C stops everything")
            description = json.loads((tmp_path / "dev.json").read_text())
            assert set(description["pids"]) == {"stack", "services"}
            assert not (tmp_path / "postgres").exists()
            assert not (tmp_path / "kafka").exists()
            dev.process.send_signal(signal.SIGINT)
            assert await dev.end() == 0


async def test_services_that_end_by_themselves(fault_stack: LocalStack, tmp_path: Path) -> None:
    package = tmp_path / "broken" / "services"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(textwrap.dedent(_BROKEN_SERVICES))
    arguments = ("--data-dir", str(tmp_path / "data"), "--port", str(free_port()), "--kafka", fault_stack.kafka)
    environment = {"TURNOUT_POSTGRES": fault_stack.postgres, "PYTHONPATH": str(package.parent)}
    async with _dev(*arguments, environment=environment) as dev:
        assert await dev.end() == 1
    assert "Turnout's services ended by themselves" in dev.output
    assert "a line before the end" in dev.output
    assert "the table is on fire" in dev.output
    assert "Traceback" not in dev.output


async def test_port_taken(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        async with _dev("--data-dir", str(tmp_path), "--port", str(port)) as dev:
            assert await dev.end() == 1
    assert dev.output == (
        f"turnout dev: port {port} for Turnout's services is taken by another process: "
        f"stop that one, or choose another port\n"
    )
    assert not list(tmp_path.iterdir()), "nothing was started"
