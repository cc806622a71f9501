"""How often did each aircraft fly, where is it, and how long did its delays go on?"""
from turnout import Key, Record, Row, fold


class Flight(Record):
    tailnum: str | None            # a flight without one belongs to no row
    dest: str
    dep_delay: int | None          # minutes; None = cancelled


class TailHistory(Row):
    tailnum: Key[str]
    flights: int = 0
    last_destination: str | None = None
    delayed_in_a_row: int = 0      # flights up to the latest one that left 15 minutes late or more
    longest_chain: int = 0         # the most there ever were


# The key is read from the field of the same name; the topic is partitioned by it.
@fold("tail-history", topic="flights")
def tail_history(state: TailHistory | None, flight: Flight) -> TailHistory | None:
    if flight.tailnum is None or flight.dep_delay is None:
        return state
    row = state or TailHistory(tailnum=flight.tailnum)
    row.flights += 1
    row.last_destination = flight.dest
    row.delayed_in_a_row = row.delayed_in_a_row + 1 if flight.dep_delay >= 15 else 0
    row.longest_chain = max(row.longest_chain, row.delayed_in_a_row)
    return row
