"""PostgreSQL away for a while: calls say so, retirements wait and go on."""

from __future__ import annotations

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


async def test_it_says_so_and_goes_on(postgres: str, fakes: tuple[FakeApp, str], tmp_path: Path) -> None:
    app, neighbours = fakes
    parts = urlsplit(postgres)
    assert parts.hostname is not None
    async with TcpProxy(parts.hostname, parts.port or 5432) as proxy:
        netloc = f"{parts.username}:{parts.password}@127.0.0.1:{proxy.port}"
        dsn = urlunsplit(parts._replace(netloc=netloc))
        async with (
            serving(RegistryApp(settings(dsn, neighbours, tmp_path))) as target,
            Client(targets={"registry": target}) as client,
        ):
            await client.create_job(JOB)
            await client.create_version(JOB, DEFINITION, b"code")
            app.replayer.start(f"jobs/{JOB}/versions/1")
            app.switcher.undrained = ["front-a"]
            await client.retire(JOB, 1, retain_for=timedelta(0))
            await proxy.cut()
            with pytest.raises(errors.Unavailable) as refused:
                await client.get_job(JOB, timeout_s=0.3)
            assert refused.value.reason == "POSTGRES_UNAVAILABLE"
            app.switcher.undrained = []
            await proxy.restore()

            async def dropped() -> bool:
                return (await client.get_version(JOB, 1)).state is VersionState.DROPPED

            await eventually(dropped)
            assert len(app.replayer.dropped) == 1
