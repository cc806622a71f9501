"""The pure parts of the peers: what they are asked to do, and what is made of what was seen."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.peers import CASES, PeerError, environments, flink, measure, quix
from bench.peers.values import TABLES, Database, Job, Sighting, Source, rates

SOURCE = Source(kafka="127.0.0.1:9092", topic="orders", partitions=4)
DATABASE = Database(host="127.0.0.1", port=5433, name="turnout", user="me", password="it's", sslmode="disable")


def job(peer: str, mode: str) -> Job:
    if peer == "quix":
        return quix.job(SOURCE, DATABASE, group="a-group", state_dir="/nowhere")
    return flink.job(mode, SOURCE, DATABASE, jars=["/jars/a.jar"], python="/venv/bin/python", state_dir="/nowhere")


def columns(mode: str) -> list[str]:
    """Names of the columns of the table that PostgreSQL holds."""
    _, _, inside = TABLES[mode].partition("(")
    return [column.split()[0] for column in inside.partition(")")[0].split(", ")]


@pytest.mark.parametrize(("peer", "mode"), CASES)
def test_jobs_pass_as_json_and_hide_the_password(peer: str, mode: str) -> None:
    asked = job(peer, mode)
    assert json.loads(json.dumps(asked.spec)) == asked.spec
    assert DATABASE.password not in repr(asked)
    assert DATABASE.password not in repr(DATABASE)


@pytest.mark.parametrize(("peer", "mode"), CASES)
def test_settings_and_guarantee_are_one_line_each(peer: str, mode: str) -> None:
    asked = job(peer, mode)
    assert "\n" not in asked.settings + asked.guarantee
    assert asked.guarantee.startswith("at least once")


@pytest.mark.parametrize("mode", ["append", "append-udf", "aggregate"])
def test_flink_writes_the_columns_of_the_table(mode: str) -> None:
    _, target = job("flink", mode).spec["tables"]
    declared = target.partition("(")[2].partition(", PRIMARY KEY")[0]
    assert [column.split()[0] for column in declared.split(", ")] == columns(
        "aggregate" if mode == "aggregate" else "append"
    )


@pytest.mark.parametrize("mode", ["append", "append-udf", "aggregate"])
def test_flink_quotes_what_it_puts_into_sql(mode: str) -> None:
    _, target = job("flink", mode).spec["tables"]
    assert "'password' = 'it''s'" in target


def test_flink_calls_python_for_the_python_function_alone() -> None:
    assert job("flink", "append").spec["python_function"] is None
    assert "same_cents" not in job("flink", "append").spec["insert"]
    name = job("flink", "append-udf").spec["python_function"]
    assert f"{name}(amount_cents)" in job("flink", "append-udf").spec["insert"]


def test_flink_batches_small_updates_of_an_aggregate_alone() -> None:
    enabled = "table.exec.mini-batch.enabled"
    assert job("flink", "aggregate").spec["config"][enabled] == "true"
    assert enabled not in job("flink", "append").spec["config"]


def test_flink_keeps_its_guarantee_by_checkpoints() -> None:
    for mode in ("append", "append-udf", "aggregate"):
        config = job("flink", mode).spec["config"]
        assert "execution.checkpointing.interval" in config
        assert config["execution.checkpointing.dir"].startswith("file:///nowhere/")


def test_the_address_for_java_names_no_user() -> None:
    url = flink.jdbc_url(DATABASE)
    assert url == "jdbc:postgresql://127.0.0.1:5433/turnout?reWriteBatchedInserts=true&sslmode=disable"


@pytest.mark.parametrize(
    ("said", "major"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('openjdk version "21" 2023-09-19 LTS', 21),
        ('openjdk version "26-ea" 2026-03-17', 26),
        ('java version "1.8.0_402"', 8),
        ("", None),
        ("command not found", None),
    ],
)
def test_the_version_of_java(said: str, major: int | None) -> None:
    assert flink.java_major(said) == major


def test_quix_starts_no_more_processes_than_partitions() -> None:
    alone = Source(kafka="127.0.0.1:9092", topic="orders", partitions=1)
    assert quix.job(alone, DATABASE, group="a-group", state_dir="/nowhere").processes == 1


@pytest.mark.parametrize(
    ("dsn", "database"),
    [
        (
            "postgresql://me:a%2Fb@db:5433/shop?sslmode=disable",
            Database(host="db", port=5433, name="shop", user="me", password="a/b", sslmode="disable"),
        ),
        (
            "postgres://me@db",
            Database(host="db", port=5432, name="me", user="me", password="", sslmode="prefer"),
        ),
    ],
)
def test_a_database_of_a_url(dsn: str, database: Database) -> None:
    assert Database.of(dsn) == database


@pytest.mark.parametrize(
    ("dsn", "reason"),
    [
        ("mysql://me@db/shop", "not a postgresql:// URL"),
        ("postgresql:///shop?host=/var/run/postgresql", "UNIX socket"),
        ("postgresql://me@db/shop?host=/var/run/postgresql", "UNIX socket"),
    ],
)
def test_a_url_that_the_peers_cannot_use(dsn: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Database.of(dsn)


def test_rates() -> None:
    assert rates(Sighting(2.0, 100), Sighting(12.0, 1_100)) == (1_100 / 12, 100.0)


def test_rates_of_a_table_that_was_full_at_the_first_look() -> None:
    seen = Sighting(4.0, 1_000)
    assert rates(seen, seen) == (250.0, 250.0)


@given(st.integers(1, 10**7), st.integers(0, 10**7), st.floats(0.1, 1e3), st.floats(0.1, 1e3))
def test_rates_are_never_negative(before: int, more: int, start: float, later: float) -> None:
    per_s, steady_per_s = rates(Sighting(start, before), Sighting(start + later, before + more))
    assert per_s > 0
    assert steady_per_s >= 0


def test_a_case_that_is_none() -> None:
    with pytest.raises(ValueError, match="no such case: quix aggregate"):
        measure("quix", "aggregate", kafka="", postgres="", topic="", records=1, partitions=1)


def test_an_environment_that_was_never_made() -> None:
    with pytest.raises(PeerError, match="make bench-peers"):
        environments.python("no-such-peer")
