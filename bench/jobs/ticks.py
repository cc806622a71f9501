"""Ticks of each partition, counted: the row of a partition is what its applied position says."""

from turnout import Key, Record, Row, Sum, aggregate

FACTOR = 1


class Tick(Record):
    slot: int  # the partition that the record is in


class Total(Row):
    slot: Key[int]
    total: Sum[int]


@aggregate("ticks", topic="ticks")
def total(tick: Tick) -> Total:
    return Total(tick.slot, FACTOR)
