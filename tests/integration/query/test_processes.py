"""Several processes of the front behind one port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.integration.query.fronts import Serving, i, plain
from tests.integration.query.switcher import ScriptedSwitcher, SwitcherProcess, route
from tests.support.eventually import eventually
from tests.support.ports import own_port
from turnout.query.v1 import query_pb2 as pb
from turnout.query.v1 import query_pb2_grpc

STOPPED_S = 30.0


class Supervised:
    """A supervisor of two fronts."""

    def __init__(self, process: asyncio.subprocess.Process, target: str, data_dir: Path) -> None:
        self.process = process
        self.target = target
        self.data_dir = data_dir

    def fronts(self) -> set[int]:
        """Process ids of the fronts that live."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return {int(pid) for pid in children.read_text(encoding="utf-8").split()}


@pytest.fixture
async def supervised(
    postgres: str, serving: Serving, switcher_process: SwitcherProcess, tmp_path: Path
) -> AsyncIterator[Supervised]:
    await serving.numbers(1, {1: "one"}, offset=10)
    switcher_process.script.commit("p1", route("j", 1, active=1))
    target = f"127.0.0.1:{own_port()}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services", "query", "--query-processes", "2", "--listen", target),
        *("--switcher", switcher_process.target, "--registry", switcher_process.target, "--kafka", "127.0.0.1:1"),
        *("--data-dir", str(tmp_path)),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "TURNOUT_POSTGRES": postgres},
    )
    yield Supervised(process, target, tmp_path)
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    await asyncio.wait_for(process.communicate(), STOPPED_S)


async def present(switcher: ScriptedSwitcher, count: int) -> set[str]:
    """The names of the fronts, once there are so many."""

    async def so_many() -> bool:
        return len({stream.front for stream in switcher.streams}) == count

    await eventually(so_many, 60)
    return {stream.front for stream in switcher.streams}


async def read(target: str) -> list[object]:
    """A read on a connection of its own."""
    async with grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        request = pb.GetRequest(job="jobs/j", key=pb.Key(values=[i(1)]))
        query: Any = query_pb2_grpc.QueryStub(channel)
        answer = await query.Get(request, timeout=10)
    return plain(answer.row)


async def test_each_process_is_a_front_and_a_dead_one_is_replaced(
    supervised: Supervised, switcher: ScriptedSwitcher
) -> None:
    first = await present(switcher, 2)
    for _ in range(10):
        assert await read(supervised.target) == [1, "one"]
    killed = supervised.fronts().pop()
    os.kill(killed, signal.SIGKILL)

    async def replaced() -> bool:
        names = {stream.front for stream in switcher.streams}
        return len(names) == 2 and names != first

    await eventually(replaced, 60)
    assert killed not in supervised.fronts()
    for _ in range(10):
        assert await read(supervised.target) == [1, "one"]
    supervised.process.send_signal(signal.SIGTERM)
    _, said = await asyncio.wait_for(supervised.process.communicate(), STOPPED_S)
    assert supervised.process.returncode == 0, said.decode()
    assert b"ended with status -9 and is started again" in said
    assert await present(switcher, 0) == set()
    stored = sorted(path.relative_to(supervised.data_dir).as_posix() for path in supervised.data_dir.rglob("*.json"))
    assert stored == ["process-1/query/routes.json", "process-2/query/routes.json"]


async def test_fronts_end_with_their_supervisor(supervised: Supervised, switcher: ScriptedSwitcher) -> None:
    await present(switcher, 2)
    fronts = supervised.fronts()
    supervised.process.kill()

    async def gone() -> bool:
        return not any(Path(f"/proc/{pid}").exists() for pid in fronts)

    await eventually(gone, 60)


async def test_a_port_that_somebody_has_is_refused(supervised: Supervised, switcher: ScriptedSwitcher) -> None:
    await present(switcher, 2)
    second = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services", "query", "--query-processes", "2", "--listen", supervised.target),
        *("--switcher", "127.0.0.1:1", "--registry", "127.0.0.1:1", "--kafka", "127.0.0.1:1"),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "TURNOUT_POSTGRES": "postgresql://u@127.0.0.1:1/x"},
    )
    _, said = await asyncio.wait_for(second.communicate(), STOPPED_S)
    assert second.returncode == 2
    assert b"another process has it" in said


async def test_settings_that_are_refused_end_the_supervisor_too(postgres: str, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services", "query", "--query-processes", "2", "--listen", "127.0.0.1:0"),
        *("--switcher", "127.0.0.1:1", "--registry", "127.0.0.1:1", "--kafka", "127.0.0.1:1"),
        *("--data-dir", str(tmp_path)),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "TURNOUT_POSTGRES": f"{postgres.rpartition('/')[0]}/nobody"},
    )
    _, said = await asyncio.wait_for(process.communicate(), STOPPED_S)
    assert process.returncode == 2, said.decode()
    assert b"no such database" in said
