"""Quix Streams' part: arguments of its application, and the words that say what they are. Pure.

How the settings were found: docs/benchmarks.md.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from bench.peers.values import TABLE, Database, Job, Source

PROCESSES: Final = 2
COMMIT_EVERY: Final = 20_000
COMMIT_INTERVAL_S: Final = 5.0
_GUARANTEE: Final = (
    "at least once from the group's offsets; the primary key ignores repeats: the rows are effectively once"
)


def job(source: Source, database: Database, *, group: str, state_dir: str) -> Job:
    """The job. `group` is the consumer group, a new one for each run so that it begins at the start of the topic."""
    spec = {
        "application": {
            "broker_address": source.kafka,
            "consumer_group": group,
            "auto_offset_reset": "earliest",
            "commit_every": COMMIT_EVERY,
            "commit_interval": COMMIT_INTERVAL_S,
            "auto_create_topics": False,
            "use_changelog_topics": False,
            "loglevel": "WARNING",
            "state_dir": state_dir,
        },
        "topic": source.topic,
        "database": asdict(database),
        "table": TABLE,
    }
    processes = min(PROCESSES, source.partitions)
    return Job(script="quix_job.py", spec=spec, settings=settings(), guarantee=_GUARANTEE, processes=processes)


def settings() -> str:
    return (
        f"{PROCESSES} processes in one consumer group, PostgreSQLSink with fixed schema and ON CONFLICT DO NOTHING, "
        f"a commit every {COMMIT_EVERY:,} records or {COMMIT_INTERVAL_S:.0f} s, no changelog topics"
    )
