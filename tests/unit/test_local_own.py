"""Naming one's own PostgreSQL by its address: helpful, and never a piece of a password."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.kafka.properties import KafkaConfig
from deploy.local.errors import LocalStackError
from deploy.local.own import own_kafka, own_postgres, postgres_place


@pytest.mark.parametrize(
    ("dsn", "place"),
    [
        ("postgresql://u:p@db.example:6432/x", " at db.example:6432"),
        ("postgresql://u:p@db.example/x?sslmode=disable", " at db.example:5432"),
        ("postgresql://db.example/x", " at db.example:5432"),
        ("postgres://u@[::1]:5432/x", " at [::1]:5432"),
        ("postgresql://u:a@b@db.example/x", " at db.example:5432"),
        ("postgresql:///x", ""),
        ("postgresql://u:p@db.example:port/x", ""),
        ("host=db.example password=p", ""),
        ("", ""),
        ("postgresql://u:12/3@db.example/x", ""),
        ("postgresql://u:12#3@db.example/x", ""),
        ("postgresql://u:12?3@db.example/x", ""),
    ],
)
def test_place(dsn: str, place: str) -> None:
    assert postgres_place(dsn) == place


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_no_piece_of_a_password_is_ever_shown(password: str) -> None:
    assert postgres_place(f"postgresql://u:{password}@db.example:6432/x") in ("", " at db.example:6432")


async def test_a_connection_string_that_is_no_url() -> None:
    with pytest.raises(
        LocalStackError, match="PostgreSQL cannot be reached: the connection string is no URL"
    ) as raised:
        await own_postgres("postgresql://u:geheim/12@db.example/x").answers()
    assert "geheim" not in str(raised.value)


async def test_properties_that_the_kafka_client_refuses() -> None:
    config = KafkaConfig({"bootstrap.servers": "127.0.0.1:9", "security.protocol": "CARRIER_PIGEON"})
    with pytest.raises(LocalStackError, match=r"the Kafka client refuses its properties: .*security\.protocol"):
        await own_kafka(config).answers()
