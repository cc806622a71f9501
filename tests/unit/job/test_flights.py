"""The examples on the real flights of 2013; expected figures are recomputed here from the file by other code."""

from __future__ import annotations

import csv
import difflib
import gzip
import subprocess
import sys
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from examples.flights import records
from turnout.job import load
from turnout.testing import run

FLIGHTS = Path(records.__file__).parent


@pytest.fixture(scope="module")
def year() -> list[tuple[bytes | None, bytes]]:
    return list(records.all_year())


@pytest.fixture(scope="module")
def lines() -> list[dict[str, str]]:
    with gzip.open(FLIGHTS / "flights-2013.csv.gz", "rt", newline="") as file:
        return list(csv.DictReader(file))


def table(name: str, year: list[tuple[bytes | None, bytes]]) -> list[Any]:
    return run(load(FLIGHTS / f"{name}.py"), year)


def test_the_records(year: list[tuple[bytes | None, bytes]], lines: list[dict[str, str]]) -> None:
    assert len(year) == len(lines) == 336_776
    assert sum(1 for _ in records.january_to_november()) == 308_641
    assert list(records.december()) == year[308_641:]
    assert sum(key is None for key, _ in year) == 2_512
    assert sum(not line["arr_delay"] for line in lines) == 9_430
    assert sum(not line["dep_delay"] for line in lines) == 8_255
    assert year[0] == (
        b"N14228",
        b'{"year":2013,"month":1,"day":1,"hour":5,"minute":15,"carrier":"UA","flight":1545,'
        b'"tailnum":"N14228","origin":"EWR","dest":"IAH","dep_delay":2,"arr_delay":11,'
        b'"air_time":227,"distance":1400}',
    )


def test_carrier_punctuality(year: list[tuple[bytes | None, bytes]], lines: list[dict[str, str]]) -> None:
    flights: Counter[tuple[str, date]] = Counter()
    faulty, on_time, cancelled = Counter(flights), Counter(flights), Counter(flights)
    for line in lines:
        group = line["carrier"], date(2013, int(line["month"]), 1)
        delay = line["arr_delay"]
        flights[group] += 1
        faulty[group] += not delay or int(delay) < 15
        on_time[group] += bool(delay) and int(delay) < 15
        cancelled[group] += not line["dep_delay"]
    one, two = table("carrier_punctuality_v1", year), table("carrier_punctuality_v2", year)
    groups = sorted(flights)
    assert len(groups) == 185
    assert [(r.carrier, r.month, r.flights, r.on_time) for r in one] == [(*g, flights[g], faulty[g]) for g in groups]
    assert [(r.carrier, r.month, r.flights, r.on_time, r.cancelled) for r in two] == [
        (*g, flights[g], on_time[g], cancelled[g]) for g in groups
    ]
    assert sum(a.on_time != b.on_time for a, b in zip(one, two, strict=True)) == 143
    assert sum(row.flights for row in one) == 336_776


def test_the_diff_of_the_two_versions_is_three_lines() -> None:
    one, two = ((FLIGHTS / f"carrier_punctuality_v{n}.py").read_text().splitlines() for n in (1, 2))
    changes = [
        line for line in difflib.unified_diff(one, two, lineterm="", n=0) if not line.startswith(("---", "+++", "@@"))
    ]
    assert changes == [
        "+    cancelled: Sum[int] = 0",
        "-        on_time=(flight.arr_delay or 0) < 15)",
        "+        on_time=flight.arr_delay is not None and flight.arr_delay < 15,",
        "+        cancelled=flight.dep_delay is None)",
    ]


def test_latest_leg(year: list[tuple[bytes | None, bytes]], lines: list[dict[str, str]]) -> None:
    latest = {line["tailnum"]: line for line in lines if line["tailnum"] and line["dep_delay"]}
    assert [(r.tailnum, r.carrier, r.origin, r.dest, str(r.month), str(r.day)) for r in table("latest_leg", year)] == [
        (tail, *(latest[tail][name] for name in ("carrier", "origin", "dest", "month", "day")))
        for tail in sorted(latest)
    ]


def test_tail_history(year: list[tuple[bytes | None, bytes]], lines: list[dict[str, str]]) -> None:
    flown: dict[str, list[tuple[str, bool]]] = {}
    for line in lines:
        if line["tailnum"] and line["dep_delay"]:
            flown.setdefault(line["tailnum"], []).append((line["dest"], int(line["dep_delay"]) >= 15))
    expected = []
    for tail in sorted(flown):
        chains = "".join("x" if late else " " for _, late in flown[tail]).split(" ")
        expected.append((tail, len(flown[tail]), flown[tail][-1][0], len(chains[-1]), max(map(len, chains))))
    assert [
        (r.tailnum, r.flights, r.last_destination, r.delayed_in_a_row, r.longest_chain)
        for r in table("tail_history", year)
    ] == expected


def test_the_examples_type_check_for_a_user() -> None:
    files = sorted(str(path) for path in FLIGHTS.glob("*.py"))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *files], capture_output=True, text=True, cwd=FLIGHTS.parent.parent
    )
    assert done.returncode == 0, done.stdout
