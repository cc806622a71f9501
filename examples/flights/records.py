"""The flights of 2013 as records for a topic: (key, value) = (tail number or None, JSON)."""
import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

FILE = Path(__file__).with_name("flights-2013.csv.gz")
TEXTS = frozenset({"carrier", "tailnum", "origin", "dest"})


def all_year() -> Iterator[tuple[bytes | None, bytes]]:
    """All 336,776 records, in order of departure."""
    return _records(range(1, 13))


def january_to_november() -> Iterator[tuple[bytes | None, bytes]]:
    """The 308,641 records of the first eleven months."""
    return _records(range(1, 12))


def december() -> Iterator[tuple[bytes | None, bytes]]:
    """The 28,135 records of December."""
    return _records(range(12, 13))


def _records(months: range) -> Iterator[tuple[bytes | None, bytes]]:
    with gzip.open(FILE, "rt", encoding="utf-8", newline="") as lines:
        for line in csv.DictReader(lines):
            if int(line["month"]) in months:
                record = {name: _value(name, text) for name, text in line.items()}
                tail = line["tailnum"]
                yield tail.encode() or None, json.dumps(record, separators=(",", ":")).encode()


def _value(name: str, text: str) -> str | int | None:
    if not text:
        return None
    return text if name in TEXTS else int(text)
