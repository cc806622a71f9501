"""A range of the log on the wire: `turnout.log_range.LogRange` <-> `registry.v1.LogRange`. None = all of the log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from turnout.log_range import LogRange, LogRangeError, PartitionOffset
from turnout.registry.v1 import registry_pb2

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_proto(log_range: LogRange | None) -> registry_pb2.LogRange | None:
    """The message; None where nothing is left out."""
    if log_range is None or log_range.whole:
        return None
    return registry_pb2.LogRange(
        start_time=_stamp(log_range.start_time),
        start_offsets=_offsets(log_range.start_offsets),
        end_time=_stamp(log_range.end_time),
        end_offsets=_offsets(log_range.end_offsets),
    )


def from_proto(message: registry_pb2.LogRange) -> LogRange | None:
    """The range; None where it leaves nothing out. LogRangeError when it makes no sense."""
    start, end = message.WhichOneof("start"), message.WhichOneof("end")
    found = LogRange(
        start_time=_time(message.start_time) if start == "start_time" else None,
        start_offsets=_named(message.start_offsets, "start_offsets") if start == "start_offsets" else (),
        end_time=_time(message.end_time) if end == "end_time" else None,
        end_offsets=_named(message.end_offsets, "end_offsets") if end == "end_offsets" else (),
    )
    return None if found.whole else found


def _stamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


def _time(stamp: Timestamp) -> datetime:
    """To the next microsecond: a time must not become an earlier one."""
    try:
        return _EPOCH + timedelta(seconds=stamp.seconds, microseconds=-(-stamp.nanos // 1000))
    except OverflowError:
        raise LogRangeError("a time of the range is beyond what a time can be") from None


def _offsets(offsets: tuple[PartitionOffset, ...]) -> registry_pb2.Offsets | None:
    if not offsets:
        return None
    return registry_pb2.Offsets(
        offsets=[
            registry_pb2.PartitionOffset(topic=one.topic, partition=one.partition, offset=one.offset) for one in offsets
        ]
    )


def _named(message: registry_pb2.Offsets, name: str) -> tuple[PartitionOffset, ...]:
    if not message.offsets:
        raise LogRangeError(f"{name} names no partition; name some, or leave it out")
    return tuple(PartitionOffset(one.topic, one.partition, one.offset) for one in message.offsets)
