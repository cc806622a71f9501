"""Tables that are dropped, or dropped and made anew, under a front that has read them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import grpc
import pytest

from tests.integration.query.fronts import FrontProcess, Serving, i, key, plain, refused, s
from tests.integration.query.switcher import ScriptedSwitcher, SwitcherProcess, route
from tests.integration.query.test_reads import adopt
from turnout.registry.v1 import registry_pb2

V = registry_pb2.Version
UNAVAILABLE, PRECONDITION = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.FAILED_PRECONDITION
SHAPES = {
    "column added": ("id bigint primary key, name text, more bigint", "(1, 'new', 5)", [1, "new", 5]),
    "column gone": ("id bigint primary key", "(1)", [1]),
    "other type": ("id bigint primary key, name bigint", "(1, 42)", [1, 42]),
    "same shape": ("id bigint primary key, name text", "(1, 'new')", [1, "new"]),
    "column renamed": ("id bigint primary key, label text", "(1, 'new')", [1, "new"]),
    "other order": ("name text, id bigint primary key", "('new', 1)", ["new", 1]),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_made_anew_with_another_shape(front: FrontProcess, serving: Serving, shape: str) -> None:
    columns, values, expected = SHAPES[shape]
    await serving.numbers(1, {1: "old"})

    async def made_anew() -> None:
        await serving.drop(1)
        await serving.sql(f"create table serving.j__v1 ({columns})")
        await serving.sql(f"insert into serving.j__v1 values {values}")

    async def made_as_before() -> None:
        await serving.drop(1)
        await serving.numbers(1, {1: "old"})

    for _ in range(3):  # both ways, with statements prepared for each
        assert plain((await front.get(i(1), version=1)).row) == [1, "old"]
        await made_anew()
        assert plain((await front.get(i(1), version=1)).row) == expected
        await made_as_before()
        assert plain((await front.batch(key(i(1)), version=1)).results[0].row) == [1, "old"]
        await made_anew()
        assert plain((await front.batch(key(i(1)), version=1)).results[0].row) == expected
        await made_as_before()
        assert (await front.scan(version=1)).rows == [[1, "old"]]
        await made_anew()
        assert (await front.scan(version=1)).rows == [expected]
        await made_as_before()


async def test_made_anew_with_another_key(front: FrontProcess, serving: Serving) -> None:
    await serving.numbers(1, {1: "old"})
    assert plain((await front.get(i(1), version=1)).row) == [1, "old"]
    await serving.drop(1)
    await serving.sql("create table serving.j__v1 (id text primary key, name text)")
    await serving.sql("insert into serving.j__v1 values ('1', 'new')")
    # The key was right for the table that the front knew: the second look finds that it no longer is.
    assert (await refused(front.get(i(1), version=1)))[1] == "INVALID_KEY"
    assert plain((await front.get(s("1"), version=1)).row) == ["1", "new"]


async def test_an_absent_row_of_a_table_made_anew_tells_the_new_columns(front: FrontProcess, serving: Serving) -> None:
    await serving.numbers(1, {1: "old"})
    await front.get(i(1), version=1)
    await serving.drop(1)
    await serving.sql("create table serving.j__v1 (id bigint primary key, other bigint)")
    answer = await front.get(i(1), version=1)
    assert not answer.HasField("row")
    assert list(answer.served.columns) == ["id", "other"]


async def test_a_pinned_version_that_was_dropped(
    front: FrontProcess, serving: Serving, switcher: ScriptedSwitcher
) -> None:
    await serving.numbers(1, {1: "one"})
    await front.get(i(1), version=1)
    await serving.drop(1)
    switcher.versions["jobs/j/versions/1"] = V(name="jobs/j/versions/1", state=V.DROPPED)
    for call in (front.get(i(1), version=1), front.batch(key(i(1)), version=1), front.scan(version=1)):
        assert (await refused(call))[:2] == (PRECONDITION, "VERSION_DROPPED")


async def test_a_pinned_version_that_never_existed(front: FrontProcess) -> None:
    for call in (front.get(i(1), version=9), front.batch(key(i(1)), version=9), front.scan(version=9)):
        assert (await refused(call))[:2] == (grpc.StatusCode.NOT_FOUND, "VERSION_NOT_FOUND")
    assert (await refused(front.get(i(1), version=2**31 - 1)))[1] == "VERSION_NOT_FOUND"


async def test_a_pinned_version_that_has_no_table_yet(front: FrontProcess, switcher: ScriptedSwitcher) -> None:
    switcher.versions["jobs/j/versions/1"] = V(name="jobs/j/versions/1", state=V.REGISTERED)
    assert (await refused(front.get(i(1), version=1)))[:2] == (PRECONDITION, "VERSION_WITHOUT_TABLE")


async def test_a_pinned_version_of_which_nobody_can_tell(
    front: FrontProcess, switcher_process: SwitcherProcess
) -> None:
    await switcher_process.stop()
    assert (await refused(front.get(i(1), version=1)))[:2] == (UNAVAILABLE, "REGISTRY_UNAVAILABLE")


async def test_a_routed_table_that_is_gone_is_looked_up_again(
    front: FrontProcess, serving: Serving, switcher: ScriptedSwitcher
) -> None:
    await serving.numbers(1, {1: "one"})
    await serving.numbers(2, {1: "eins"})
    await adopt(switcher, front, route("j", 1, active=1))
    assert plain((await front.get(i(1))).row) == [1, "one"]
    # The front has not heard of epoch 2 yet, and table 1 is gone already.
    await serving.drop(1)
    switcher.fetchable["jobs/j/route"] = route("j", 2, active=2)
    answer = await front.get(i(1))
    assert plain(answer.row) == [1, "eins"]
    assert (answer.served.version, answer.served.epoch) == (2, 2)
    await adopt(switcher, front, route("j", 2, active=2))
    assert (await front.batch(key(i(1)))).served[0].epoch == 2


@pytest.mark.parametrize("read", ["get", "batch", "scan"])
async def test_a_scan_or_batch_looks_again_too(
    front: FrontProcess, serving: Serving, switcher: ScriptedSwitcher, read: str
) -> None:
    await serving.numbers(1, {1: "one"})
    await serving.numbers(2, {1: "eins"})
    await adopt(switcher, front, route("j", 1, active=1))
    await front.get(i(1))
    await serving.drop(1)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "get": lambda: front.get(i(1)),
        "batch": lambda: front.batch(key(i(1))),
        "scan": front.scan,
    }
    code, reason, message = await refused(calls[read]())
    assert (code, reason) == (UNAVAILABLE, "TABLE_MISSING")
    assert "turnout rollback j" in message
    switcher.fetchable["jobs/j/route"] = route("j", 2, active=2)
    await calls[read]()
