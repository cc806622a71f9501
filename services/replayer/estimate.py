"""What a run of a version would read and write: from the log's offsets, a sample of it, and the table beside it."""

from dataclasses import dataclass

from core.domain.names import VersionId
from core.kafka import TopicInfo
from services.replayer.gates import span
from services.replayer.surroundings import Surroundings

PLACES = 4  # offsets of each partition at which a sample is read
RECORDS_AT_EACH = 50


@dataclass(frozen=True, slots=True)
class Estimate:
    """`table_bytes` is None when there is nothing to judge it by."""

    records: int
    log_bytes: int
    sampled_records: int
    table_bytes: int | None
    partitions: int
    remarks: tuple[str, ...]


async def estimate_run(around: Surroundings, version: VersionId) -> Estimate:
    """Estimate; nothing is started. FailedPrecondition (TOPIC_NOT_FOUND), NotFound (VERSION_NOT_FOUND)."""
    registered = await around.artifacts.version(version)
    infos = await around.topics.describe(registered.definition)
    ends = await around.topics.ends(infos)
    records = sum(one.end - one.start for one in ends.values())
    sampled = await around.topics.sample(ends, PLACES, RECORDS_AT_EACH)
    mean_bytes = sampled.size_bytes / sampled.records if sampled.records else 0.0
    table_bytes, remark = await _table_bytes(around, version, records)
    return Estimate(
        records=records,
        log_bytes=round(records * mean_bytes),
        sampled_records=sampled.records,
        table_bytes=table_bytes,
        partitions=len(ends),
        remarks=(remark, *(_retention(info) for info in infos.values())),
    )


async def _table_bytes(around: Surroundings, version: VersionId, records: int) -> tuple[int | None, str]:
    """The size of the newest other table of the job, scaled by the records it was made of."""
    others = [run for run in await around.store.of_job(version.job) if run.version != version and run.drop_time is None]
    for other in reversed(others):
        size = await around.store.table_bytes(other.table)
        positions = (await around.store.positions([other.version])).get(other.version, {})
        read = sum(position.next_offset - position.start_offset for position in positions.values())
        if size is not None and read > 0:
            return round(size * max(1.0, records / read)), (
                f"the size of the table is judged by that of {other.label}, {size:,} bytes for {read:,} offsets"
            )
    return None, "the size of the table is unknown: the job has no other table to judge it by"


def _retention(info: TopicInfo) -> str:
    if info.compacted:
        return f"{info.topic} is compacted: of older records only the latest of each key is there"
    if info.retention_ms < 0:
        return f"{info.topic} keeps its records for ever"
    return (
        f"{info.topic} keeps its records for {span(info.retention_ms / 1000)}: what the replay has not read by then is "
        f"gone, and the run fails rather than pass over it"
    )
