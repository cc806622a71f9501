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
from urllib.parse import urlsplit

import asyncpg
import pytest

from deploy.local.stack import LocalStack
from tests.support.databases import fresh_database
from tests.support.eventually import eventually
from tests.support.ports import HOST, own_port
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
    port = own_port()
    async with _dev("--data-dir", str(data_dir), "--port", str(port)) as dev:
        await dev.read_until("Ctrl-C stops everything")
        assert await is_serving(f"{HOST}:{port}")
        assert dev.output.startswith("Starting Kafka, PostgreSQL and Turnout's services, with data in ")

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

        assert f"  export TURNOUT_TARGET={HOST}:{port}\n  export TURNOUT_KAFKA={description['kafka']}\n" in dev.output

        for port_of_second in (port, own_port()):
            async with _dev("--data-dir", str(data_dir), "--port", str(port_of_second)) as second:
                assert await second.end() == 1
            assert second.output == (
                f"turnout dev: `turnout dev` runs on {data_dir} already, at {HOST}:{port} (process {dev.process.pid}): "
                f"use that one, or end it with Ctrl-C, or start another with --data-dir and --port\n"
            )

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
    port = own_port()
    pids: list[int] = []
    kafka: set[str] = set()
    postgres: set[str] = set()
    for _ in range(2):
        async with _dev("--data-dir", str(data_dir), "--port", str(port)) as dev:
            await dev.read_until("Ctrl-C stops everything")
            description = json.loads((data_dir / "dev.json").read_text())
            pids += description["pids"].values()
            kafka.add(description["kafka"])
            postgres.add(description["postgres"])
            dev.process.kill()
            await dev.process.wait()
            await _all_gone(pids)
    assert len(kafka) == len(postgres) == 1, "addresses in other shells stay right"


async def test_interrupted_while_starting(data_dir: Path) -> None:
    async with _dev("--data-dir", str(data_dir), "--port", str(own_port())) as dev:
        await dev.read_until("Starting")
        dev.process.send_signal(signal.SIGTERM)
        assert await dev.end() == 0
        assert "Traceback" not in dev.output
    async with LocalStack(data_dir):
        pass


async def test_ones_own_parts(fault_stack: LocalStack, tmp_path: Path) -> None:
    port = own_port()
    async with fresh_database(fault_stack.postgres) as dsn:
        arguments = ("--data-dir", str(tmp_path), "--port", str(port), "--kafka", fault_stack.kafka)
        async with _dev(*arguments, environment={"TURNOUT_POSTGRES": dsn}) as dev:
            await dev.read_until("Ctrl-C stops everything")
            description = json.loads((tmp_path / "dev.json").read_text())
            assert set(description["pids"]) == {"stack", "services"}
            assert not (tmp_path / "postgres").exists()
            assert not (tmp_path / "kafka").exists()
            assert dev.output.startswith("Starting Turnout's services, with data in ")
            os.kill(description["pids"]["services"], signal.SIGKILL)
            assert await dev.end() == 1
    assert dev.output.endswith(
        "turnout dev: Turnout's services were killed by signal 9 (SIGKILL), so everything was stopped. "
        f"The system does that when memory runs out. Its log: {tmp_path / 'logs' / 'services.log'}\n"
    )


async def test_ones_own_parts_come_late(fault_stack: LocalStack, tmp_path: Path) -> None:
    kafka, postgres = fault_stack.kafka, urlsplit(fault_stack.postgres).netloc.rpartition("@")[2]
    async with fresh_database(fault_stack.postgres) as dsn:
        await fault_stack.kill_kafka()
        await fault_stack.kill_postgres()
        try:
            arguments = ("--data-dir", str(tmp_path), "--port", str(own_port()), "--kafka", kafka)
            async with _dev(*arguments, environment={"TURNOUT_POSTGRES": dsn}) as dev:
                for part in (f"Kafka at {kafka}", f"PostgreSQL at {postgres}"):
                    await dev.read_until(f"{part} does not answer. Waiting for it; everything goes on by itself")
                assert f"(log: {tmp_path / 'logs' / 'services.log'})" in dev.output
                await fault_stack.start_postgres()
                await dev.read_until(f"PostgreSQL at {postgres} answers now.")
                assert "ready" not in dev.output
                await fault_stack.start_kafka()
                await dev.read_until("Ctrl-C stops everything")
                assert f"Kafka at {kafka} answers now." in dev.output
                dev.process.send_signal(signal.SIGINT)
                assert await dev.end() == 0
            password = urlsplit(dsn).password
            assert password is not None
            for log in (tmp_path / "logs").iterdir():
                assert password not in dev.output + log.read_text()
        finally:
            await fault_stack.start_postgres()
            await fault_stack.start_kafka()


async def test_interrupted_while_waiting(tmp_path: Path) -> None:
    arguments = ("--data-dir", str(tmp_path), "--port", str(own_port()), "--kafka", f"{HOST}:9")
    async with _dev(*arguments, environment={"TURNOUT_POSTGRES": f"postgresql://u:geheim@{HOST}:9/x"}) as dev:
        await dev.read_until(f"PostgreSQL at {HOST}:9 does not answer.")
        log = tmp_path / "logs" / "services.log"

        async def services_wait() -> bool:
            return log.exists() and "waiting for it" in log.read_text()

        await eventually(services_wait)
        guard, services = map(int, (tmp_path / "services.lock").read_text().split())
        dev.process.send_signal(signal.SIGTERM)
        await dev.read_until("Stopped.")
        assert not Path(f"/proc/{services}").exists()
        assert not Path(f"/proc/{guard}").exists()
        assert await dev.end() == 0
    assert "geheim" not in dev.output + log.read_text()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"password": "geheim"}, "it does not accept the user or the password"),
        ({"path": "/nowhere"}, "it has no such database"),
    ],
)
async def test_ones_own_postgres_refuses(
    fault_stack: LocalStack, tmp_path: Path, wrong: dict[str, str], said: str
) -> None:
    url = urlsplit(fault_stack.postgres)
    place = url.netloc.rpartition("@")[2]
    dsn = f"postgresql://{url.username}:{wrong.get('password', url.password)}@{place}{wrong.get('path', url.path)}"
    arguments = ("--data-dir", str(tmp_path), "--port", str(own_port()), "--kafka", fault_stack.kafka)
    async with _dev(*arguments, environment={"TURNOUT_POSTGRES": dsn}) as dev:
        assert await dev.end() == 1
    assert dev.output.endswith(
        f"turnout dev: PostgreSQL at {place} refuses the connection: {said}; "
        f"check what --postgres or TURNOUT_POSTGRES says\n"
    )
    assert not list(tmp_path.iterdir()), "nothing was started"


async def test_services_that_end_by_themselves(fault_stack: LocalStack, tmp_path: Path) -> None:
    package = tmp_path / "broken" / "services"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(textwrap.dedent(_BROKEN_SERVICES))
    arguments = ("--data-dir", str(tmp_path / "data"), "--port", str(own_port()), "--kafka", fault_stack.kafka)
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
        f"stop that one, or choose another port with --port\n"
    )
    assert not list(tmp_path.iterdir()), "nothing was started"
