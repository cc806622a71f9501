"""The tables as they must be, computed from the file alone by code that shares nothing with the job or the engine."""

import csv
import gzip
from collections import defaultdict
from collections.abc import Mapping
from datetime import date
from pathlib import Path

Table = dict[tuple[str, date], dict[str, object]]


def tables(path: Path) -> dict[int, Table]:
    """The rows of version 1 and of version 2 for the whole file, by (carrier, first day of the month).

    On time is an arrival less than 15 minutes late. Version 1 counts a missing arrival delay as on time, version 2 does
    not, and counts flights without a departure delay as cancelled.
    """
    counts: dict[tuple[str, date], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        for flight in csv.DictReader(file):
            group = counts[flight["carrier"], date(int(flight["year"]), int(flight["month"]), 1)]
            arrival = flight["arr_delay"]
            group[0] += 1
            group[1] += arrival == "" or int(arrival) < 15
            group[2] += arrival != "" and int(arrival) < 15
            group[3] += flight["dep_delay"] == ""
    one: Table = {}
    two: Table = {}
    for key, (flights, lenient, strict, cancelled) in counts.items():
        names = {"carrier": key[0], "month": key[1], "flights": flights}
        one[key] = {**names, "on_time": lenient, "on_time_share": lenient / flights}
        two[key] = {**names, "on_time": strict, "cancelled": cancelled, "on_time_share": strict / flights}
    return {1: one, 2: two}


def ranking(rows: list[Mapping[str, object]]) -> list[tuple[str, float]]:
    """Carriers with their share of punctual flights over all months, best first."""
    flights: dict[str, int] = defaultdict(int)
    on_time: dict[str, int] = defaultdict(int)
    for row in rows:
        carrier = str(row["carrier"])
        flights[carrier] += int(str(row["flights"]))
        on_time[carrier] += int(str(row["on_time"]))
    shares = [(carrier, on_time[carrier] / flights[carrier]) for carrier in flights]
    return sorted(shares, key=lambda pair: (-pair[1], pair[0]))
