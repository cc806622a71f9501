"""The last good routes on disk, so that a front that restarts serves while the switcher is away.

A change costs what it changes, not what there is: the file is a log. Each line is a JSON object that a person can read,
with a SHA-256 of its entry:

- ``route``: a committed route, which takes the place of the job's route before;
- ``gone``: a job that has no route any more;
- ``as_of``: what stands above holds as of a revision, and as of the time at which the switcher vouched for it.

Lines behind the last ``as_of`` count for nothing: writing broke off there. Now and then the file is replaced by a
shorter one of the same content, as a whole, so that a crash leaves the old one or the new one.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from turnout.errors import DataLoss
from turnout.reading.route_proto import committed_message, committed_of
from turnout.reading.routing import Committed, RoutingTable
from turnout.switcher.v1 import front_pb2

_FORMAT = 2
_LINES_MIN = 1_000  # a file of fewer lines is never made shorter
_TIMES_AS_LONG = 4

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class StoredRoutes:
    """A routing table, and the time as of which the switcher vouched for it, in UTC."""

    table: RoutingTable
    vouched_at: datetime


class RoutesFile:
    """One file, which one process writes; `load` and `store` block for the time of one small read or write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last: RoutingTable | None = None  # what the file holds; None = not known, so that it is written anew
        self._lines = 0

    def load(self) -> StoredRoutes | None:
        """What was stored, None when nothing was. DataLoss (ROUTES_FILE_BROKEN) when a checksum does not fit."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            stored = _read(content)
        except (ValueError, KeyError, TypeError, ParseError) as error:
            raise DataLoss(
                "ROUTES_FILE_BROKEN",
                f"{self.path} is broken ({error}), so the front waits for routes from the switcher.",
            ) from error
        return stored

    def store(self, routes: StoredRoutes) -> None:
        """Add what has changed since the last time, or write the file anew. OSError when the disk refuses."""
        last, self._last = self._last, None
        if last is None or self._lines > max(_LINES_MIN, _TIMES_AS_LONG * len(last.committed)):
            self._lines = self._replace([*_changes(RoutingTable(), routes.table), _as_of(routes)])
        else:
            self._lines += self._append([*_changes(last, routes.table), _as_of(routes)])
        self._last = routes.table

    def _replace(self, entries: Iterable[Entry]) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        with fresh.open("wb") as file:
            lines = _written(file, entries)
        fresh.replace(self.path)
        return lines

    def _append(self, entries: Iterable[Entry]) -> int:
        with self.path.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            try:
                return _written(file, entries)
            except OSError:
                with contextlib.suppress(OSError):  # what broke off counts for nothing either way
                    file.truncate(end)
                raise


def _written(file: BinaryIO, entries: Iterable[Entry]) -> int:
    """Write the entries, down to the disk; how many lines they are."""
    lines = [json.dumps({"sha256": _checksum(entry), **entry}) + "\n" for entry in entries]
    file.write("".join(lines).encode())
    file.flush()
    os.fsync(file.fileno())
    return len(lines)


def _changes(before: RoutingTable, after: RoutingTable) -> Iterator[Entry]:
    """What makes the one table of the other."""
    for job, committed in after.committed.items():
        known = before.committed.get(job)
        if known is not committed and known != committed:
            yield {"route": MessageToDict(committed_message(committed), preserving_proto_field_name=True)}
    for job in before.committed:
        if job not in after.committed:
            yield {"gone": job}


def _as_of(routes: StoredRoutes) -> Entry:
    when = {"revision": routes.table.revision, "vouched_at": routes.vouched_at.isoformat()}
    return {"as_of": when, "format": _FORMAT}


def _read(content: bytes) -> StoredRoutes:
    """What the lines say. ValueError and others for what no front has written."""
    entries = [_entry(line) for line in _that_hold(content)]
    routes: dict[str, Committed] = {}
    for entry in entries:
        if "route" in entry:
            committed = committed_of(ParseDict(entry["route"], front_pb2.RouteCommitted()))
            routes[committed.route.job] = committed
        elif "gone" in entry:
            del routes[entry["gone"]]
    last = entries[-1]
    if last["format"] != _FORMAT:
        raise ValueError("the format does not fit")
    table = RoutingTable().with_snapshot(last["as_of"]["revision"], list(routes.values()))
    return StoredRoutes(table, datetime.fromisoformat(last["as_of"]["vouched_at"]))


def _that_hold(content: bytes) -> list[bytes]:
    """The lines up to the last one that says as of when they hold; what is behind it broke off."""
    lines = content.split(b"\n")[:-1]
    for end in range(len(lines), 0, -1):
        if b'"as_of"' in lines[end - 1]:
            return lines[:end]
    raise ValueError(f"it ends after {len(lines)} lines, before anything holds")


def _entry(line: bytes) -> Entry:
    entry: Entry = json.loads(line)
    if entry["sha256"] != _checksum({name: value for name, value in entry.items() if name != "sha256"}):
        raise ValueError("a checksum does not fit")
    return entry


def _checksum(entry: Entry) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
