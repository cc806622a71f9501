"""The routes on disk: what was stored comes back, and nothing else does."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.unit.reading.test_routing import commit, split, whole
from turnout.errors import DataLoss
from turnout.reading.routes_file import RoutesFile, StoredRoutes
from turnout.reading.routing import RoutingTable

TABLE = RoutingTable().with_snapshot(9, [commit(split("j", 4), 9), commit(whole("other", 2), 3)])
STORED = StoredRoutes(TABLE, datetime(2013, 1, 1, 12, 0, 0, 123456, UTC))


@pytest.fixture
def file(tmp_path: Path) -> RoutesFile:
    return RoutesFile(tmp_path / "new" / "routes.json")


def test_nothing_stored(file: RoutesFile) -> None:
    assert file.load() is None


def test_what_was_stored(file: RoutesFile) -> None:
    file.store(STORED)
    assert file.load() == STORED
    file.store(StoredRoutes(RoutingTable(), STORED.vouched_at))
    assert file.load() == StoredRoutes(RoutingTable(), STORED.vouched_at)
    assert [path.name for path in file.path.parent.iterdir()] == ["routes.json"]


def test_a_flipped_value_is_found(file: RoutesFile) -> None:
    file.store(STORED)
    text = file.path.read_text()
    document = json.loads(text)
    document["body"]["snapshot"]["revision"] = "10"
    for broken in (
        json.dumps(document),
        text[:-20],
        text.replace('"format": 1', '"format": 2'),
        "",
        "[]",
        "null",
        "\0",
    ):
        file.path.write_text(broken)
        with pytest.raises(DataLoss, match=r"routes\.json is broken") as caught:
            file.load()
        assert caught.value.reason == "ROUTES_FILE_BROKEN"


def test_a_write_that_broke_off_leaves_the_old_routes(file: RoutesFile, monkeypatch: pytest.MonkeyPatch) -> None:
    file.store(STORED)
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        file.store(StoredRoutes(RoutingTable(), STORED.vouched_at))
    assert file.load() == STORED
