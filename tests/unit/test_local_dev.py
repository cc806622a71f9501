"""What the options of `turnout dev` mean: what it starts itself, and whether another shell must be told of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.local.dev import parse


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ((), True),
        (("--data-dir", "./.turnout", "--port", "7400"), True),
        (("--data-dir", str(Path.cwd() / ".turnout")), True),
        (("--data-dir", "elsewhere/.turnout"), False),
        (("--port", "7401"), False),
    ],
)
def test_found_without_being_told(arguments: tuple[str, ...], found: bool) -> None:
    assert parse(arguments).is_found_by_itself is found


@pytest.mark.parametrize(
    ("arguments", "kafka", "postgres"),
    [
        ((), True, True),
        (("--kafka", "k:1"), False, True),
        (("--kafka-config", "k.properties"), False, True),
        (("--postgres", "postgresql://h/d"), True, False),
    ],
)
def test_what_is_embedded(
    arguments: tuple[str, ...], kafka: bool, postgres: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TURNOUT_POSTGRES", raising=False)
    options = parse(arguments)
    assert (options.embeds_kafka, options.embeds_postgres) == (kafka, postgres)


def test_a_password_is_not_in_the_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNOUT_POSTGRES", "postgresql://u:geheim@h/d")
    assert "geheim" not in repr(parse(()))
