"""Runs, positions and samples for tests of the pure rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from services.replayer.protocol import TopicPartition
from services.replayer.run import LogEnds, Position, Run, Sample
from services.replayer.states import State
from turnout.names import VersionId
from turnout.schema import Column, ColumnType, JobDefinition, JobKind, Merge, TopicSource

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
KEY = Column("carrier", ColumnType.STRING, merge=Merge.KEY)
COUNT = Column("flights", ColumnType.INT64, merge=Merge.SUM)


def definition(*columns: Column, topic: str = "flights", **changes: Any) -> JobDefinition:
    made = JobDefinition(
        job="punctuality",
        kind=JobKind.AGGREGATE,
        topics=(TopicSource(topic),),
        columns=(KEY, *(columns or (COUNT,))),
        key=("carrier",),
    )
    return msgspec.structs.replace(made, **changes)


def run(number: int = 2, state: State = State.TAILING, **changes: Any) -> Run:
    made = Run(
        version=VersionId("punctuality", number),
        state=state,
        failure_reason="",
        failure_message="",
        artifact_digest="0" * 64,
        definition=definition(),
        workers=2,
        rate_limit=0,
        table=f"punctuality__v{number}",
        topic_ids={"flights": "id"},
        start_times={},
        indexes_built=True,
        worker_restarts=0,
        revision=1,
        request_id="",
        create_time=NOW,
    )
    return replace(made, **changes)


def tp(partition: int = 0, topic: str = "flights") -> TopicPartition:
    return TopicPartition(topic, partition)


def at(
    next_offset: int,
    *,
    start: int = 0,
    event_s: float | None = None,
    records: int | None = None,
    until: int | None = None,
) -> Position:
    """A position; `event_s` is its event time in seconds after NOW, `until` the end of a bounded range."""
    return Position(
        start_offset=start,
        next_offset=next_offset,
        event_time=None if event_s is None else NOW + timedelta(seconds=event_s),
        records=next_offset - start if records is None else records,
        set_aside=0,
        owner="",
        range_end=until,
    )


def sample(
    runs: Sequence[tuple[Run, Mapping[int, Position]]],
    ends: Mapping[int, int],
    *,
    at_s: float = 0.0,
    asked_s: float | None = None,
) -> Sample:
    """A sample of runs with positions by partition, and ends of the log by partition, asked at once if not told."""
    return Sample(
        monotonic_s=at_s,
        at=NOW + timedelta(seconds=at_s),
        runs={one.version: one for one, _ in runs},
        positions={one.version: {tp(n): p for n, p in positions.items()} for one, positions in runs},
        ends={tp(n): LogEnds(0, end, at_s if asked_s is None else asked_s) for n, end in ends.items()},
    )
