"""Where did each aircraft last take off?"""
from turnout import Key, Record, Row, map  # noqa: A004 - shadows the builtin on purpose


class Flight(Record):
    month: int
    day: int
    carrier: str
    tailnum: str | None
    origin: str
    dest: str
    dep_delay: int | None          # minutes; None = cancelled


class LatestLeg(Row):
    tailnum: Key[str]
    carrier: str
    origin: str
    dest: str
    month: int
    day: int


# The topic is partitioned by tail number: within its partition an aircraft's later flight replaces the earlier one,
# and a Kafka tombstone for a tail number deletes its row.
@map("latest-leg", topic="flights", keyed_by_partition=True, indexes=["dest"])
def latest_leg(flight: Flight) -> LatestLeg | None:
    if flight.tailnum is None or flight.dep_delay is None:
        return None
    return LatestLeg(tailnum=flight.tailnum, carrier=flight.carrier, origin=flight.origin, dest=flight.dest,
                     month=flight.month, day=flight.day)
