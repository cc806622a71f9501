"""PostgreSQL away for a while: calls say so, retirements wait and go on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from services.registry.app import RegistryApp
from tests.integration.registry.conftest import DEFINITION, JOB, serving, settings
from tests.integration.registry.fakes import FakeApp
from tests.support.eventually import eventually
from tests.support.proxy import TcpProxy
from turnout import errors
from turnout.client import Client
from turnout.results import VersionState


@asynccontextmanager
async def behind_a_proxy(postgres: str, neighbours: str, data_dir: Path) -> AsyncIterator[tuple[TcpProxy, Client]]:
    """A registry that reaches PostgreSQL through a proxy, and a client of it."""
    parts = urlsplit(postgres)
    assert parts.hostname is not None
    async with TcpProxy(parts.hostname, parts.port or 5432) as proxy:
        netloc = f"{parts.username}:{parts.password}@127.0.0.1:{proxy.port}"
        dsn = urlunsplit(parts._replace(netloc=netloc))
        async with (
            serving(RegistryApp(settings(dsn, neighbours, data_dir))) as target,
            Client(targets={"registry": target}) as client,
        ):
            yield proxy, client


async def retire_up_to_its_front(client: Client, app: FakeApp) -> None:
    """A version that is being retired and waits for a front."""
    await client.create_job(JOB)
    await client.create_version(JOB, DEFINITION, b"code")
    app.replayer.start(f"jobs/{JOB}/versions/1")
    app.switcher.undrained = ["front-a"]
    await client.retire(JOB, 1, retain_for=timedelta(0))


async def is_dropped(client: Client) -> bool:
    try:
        return (await client.get_version(JOB, 1, timeout_s=2)).state is VersionState.DROPPED
    except (errors.Unavailable, errors.DeadlineExceeded):
        return False


async def test_it_says_so_and_goes_on(postgres: str, fakes: tuple[FakeApp, str], tmp_path: Path) -> None:
    app, neighbours = fakes
    async with behind_a_proxy(postgres, neighbours, tmp_path) as (proxy, client):
        await retire_up_to_its_front(client, app)
        await proxy.cut()
        with pytest.raises(errors.Unavailable) as refused:
            await client.get_job(JOB, timeout_s=4)
        assert refused.value.reason == "POSTGRES_UNAVAILABLE"
        app.switcher.undrained = []
        await proxy.restore()
        await eventually(lambda: is_dropped(client))
        assert len(app.replayer.dropped) == 1


async def test_a_server_that_is_gone_without_a_word(postgres: str, fakes: tuple[FakeApp, str], tmp_path: Path) -> None:
    """Its connections look alive and answer nothing; new ones work. The loop gives them up and goes on."""
    app, neighbours = fakes
    async with behind_a_proxy(postgres, neighbours, tmp_path) as (proxy, client):
        await retire_up_to_its_front(client, app)
        proxy.half_open()
        app.switcher.undrained = []
        await eventually(lambda: is_dropped(client), 120)
        assert len(app.replayer.dropped) == 1
