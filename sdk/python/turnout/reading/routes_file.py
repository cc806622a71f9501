"""The last good routes on disk, so that a front that restarts serves while the switcher is away.

The file is JSON that a person can read: the snapshot as the switcher would send it, the time as of which the switcher
vouched for it, and a SHA-256 over both. It is replaced as a whole, so that a crash leaves the old one or the new one.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from turnout.errors import DataLoss
from turnout.reading.route_proto import snapshot_of_table, table_of_snapshot
from turnout.reading.routing import RoutingTable
from turnout.switcher.v1 import switcher_pb2

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class StoredRoutes:
    """A routing table, and the time as of which the switcher vouched for it, in UTC."""

    table: RoutingTable
    vouched_at: datetime


class RoutesFile:
    """One file; `load` and `store` block for the time of one small read or write."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> StoredRoutes | None:
        """What was stored, None when nothing was. DataLoss (ROUTES_FILE_BROKEN) when the checksum does not fit."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            document = json.loads(content)
            body = document["body"]
            if document["format"] != _FORMAT or document["sha256"] != _checksum(body):
                raise ValueError("the checksum or the format does not fit")
            snapshot = ParseDict(body["snapshot"], switcher_pb2.Snapshot())
            return StoredRoutes(table_of_snapshot(snapshot), datetime.fromisoformat(body["vouched_at"]))
        except (ValueError, KeyError, TypeError, ParseError) as error:
            raise DataLoss(
                "ROUTES_FILE_BROKEN",
                f"{self.path} is broken ({error}), so the front waits for routes from the switcher.",
            ) from error

    def store(self, routes: StoredRoutes) -> None:
        """Replace what was stored. OSError when the disk refuses."""
        body = {
            "vouched_at": routes.vouched_at.isoformat(),
            "snapshot": MessageToDict(snapshot_of_table(routes.table), preserving_proto_field_name=True),
        }
        document = {"format": _FORMAT, "sha256": _checksum(body), "body": body}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        with fresh.open("w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)


def _checksum(body: object) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
