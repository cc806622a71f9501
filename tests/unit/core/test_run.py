"""A wrong database URL ends the process with what to mend, and no piece of the password."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path

import pytest

from core import config
from core.run import await_postgres, main
from tests.support.eventually import eventually
from turnout.errors import InvalidInput

# Each password is made of these, so that every piece of it can be looked for.
PIECES = ("hush", "qx7z")

# Not escaped, as a person would paste them: the URL falls apart at a place that nobody meant.
UNREADABLE = [
    "postgresql://u:hush/qx7z@127.0.0.1:1/db",
    "postgresql://u:hush#qx7z@127.0.0.1:1/db",
    "postgresql://u:hush?qx7z@127.0.0.1:1/db",
    "postgresql://u:[hush]qx7z@127.0.0.1:1/db",
    "postgresql://u:hush\u2100qx7z@127.0.0.1:1/db",  # becomes a/c when normalized
    "hush://u:qx7z@127.0.0.1:1/db",
    "hush:qx7z",
    "password=hush,qx7z host=127.0.0.1",
    "postgresql://u:1@127.0.0.1:1/db?sslmode=hush-qx7z",
    "postgresql://u:1@127.0.0.1:hush/qx7z",
]
# Readable, if not as it was meant: the driver looks for a server that is not there, and goes on looking.
READABLE = [
    "postgresql://u:hush@qx7z@127.0.0.1:1/db",
    "postgresql://u:hush%qx7z@127.0.0.1:1/db",
    "postgresql://u:hush%2Fqx7z@127.0.0.1:1/db",
    "postgresql://u:hush qx7z@127.0.0.1:1/db",
    "postgresql://u:hush%00qx7z@127.0.0.1:1/db",
]


def assert_tells_nothing(text: str) -> None:
    assert not re.search("|".join(PIECES), text, re.IGNORECASE), text


@pytest.mark.parametrize("url", UNREADABLE)
def test_an_unreadable_url_names_the_variable_alone(
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv(config.POSTGRES_VARIABLE, url)
    targets = ["--replayer", "127.0.0.1:1", "--registry", "127.0.0.1:1", "--kafka", "127.0.0.1:1"]
    status = main({}, ["switcher", *targets, "--data-dir", str(tmp_path)])
    said = capfd.readouterr()
    assert status == 2
    assert said.err.endswith("%25 for %. Check TURNOUT_POSTGRES.\n")
    assert config.POSTGRES_VARIABLE in said.err
    assert_tells_nothing(said.out + said.err + caplog.text)


@pytest.mark.parametrize("url", READABLE)
async def test_a_server_that_is_not_there_is_waited_for_without_its_url(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(config.POSTGRES_VARIABLE, url)
    caplog.set_level(logging.INFO)
    _, settings = config.parse(["--kafka", "127.0.0.1:1"])
    waiting = asyncio.create_task(await_postgres(settings))

    async def told() -> bool:
        return waiting.done() or "waiting for it" in caplog.text

    try:
        await eventually(told)
        assert not waiting.done(), waiting.exception()
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert_tells_nothing(caplog.text)


async def test_a_refusal_is_not_an_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(config.POSTGRES_VARIABLE, UNREADABLE[0])
    _, settings = config.parse(["--kafka", "127.0.0.1:1"])
    with pytest.raises(InvalidInput) as refused:
        await await_postgres(settings)
    assert refused.value.reason == "POSTGRES_REFUSED"
    assert refused.value.__cause__ is None
