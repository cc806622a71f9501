"""A client in direct mode beside a front: the same answers, and the same duties."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from tests.integration.query.conftest import MakeFront
from tests.integration.query.fronts import FrontProcess, Serving
from tests.integration.query.switcher import ScriptedSwitcher, SwitcherProcess, route
from tests.support.eventually import eventually
from tests.support.proxy import Connection, TcpProxy
from turnout.client import Client, Direct
from turnout.direct import reads
from turnout.errors import DeadlineExceeded, FailedPrecondition, InvalidInput, TurnoutError, Unavailable
from turnout.reading.positions import Position
from turnout.reading.tokens import token_of
from turnout.registry.v1 import registry_pb2
from turnout.results import Read

Ask = Callable[[Client], Awaitable[Any]]

EVERY_TYPE = """create table serving.j__v1 (
    i bigint, s text, b boolean, d date, t timestamptz, m numeric, u uuid, x bytea,
    f double precision, r real, n smallint, js jsonb, o interval, empty text,
    primary key (i, s, b, d, t, m, u, x))"""
WHEN = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
UUID_1 = UUID("123e4567-e89b-12d3-a456-426614174000")
WIDE_KEY: dict[str, Any] = {
    "i": 1,
    "s": "é",
    "b": True,
    "d": date(2026, 3, 1),
    "t": WHEN,
    "m": Decimal("2.50"),
    "u": UUID_1,
    "x": b"\0",
}


@pytest.fixture
async def routed(serving: Serving, switcher: ScriptedSwitcher) -> ScriptedSwitcher:
    """Versions 1 and 2 of the job j, split in halves under epoch 3."""
    await serving.numbers(1, {1: "one", 2: "two", 3: "three"}, offset=10)
    await serving.numbers(2, {1: "eins", 2: "zwei", 3: "drei"}, offset=20)
    await serving.position(1, 7, partition=1, event_time=WHEN)
    switcher.commit("p3", route("j", 3, active=1, share={1: 0.5, 2: 0.5}))
    return switcher


@asynccontextmanager
async def direct(postgres: str, process: SwitcherProcess, **settings: Any) -> AsyncIterator[Client]:
    targets = {"switcher": process.target, "registry": process.target}
    async with Client(targets=targets, direct=Direct(postgres, **settings), timeout_s=20) as client:
        yield client


@pytest.fixture
async def direct_client(
    postgres: str, routed: ScriptedSwitcher, switcher_process: SwitcherProcess
) -> AsyncIterator[Client]:
    async with direct(postgres, switcher_process) as client:
        yield client


async def outcome(ask: Ask, client: Client) -> Any:
    """What is answered, or what it is refused with."""
    try:
        return await ask(client)
    except TurnoutError as error:
        return type(error), error.reason, error.message, dict(error.metadata)


def scanned(**asked: Any) -> Ask:
    async def ask(client: Client) -> Any:
        return [read async for read in client.scan("j", **asked)]

    return ask


SEEN = (Position("t", "", 0, 15, None),)
"""What version 2 has applied, and version 1 has not."""
AHEAD = (Position("t", "", 0, 10**6, None),)


async def session(client: Client) -> Any:
    reader = client.session(unit="u")
    reads = [await reader.get("j", key) for key in (1, 2)]
    return reads, await reader.batch_get("j", [1, 2]), reader.tokens


ASKED: dict[str, Ask] = {
    "a row": lambda client: client.get("j", 1),
    "no row": lambda client: client.get("j", 99),
    "a row by name": lambda client: client.get("j", {"id": 2}),
    "rows of units": lambda client: asyncio.gather(*(client.get("j", 1, unit=f"u{n}") for n in range(10))),
    "a pinned version": lambda client: client.get("j", 3, version=2),
    "a batch over both versions": lambda client: client.batch_get("j", [1, 2, 3, 1, 99]),
    "a batch of nothing": lambda client: client.batch_get("j", []),
    "a batch of a unit": lambda client: client.batch_get("j", [(1,), [2]], unit="u"),
    "a scan": scanned(order_by=["-name"], limit=2),
    "a scan of a unit": scanned(unit="u3"),
    "a key of another type": lambda client: client.get("j", "one"),
    "a key too many": lambda client: client.get("j", (1, 2)),
    "a key of another name": lambda client: client.get("j", {"number": 1}),
    "a date as key": lambda client: client.get("j", date(2026, 1, 1)),
    "a number too large": lambda client: client.get("j", 2**63),
    "a job without a route": lambda client: client.get("k", 1),
    "a name that is none": lambda client: client.get("J", 1),
    "a negative version": lambda client: client.get("j", 1, version=-1),
    "an unknown column": scanned(order_by=["size"]),
    "too many keys": lambda client: client.batch_get("j", [1] * 10_001),
    "a session": session,
    "a token that is none": lambda client: client.get("j", 1, token=b"none"),
    "a token ahead of all": lambda client: client.get("j", 1, token=token_of("j", 1, AHEAD), timeout_s=6),
    "a batch with a token": lambda client: client.batch_get("j", [1, 2, 3], token=token_of("j", 1, SEEN), timeout_s=8),
    "a scan with a token": scanned(token=token_of("j", 1, SEEN), timeout_s=8),
    "a version that never was": lambda client: client.get("j", 1, version=9),
}


@pytest.mark.parametrize("asked", ASKED)
async def test_the_same_answer_as_through_a_front(asked: str, front: FrontProcess, direct_client: Client) -> None:
    async with Client(targets={"query": front.settings.listen}) as through:
        expected = await outcome(ASKED[asked], through)
        assert await outcome(ASKED[asked], direct_client) == expected


async def test_explain_tells_the_same(front: FrontProcess, direct_client: Client) -> None:
    async with Client(targets={"query": front.settings.listen}) as through:
        for asked in ({"unit": "u7"}, {"key": 1}):
            mine, its = await direct_client.explain("j", **asked), await through.explain("j", **asked)
            assert (mine.unit, mine.unit_hash, mine.version) == (its.unit, its.unit_hash, its.version)
            assert (mine.interval_low, mine.interval_high) == (its.interval_low, its.interval_high)
            assert mine.front != its.front == front.settings.instance


async def test_values_of_every_type_come_as_through_a_front(
    serving: Serving, switcher: ScriptedSwitcher, switcher_process: SwitcherProcess, postgres: str, front: FrontProcess
) -> None:
    await serving.sql(EVERY_TYPE)
    await serving.sql(
        "insert into serving.j__v1 values (1, 'é', true, '2026-03-01', $1, 2.50, $2, '\\x00', 0.1, 0.5, -3, "
        """'{"a": [1, null]}', '1 day', null)""",
        WHEN,
        UUID_1,
    )
    async with (
        direct(postgres, switcher_process) as mine,
        Client(targets={"query": front.settings.listen}) as through,
    ):
        ordered = tuple(WIDE_KEY.values())
        for key in (WIDE_KEY, ordered, list(ordered), {**WIDE_KEY, "m": Decimal("2.5")}):
            read = await mine.get("j", key, version=1)
            assert read == await through.get("j", key, version=1)
            assert read.row is not None
            assert list(read.row) == [*"isbdtmuxfrn", "js", "o", "empty"]
        assert (await mine.get("j", {**WIDE_KEY, "m": Decimal("2.51")}, version=1)).row is None


@pytest.mark.parametrize(
    ("kind", "value"), [("date", "26000-01-01"), ("timestamptz", "26000-01-01 00:00:00+00"), ("date", "0044-03-15 BC")]
)
async def test_a_value_that_python_does_not_have_fails_its_own_caller_alone(
    kind: str,
    value: str,
    serving: Serving,
    switcher: ScriptedSwitcher,
    switcher_process: SwitcherProcess,
    postgres: str,
    front: FrontProcess,
) -> None:
    await serving.sql(f"create table serving.j__v1 (k bigint primary key, odd {kind})")
    await serving.sql("insert into serving.j__v1 select n from generate_series(1, 20) n")
    await serving.sql(f"update serving.j__v1 set odd = '{value}' where k = 7")
    others = [{"k": key, "odd": None} for key in range(1, 21) if key != 7]
    async with (
        direct(postgres, switcher_process) as mine,
        Client(targets={"query": front.settings.listen}) as through,
    ):
        for client in (mine, through):
            reads = await asyncio.gather(
                *(client.get("j", key, version=1) for key in range(1, 21)), return_exceptions=True
            )
            error = reads.pop(6)
            assert [read.row for read in reads if isinstance(read, Read)] == others
            assert isinstance(error, FailedPrecondition)
            assert (error.reason, error.metadata) == ("VALUE_UNREADABLE", {"column": "odd"})
            assert "Column odd holds a value" in error.message
            asked: list[Ask] = [
                lambda client: client.get("j", 7, version=1),
                lambda client: client.batch_get("j", [6, 7], version=1),
                scanned(version=1),
            ]
            for ask in asked:
                with pytest.raises(FailedPrecondition, match="Column odd holds a value that cannot be read here"):
                    await ask(client)


async def test_a_read_is_a_span_of_its_caller(spans: InMemorySpanExporter, direct_client: Client) -> None:
    with trace.get_tracer("test").start_as_current_span("caller") as caller:
        await direct_client.get("j", 1, unit="u")
        with pytest.raises(InvalidInput):
            await direct_client.get("j", "one")
    good, bad = (span for span in spans.get_finished_spans() if span.name == "turnout.direct/Get")
    for span in (good, bad):
        assert span.parent is not None
        assert span.parent.span_id == caller.get_span_context().span_id
    assert good.status.status_code is StatusCode.UNSET
    assert good.attributes is not None
    assert (good.attributes["turnout.job"], good.attributes["turnout.front"]) == (
        "j",
        (await direct_client.explain("j", unit="u")).front,
    )
    assert bad.status.status_code is StatusCode.ERROR


# --- the duties of a front ---


async def test_a_proposal_is_prepared_adopted_and_drained(direct_client: Client, routed: ScriptedSwitcher) -> None:
    assert (await direct_client.get("j", 1, unit="u")).epoch == 3
    routed.propose("p4", route("j", 4, active=2))

    async def prepared() -> bool:
        return routed.said("p4") == ["PREPARED"]

    await eventually(prepared)
    assert (await direct_client.get("j", 1, unit="u")).epoch == 3  # prepared is not committed
    routed.commit("p4", route("j", 4, active=2))

    async def drained() -> bool:
        return routed.said("p4") == ["PREPARED", "SERVING", "DRAINED"]

    await eventually(drained)
    read = await direct_client.get("j", 1, unit="u")
    assert (read.version, read.epoch, read.row) == (2, 4, {"id": 1, "name": "eins"})


async def test_a_route_to_a_missing_table_is_refused(direct_client: Client, routed: ScriptedSwitcher) -> None:
    routed.propose("p4", route("j", 4, active=3))

    async def refused() -> bool:
        return routed.said("p4") == ["NACK"]

    await eventually(refused)
    assert "j v3 has no table" in routed.reason("p4")


async def test_a_scan_under_the_old_route_holds_back_drained(
    direct_client: Client, routed: ScriptedSwitcher, serving: Serving
) -> None:
    await serving.sql("insert into serving.j__v1 select n, 'x' from generate_series(10, 5000) n")
    rows = direct_client.scan("j", limit=5000, unit=await unit_of(direct_client, 1))
    await anext(rows)
    routed.commit("p4", route("j", 4, active=2))

    async def serving_only() -> bool:
        return routed.said("p4") == ["SERVING"]

    await eventually(serving_only)
    assert (await direct_client.get("j", 1)).version == 2
    assert routed.said("p4") == ["SERVING"]
    await rows.aclose()

    async def drained() -> bool:
        return routed.said("p4") == ["SERVING", "DRAINED"]

    await eventually(drained)


async def unit_of(client: Client, version: int) -> str:
    """A unit that reads the version."""
    for number in range(100):
        if (await client.explain("j", unit=f"u{number}")).version == version:
            return f"u{number}"
    raise AssertionError(f"no unit reads v{version}")


async def test_a_closed_client_has_said_goodbye(
    postgres: str, routed: ScriptedSwitcher, switcher_process: SwitcherProcess
) -> None:
    async with direct(postgres, switcher_process):

        async def there() -> bool:
            return len(routed.streams) == 1

        await eventually(there)

    async def gone() -> bool:
        return not routed.streams

    await eventually(gone)


async def test_reads_are_told_with_heartbeats(direct_client: Client, routed: ScriptedSwitcher) -> None:
    for _ in range(3):
        await direct_client.get("j", 1)

    async def told() -> bool:
        return sum(load.reads for stream in routed.streams for load in stream.read_loads) == 3

    await eventually(told)


async def test_a_dropped_table_is_looked_for_under_the_new_route(
    direct_client: Client, routed: ScriptedSwitcher, serving: Serving
) -> None:
    unit = await unit_of(direct_client, 1)
    assert (await direct_client.get("j", 1, unit=unit)).version == 1
    routed.fetchable["jobs/j/route"] = route("j", 4, active=2)  # committed, and not come by the watch yet
    await serving.drop(1)
    read = await direct_client.get("j", 1, unit=unit)
    assert (read.version, read.epoch) == (2, 4)


async def test_a_dropped_version_is_told_as_such(
    direct_client: Client, routed: ScriptedSwitcher, serving: Serving
) -> None:
    name = "jobs/j/versions/1"
    routed.versions[name] = registry_pb2.Version(name=name, state=registry_pb2.Version.DROPPED)
    await serving.drop(1)
    with pytest.raises(FailedPrecondition) as refused:
        await direct_client.get("j", 1, version=1)
    assert refused.value.reason == "VERSION_DROPPED"


async def test_without_the_switcher_it_reads_for_as_long_as_it_may(
    postgres: str, routed: ScriptedSwitcher, switcher_process: SwitcherProcess
) -> None:
    settings = {"max_stale_active_s": 8.0, "max_stale_experiment_s": 4.0}
    async with direct(postgres, switcher_process, **settings) as client:
        unit = await unit_of(client, 2)
        assert (await client.get("j", 1, unit=unit)).version == 2
        await switcher_process.stop()

        async def follows_no_split() -> bool:
            return (await client.get("j", 1, unit=unit)).version == 1

        await eventually(follows_no_split)

        async def stale() -> bool:
            try:
                await client.get("j", 1, unit=unit, timeout_s=0.2)
            except Unavailable as error:
                return error.reason == "ROUTE_STALE"
            except DeadlineExceeded:
                pass  # it was slower than its answer
            return False

        await eventually(stale)
        assert (await client.get("j", 1, version=1)).version == 1  # what is pinned needs no route
        await switcher_process.start()
        assert (await client.get("j", 1, unit=unit)).version == 2  # waits within its deadline, as through a front


async def test_stored_routes_serve_a_start_without_the_switcher(
    postgres: str, routed: ScriptedSwitcher, switcher_process: SwitcherProcess, tmp_path: Path
) -> None:
    file = tmp_path / "routes.json"
    async with direct(postgres, switcher_process, routes_file=file) as client:
        first = await client.get("j", 1, unit="u")
        await switcher_process.stop()  # before the client says goodbye: no cutover counts it after that
    async with direct(postgres, switcher_process, routes_file=file) as client:
        assert await client.get("j", 1, unit="u") == first
    async with direct(postgres, switcher_process) as client:
        with pytest.raises(Unavailable) as refused:
            await client.get("j", 1, timeout_s=3.0)
    assert refused.value.reason == "ROUTES_UNKNOWN"


def _of_nobody(postgres: str) -> str:
    return f"not-there:secret@{urlsplit(postgres).netloc.rpartition('@')[2]}"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (lambda postgres: "", "is no URL"),
        (lambda postgres: "foo", "is no URL"),
        (lambda postgres: urlsplit(postgres)._replace(path="/not-there").geturl(), "it has no such database"),
        (
            lambda postgres: urlsplit(postgres)._replace(netloc=_of_nobody(postgres)).geturl(),
            "does not accept the user",
        ),
    ],
)
async def test_a_database_that_refuses_is_told_at_once(
    changed: Callable[[str], str], told: str, postgres: str, switcher_process: SwitcherProcess
) -> None:
    targets = {"switcher": switcher_process.target, "registry": switcher_process.target}
    with pytest.raises(InvalidInput, match=told) as refused:
        async with Client(targets=targets, direct=changed(postgres)):
            pass
    assert refused.value.reason == "POSTGRES_REFUSED"


async def test_a_database_that_falls_silent_holds_no_client_up(
    postgres: str, routed: ScriptedSwitcher, switcher_process: SwitcherProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "_FIRST_CONTACT_S", 5.0)  # for which a busy machine may need some to be asked
    asked = asyncio.Event()

    async def sent(connection: Connection, data: bytes) -> None:
        if b"has_schema_privilege" in data:
            connection.mute()
            asked.set()

    parts = urlsplit(postgres)
    async with TcpProxy(parts.hostname or "", parts.port or 5432, sent=sent) as proxy, asyncio.timeout(60):
        through = postgres.replace(f"{parts.hostname}:{parts.port}", f"127.0.0.1:{proxy.port}")
        async with direct(through, switcher_process):
            assert asked.is_set()


@pytest.fixture
async def reader(postgres: str, routed: ScriptedSwitcher, serving: Serving) -> AsyncIterator[tuple[str, str]]:
    """A user of the database without any right, and the URL by which it connects."""
    role = f"reader_{urlsplit(postgres).path.removeprefix('/')}"
    await serving.sql(f"create role {role} login password 'x'")
    host = urlsplit(postgres).netloc.rpartition("@")[2]
    yield role, urlsplit(postgres)._replace(netloc=f"{role}:x@{host}").geturl()
    await serving.sql(f"drop owned by {role}; drop role {role}")


async def test_a_user_without_rights_is_told_which_and_they_are_enough(
    reader: tuple[str, str], serving: Serving, switcher: ScriptedSwitcher, switcher_process: SwitcherProcess
) -> None:
    role, url = reader
    with pytest.raises(FailedPrecondition) as refused:
        async with direct(url, switcher_process):
            pass
    assert (refused.value.reason, refused.value.metadata["role"]) == ("POSTGRES_DENIED", role)
    assert f"{role} may not read the schema serving: it may not use the schema." in refused.value.message
    _, grants, _ = refused.value.message.split("`")
    await serving.sql(grants)
    async with direct(url, switcher_process) as client:
        assert (await client.get("j", 1, unit="u1")).row is not None
        assert len((await client.batch_get("j", [1, 2, 3])).reads) == 3
        assert len([read async for read in client.scan("j")]) == 3
        assert (await client.explain("j", unit="u1")).epoch == 3
        # A table that is made later, by whom the services connect as.
        await serving.numbers(4, {1: "vier"})
        switcher.commit("p4", route("j", 4, active=4))

        async def of_the_new_one() -> bool:
            read = await client.get("j", 1)
            return (read.version, read.row) == (4, {"id": 1, "name": "vier"})

        await eventually(of_the_new_one)


async def test_a_table_that_the_user_may_not_read_is_no_fault_of_the_server(
    reader: tuple[str, str], serving: Serving, switcher_process: SwitcherProcess
) -> None:
    role, url = reader
    await serving.sql(f"grant usage on schema serving to {role}; grant select on serving.positions to {role}")
    asked: list[Ask] = [
        lambda client: client.get("j", 1),
        lambda client: client.batch_get("j", [1, 2]),
        lambda client: anext(client.scan("j")),
    ]
    async with direct(url, switcher_process) as client:
        for ask in asked:
            kind, reason, message, _ = await outcome(ask, client)
            assert (kind, reason) == (FailedPrecondition, "POSTGRES_DENIED")
            assert f'grant select on all tables in schema serving to "{role}"' in message

        refused = await asyncio.gather(*(client.get("j", n) for n in range(50)), return_exceptions=True)
        # One error for all who shared a statement: none of them is asked again by itself.
        assert len({id(one.__cause__) for one in refused if isinstance(one, FailedPrecondition)}) < 50


async def test_who_reads_through_a_front_that_lacks_rights_is_not_told_of_its_user(
    reader: tuple[str, str], serving: Serving, make_front: MakeFront, caplog: pytest.LogCaptureFixture
) -> None:
    role, url = reader
    await serving.sql(f"grant usage on schema serving to {role}; grant select on serving.positions to {role}")
    front = await make_front(postgres=url)
    asked: list[Ask] = [
        lambda client: client.get("j", 1, version=1),
        lambda client: client.batch_get("j", [1, 2], version=1),
        lambda client: anext(client.scan("j", version=1)),
    ]
    async with Client(front.settings.listen) as client:
        for ask in asked:
            kind, reason, message, metadata = await outcome(ask, client)
            assert (kind, reason) == (FailedPrecondition, "POSTGRES_DENIED")
            assert message.startswith("This front lacks the right to read the table of j v1.")
            assert not [part for part in (role, "grant ") if part in f"{message} {metadata}"]
    told = [one.getMessage() for one in caplog.records if one.name == "turnout.reading.denials"]
    [of_v1] = [one for one in told if "the table of j v1:" in one]
    assert f'grant select on all tables in schema serving to "{role}"' in of_v1
