"""How punctual is each carrier, month by month?"""
from datetime import date

from turnout import Key, Record, Row, Sum, aggregate


class Flight(Record):              # the fields read from the JSON value; others are ignored
    year: int
    month: int
    carrier: str
    dep_delay: int | None          # minutes; None = cancelled
    arr_delay: int | None          # minutes; None = cancelled or diverted


class Punctuality(Row):            # the table, and how two rows of one key merge
    carrier: Key[str]
    month: Key[date]
    flights: Sum[int] = 1
    on_time: Sum[int] = 0
    cancelled: Sum[int] = 0


@aggregate("carrier-punctuality", topic="flights",
           derived={"on_time_share": "on_time::float8 / flights"})   # a generated column
def punctuality(flight: Flight) -> Punctuality:
    return Punctuality(
        carrier=flight.carrier, month=date(flight.year, flight.month, 1),
        on_time=flight.arr_delay is not None and flight.arr_delay < 15,
        cancelled=flight.dep_delay is None)
