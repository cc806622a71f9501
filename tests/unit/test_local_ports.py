"""Ports of the local stack: found free, tried again when somebody was faster, a clear word when asked for and taken."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from deploy.local.errors import LocalStackError
from deploy.local.ports import HOST, PortTakenError, free_port, is_free, on_a_port


def test_free_port_is_below_the_ports_of_outgoing_connections() -> None:
    port = free_port()
    assert 20_000 <= port <= 32_000
    assert is_free(port)
    with socket.create_server((HOST, port)):
        assert not is_free(port)
    assert is_free(port)


class _Server:
    """Cannot listen the first times."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.tried: list[int] = []

    async def launch(self, port: int) -> None:
        self.tried.append(port)
        if len(self.tried) <= self.refusals:
            raise PortTakenError


async def test_another_port_when_somebody_was_faster() -> None:
    server = _Server(refusals=2)
    port = await on_a_port("Kafka", None, server.launch)
    assert len(server.tried) == 3
    assert port == server.tried[-1]


async def test_gives_up_in_the_end() -> None:
    with pytest.raises(LocalStackError, match="no free port for Kafka was found in 5 attempts"):
        await on_a_port("Kafka", None, _Server(refusals=5).launch)


async def test_a_port_asked_for_is_kept_or_refused() -> None:
    port = free_port()
    assert await on_a_port("Kafka", port, _Server(refusals=0).launch) == port
    with pytest.raises(LocalStackError, match=f"port {port} for Kafka is taken by another process: stop that one"):
        await on_a_port("Kafka", port, _Server(refusals=1).launch)
    server = _Server(refusals=0)
    with socket.create_server((HOST, port)), pytest.raises(LocalStackError, match="is taken"):
        await on_a_port("Kafka", port, server.launch)
    assert server.tried == [], "not even tried"


async def test_the_port_of_the_last_time_is_the_first_choice(tmp_path: Path) -> None:
    file = tmp_path / "port"
    first = await on_a_port("Kafka", None, _Server(refusals=0).launch, remembered=file)
    assert file.read_text() == f"{first}\n"
    assert await on_a_port("Kafka", None, _Server(refusals=0).launch, remembered=file) == first
    with socket.create_server((HOST, first)):
        other = await on_a_port("Kafka", None, _Server(refusals=0).launch, remembered=file)
    assert other != first
    assert await on_a_port("Kafka", None, _Server(refusals=0).launch, remembered=file) == other


@pytest.mark.parametrize("content", ["", "seven", "80", "70000"])
async def test_a_damaged_memory_of_the_port_is_ignored(tmp_path: Path, content: str) -> None:
    file = tmp_path / "port"
    file.write_text(content)
    port = await on_a_port("Kafka", None, _Server(refusals=0).launch, remembered=file)
    assert file.read_text() == f"{port}\n"
