"""The routes on disk: what was stored comes back, and nothing else does."""

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
    file.store(StoredRoutes(TABLE.with_commit(commit(whole("j", 5), 10)), STORED.vouched_at))
    text = file.path.read_text()
    first, *others = text.splitlines(keepends=True)
    for broken in (
        text.replace('"epoch": "4"', '"epoch": "3"'),
        "".join([first[:-20] + "\n", *others]),
        text.replace('"format": 2', '"format": 1'),
        first,
        first[:-20],
        "",
        "[]\n",
        "null\n",
        "\0",
    ):
        file.path.write_text(broken)
        with pytest.raises(DataLoss, match=r"routes\.json is broken") as caught:
            file.load()
        assert caught.value.reason == "ROUTES_FILE_BROKEN"


def test_a_write_that_broke_off_leaves_the_old_routes(file: RoutesFile, monkeypatch: pytest.MonkeyPatch) -> None:
    file.store(STORED)
    with monkeypatch.context() as broken:
        broken.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            file.store(StoredRoutes(RoutingTable(), STORED.vouched_at))
    assert file.load() == STORED
    file.store(StoredRoutes(RoutingTable(), STORED.vouched_at))
    assert file.load() == StoredRoutes(RoutingTable(), STORED.vouched_at)


def test_a_crash_at_any_byte_leaves_what_held_before(file: RoutesFile) -> None:
    file.store(STORED)
    before = file.path.read_bytes()
    newer = TABLE.with_commit(commit(whole("j", 5), 10)).with_commit(commit(whole("third", 1), 11))
    file.store(StoredRoutes(newer, STORED.vouched_at))
    after = file.path.read_bytes()
    assert after.startswith(before)
    for end in range(len(before), len(after)):
        file.path.write_bytes(after[:end])
        assert file.load() == STORED
    file.path.write_bytes(after)
    assert file.load() == StoredRoutes(newer, STORED.vouched_at)


def test_a_change_adds_what_it_changes_and_nothing_else(file: RoutesFile) -> None:
    table = RoutingTable().with_snapshot(500, [commit(split(f"job-{n}", 1), n) for n in range(500)])
    file.store(StoredRoutes(table, STORED.vouched_at))
    size, lines = file.path.stat().st_size, 501
    for epoch in range(2, 12):
        table = table.with_commit(commit(split("job-7", epoch), 500 + epoch))
        file.store(StoredRoutes(table, STORED.vouched_at))
        lines += 2
        assert len(file.path.read_bytes().splitlines()) == lines
    assert file.path.stat().st_size < size * 1.1
    same = RoutingTable().with_snapshot(
        table.revision, [commit(one.route, one.revision) for one in table.committed.values()]
    )
    file.store(StoredRoutes(same, STORED.vouched_at))
    assert len(file.path.read_bytes().splitlines()) == lines + 1, "a snapshot of the same routes changes none"
    assert file.load() == StoredRoutes(same, STORED.vouched_at)


def test_the_file_does_not_grow_without_end(file: RoutesFile) -> None:
    table = TABLE
    for epoch in range(5, 1_200):
        table = table.with_commit(commit(whole("j", epoch), epoch + 10))
        file.store(StoredRoutes(table, STORED.vouched_at))
    assert len(file.path.read_bytes().splitlines()) < 1_100
    assert file.load() == StoredRoutes(table, STORED.vouched_at)


def test_another_process_goes_on_with_a_file_of_its_own_making(file: RoutesFile) -> None:
    file.store(STORED)
    second = RoutesFile(file.path)
    assert second.load() == STORED
    second.store(StoredRoutes(TABLE.with_snapshot(12, []), STORED.vouched_at))
    assert RoutesFile(file.path).load() == StoredRoutes(RoutingTable(12), STORED.vouched_at)
