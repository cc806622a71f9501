"""What is asked of a peer and what comes of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

CASES: Final = (("flink", "append"), ("flink", "append-udf"), ("flink", "aggregate"), ("quix", "append"))
"""Every (peer, mode) that `measure` takes."""

TABLE: Final = "bench_peer"
"""The table that a peer writes; it exists only while it is measured."""

# Columns, keys and fill factors of the hand loop's tables: all that are compared write the same.
TABLES: Final = {
    "append": f"CREATE TABLE {TABLE} (order_id bigint PRIMARY KEY, user_id text, amount_cents bigint, country text, "
    f"ts bigint)",
    "aggregate": f"CREATE TABLE {TABLE} (user_id text PRIMARY KEY, n bigint, amount bigint) WITH (fillfactor = 85)",
}


class PeerError(Exception):
    """A peer could not be measured. The message says what happened and what to do; it never carries a password."""


@dataclass(frozen=True)
class PeerResult:
    """One measured case.

    `per_s` counts from the start of the peer's process, `steady_per_s` from the first rows seen in the table; both end
    when the table is complete. Rates are records of the topic per second. `settings` and `guarantee` are one line each.
    """

    peer: str
    mode: str
    version: str
    settings: str
    guarantee: str
    records: int
    seconds_total: float
    per_s: float
    steady_per_s: float


@dataclass(frozen=True)
class Job:
    """What runs in the peer's environment: a script of this package, and its JSON as the variable JOB."""

    script: str
    spec: Mapping[str, Any] = field(repr=False)  # holds the password
    settings: str
    guarantee: str
    processes: int = 1


@dataclass(frozen=True)
class Source:
    """The topic, and the Kafka (HOST:PORT) that has it."""

    kafka: str
    topic: str
    partitions: int


@dataclass(frozen=True)
class Database:
    """A postgresql:// URL taken apart, for drivers that take parts."""

    host: str
    port: int
    name: str
    user: str
    password: str = field(repr=False)
    sslmode: str

    @classmethod
    def of(cls, dsn: str) -> Database:
        """Raises ValueError for another scheme and for a UNIX socket, to which Java's driver cannot connect."""
        parts = urlsplit(dsn)
        options = parse_qs(parts.query)
        if parts.scheme not in ("postgresql", "postgres"):
            raise ValueError("not a postgresql:// URL")
        if not parts.hostname or "host" in options:
            raise ValueError("the peers connect over TCP alone: give a URL with a host, not with a UNIX socket")
        user = unquote(parts.username or "postgres")
        return cls(
            host=parts.hostname,
            port=parts.port or 5432,
            name=unquote(parts.path.lstrip("/")) or user,
            user=user,
            password=unquote(parts.password or ""),
            sslmode=options.get("sslmode", ["prefer"])[-1],
        )


@dataclass(frozen=True)
class Sighting:
    """So many of the records were in the table, so many seconds after the peer's start."""

    seconds: float
    records: int


def rates(first: Sighting, last: Sighting) -> tuple[float, float]:
    """Records per second with start-up, and from the first rows seen; the former twice if all came at once."""
    per_s = last.records / last.seconds
    later = last.seconds - first.seconds
    return per_s, (last.records - first.records) / later if later > 0 else per_s
