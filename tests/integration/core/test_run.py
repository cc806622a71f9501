"""What PostgreSQL itself refuses is told without the server's words, which quote the URL."""

from __future__ import annotations

from urllib.parse import quote, urlsplit, urlunsplit

import pytest

from core import config
from core.config import POSTGRES_VARIABLE
from core.run import await_postgres
from turnout.errors import InvalidInput


async def refusal(monkeypatch: pytest.MonkeyPatch, url: str) -> str:
    monkeypatch.setenv(POSTGRES_VARIABLE, url)
    _, settings = config.parse(["--kafka", "127.0.0.1:1"])
    with pytest.raises(InvalidInput) as refused:
        await await_postgres(settings)
    message = refused.value.message
    assert message.endswith(f"Check {POSTGRES_VARIABLE}.")
    for piece in ("hush", "qx7z"):
        assert piece not in message
    return message


@pytest.mark.parametrize("password", ["hush/qx7z", "hush#qx7z", "hush@qx7z", "hush%qx7z", "hush qx7z", "hush?qx7z"])
async def test_a_wrong_password(monkeypatch: pytest.MonkeyPatch, postgres: str, password: str) -> None:
    parts = urlsplit(postgres)
    netloc = f"hush:{quote(password, safe='')}@{parts.hostname}:{parts.port}"
    assert "user or the password" in await refusal(monkeypatch, urlunsplit(parts._replace(netloc=netloc)))


async def test_a_database_that_is_not_there(monkeypatch: pytest.MonkeyPatch, postgres: str) -> None:
    url = urlunsplit(urlsplit(postgres)._replace(path="/hush@qx7z"))
    assert "no such database" in await refusal(monkeypatch, url)


async def test_an_option_that_is_none(monkeypatch: pytest.MonkeyPatch, postgres: str) -> None:
    url = urlunsplit(urlsplit(postgres)._replace(query="hush=qx7z"))
    assert "refuses the connection" in await refusal(monkeypatch, url)
