"""Flink's part: SQL and configuration of a job, and the words that say what they are. Pure.

How the settings were found: docs/benchmarks.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from bench.peers.values import TABLE, Database, Job, Source

PARALLELISM: Final = 2
CHECKPOINT_S: Final = 10
FLUSH_ROWS: Final = 20_000
MINI_BATCH_RECORDS: Final = 50_000
MINI_BATCH_LATENCY_S: Final = 2
BUNDLE_RECORDS: Final = 10_000
JAVA_VERSIONS: Final = (11, 17, 21)
"""The Java versions that Flink 2 supports."""

JVM: Final = "-Xms2g -Xmx2g -XX:+UseParallelGC"
"""Client, cluster and tasks are one JVM: a local mini-cluster."""

_CLUSTER: Final = {
    "parallelism.default": str(PARALLELISM),
    "taskmanager.numberOfTaskSlots": str(PARALLELISM),
    "taskmanager.memory.network.min": "128mb",
    "taskmanager.memory.network.max": "128mb",
    "taskmanager.memory.managed.size": "512mb",
    "rest.port": "0",
    "execution.runtime-mode": "STREAMING",  # a batch job cannot go on with the live tail
    "execution.checkpointing.interval": f"{CHECKPOINT_S} s",  # without, the sink promises nothing
    "execution.checkpointing.mode": "AT_LEAST_ONCE",
    "restart-strategy.type": "disable",  # a job that fails is to say so, not to try for ever
    "pipeline.object-reuse": "true",
    # Order ids are unique: an upsert needs no state to tell which of two rows comes last.
    "table.exec.sink.require-on-conflict": "false",
    "table.exec.sink.upsert-materialize": "NONE",
}
_MODES: Final[dict[str, dict[str, str]]] = {
    "append": {},
    "append-udf": {"python.fn-execution.bundle.size": str(BUNDLE_RECORDS)},
    "aggregate": {
        "table.exec.mini-batch.enabled": "true",
        "table.exec.mini-batch.allow-latency": f"{MINI_BATCH_LATENCY_S} s",
        "table.exec.mini-batch.size": str(MINI_BATCH_RECORDS),
    },
}
_GUARANTEE: Final = "at least once from checkpoints; upserts by the primary key make the rows effectively once"


def job(mode: str, source: Source, database: Database, *, jars: Sequence[str], python: str, state_dir: str) -> Job:
    """The job of a mode.

    `jars` are the connectors' files, `python` is the interpreter that runs a Python function, and `state_dir` takes the
    checkpoints: by default they go to the job manager's memory, where the state of an aggregate finds no room.
    """
    spec: dict[str, Any] = {
        "config": {
            **_CLUSTER,
            **_MODES[mode],
            "execution.checkpointing.storage": "filesystem",
            "execution.checkpointing.dir": f"file://{state_dir}/checkpoints",
            "pipeline.jars": ";".join(f"file://{jar}" for jar in jars),
            "python.executable": python,
            "python.client.executable": python,
        },
        "tables": [_orders(source), _target(mode, database)],
        "insert": _insert(mode),
        "python_function": "same_cents" if mode == "append-udf" else None,
    }
    return Job(script="flink_job.py", spec=spec, settings=settings(mode), guarantee=_GUARANTEE)


def settings(mode: str) -> str:
    extra = {
        "append": "",
        "append-udf": f", a scalar Python function in processes of its own, bundles of {BUNDLE_RECORDS:,}",
        "aggregate": f", mini-batches of {MINI_BATCH_RECORDS:,} or {MINI_BATCH_LATENCY_S} s in two phases",
    }[mode]
    return (
        f"SQL, streaming, parallelism {PARALLELISM}, object reuse, checkpoints every {CHECKPOINT_S} s, "
        f"upserts of {FLUSH_ROWS:,} rows or 1 s with reWriteBatchedInserts, JVM {JVM}{extra}"
    )


def java_major(version_output: str) -> int | None:
    """Major version in what `java -version` prints; None if there is none."""
    _, _, rest = version_output.partition('version "')
    number = rest.removeprefix("1.").split('"')[0].split(".")[0].split("-")[0]
    return int(number) if number.isdigit() else None


def _orders(source: Source) -> str:
    return (
        "CREATE TABLE orders (order_id BIGINT, user_id STRING, amount_cents BIGINT, country STRING, ts BIGINT) WITH ("
        f"'connector' = 'kafka', 'topic' = {_literal(source.topic)}, "
        f"'properties.bootstrap.servers' = {_literal(source.kafka)}, 'properties.group.id' = 'turnout-bench-flink', "
        "'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset', 'format' = 'json')"
    )


def _target(mode: str, database: Database) -> str:
    columns = (
        "user_id STRING, n BIGINT, amount BIGINT, PRIMARY KEY (user_id) NOT ENFORCED"
        if mode == "aggregate"
        else "order_id BIGINT, user_id STRING, amount_cents BIGINT, country STRING, ts BIGINT, "
        "PRIMARY KEY (order_id) NOT ENFORCED"
    )
    return (
        f"CREATE TABLE target ({columns}) WITH ('connector' = 'jdbc', 'url' = {_literal(jdbc_url(database))}, "
        f"'username' = {_literal(database.user)}, 'password' = {_literal(database.password)}, "
        f"'table-name' = '{TABLE}', 'sink.buffer-flush.max-rows' = '{FLUSH_ROWS}', 'sink.buffer-flush.interval' = '1s')"
    )


def _insert(mode: str) -> str:
    if mode == "aggregate":
        return "INSERT INTO target SELECT user_id, COUNT(*), SUM(amount_cents) FROM orders GROUP BY user_id"
    amount = "same_cents(amount_cents)" if mode == "append-udf" else "amount_cents"
    return f"INSERT INTO target SELECT order_id, user_id, {amount}, country, ts FROM orders"


def jdbc_url(database: Database) -> str:
    """Without user and password, which the table's options carry."""
    return (
        f"jdbc:postgresql://{database.host}:{database.port}/{database.name}"
        f"?reWriteBatchedInserts=true&sslmode={database.sslmode}"
    )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
