"""The saga crashed after every store and every call, and raced: it always ends where it was sent, once."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from core.postgres import migrate, open_pool
from services.registry.lifecycle import State
from services.registry.neighbours import Neighbours
from services.registry.records import Code, Version
from services.registry.retirement import Asked, Call, Outcome, Retirement
from services.registry.saga import Saga
from services.registry.store import MIGRATIONS, Store
from tests.integration.registry.conftest import DEFINITION, JOB
from tests.integration.registry.fakes import FakeApp
from tests.support.eventually import eventually
from turnout.channel import connect
from turnout.errors import Aborted, FailedPrecondition
from turnout.names import VersionId
from turnout.replayer.v1 import run_pb2
from turnout.schema import encode

ASKED = Asked(timedelta(hours=1), False, "ann@desk")
STEPS_MAX = 60


class HandClock:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic_s(self) -> float:
        return self.time.timestamp()


class Crashed(Exception):
    """The process is gone."""


class CrashPoint:
    """Crashes at the n-th point that is passed; 0 = never."""

    def __init__(self, at: int) -> None:
        self.left = at

    @property
    def reached(self) -> bool:
        return self.left < 0

    def passed(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.left = -1
            raise Crashed


class CrashingStore(Store):
    """The real store, which may not return once it has committed."""

    def __init__(self, store: Store, point: CrashPoint) -> None:
        super().__init__()
        self.open(store._pool)
        self._point = point

    async def begin(self, *args: Any, **kwargs: Any) -> Any:
        result = await super().begin(*args, **kwargs)
        self._point.passed()
        return result

    async def claim_due(self, *args: Any) -> Any:
        result = await super().claim_due(*args)
        if result[1]:
            self._point.passed()
        return result

    async def finish(self, *args: Any) -> bool:
        result = await super().finish(*args)
        self._point.passed()
        return result


class CrashingNeighbours(Neighbours):
    """The real calls, whose answers may be lost."""

    point: CrashPoint

    async def make(self, call: Call, retirement: Retirement) -> Outcome:
        outcome = await super().make(call, retirement)
        self.point.passed()
        return outcome


class Bench:
    """A store and neighbours on which sagas are started and lost."""

    def __init__(self, store: Store, neighbours: CrashingNeighbours, fakes: FakeApp) -> None:
        self.store = store
        self.neighbours = neighbours
        self.fakes = fakes
        self.clock = HandClock()

    def saga(self, crash_at: int = 0) -> tuple[Saga, CrashPoint]:
        self.neighbours.point = point = CrashPoint(crash_at)
        return Saga(CrashingStore(self.store, point), self.neighbours, self.clock), point

    async def new_version(self) -> VersionId:
        artifact = b"code %d" % len(self.fakes.replayer.runs)
        code = Code(encode(DEFINITION).decode(), hashlib.sha256(artifact).hexdigest(), artifact)
        async with self.store.transaction() as tx:
            version, created = await self.store.number_version(tx, JOB, code, 0, self.clock.now(), keep=True)
        assert created
        self.fakes.replayer.start(version.id.name)
        return version.id

    async def run(self, saga: Saga, until: State, version: VersionId) -> None:
        """Drive it, with two minutes a step, until the version is in that state."""
        for _ in range(STEPS_MAX):
            if (await self.store.version(version)).state is until:
                return
            await saga.run_due()
            self.clock.time += timedelta(minutes=2)
        raise AssertionError(f"after {STEPS_MAX} steps: {await self.store.version(version)}")


@pytest.fixture
async def bench(postgres: str, fakes: tuple[FakeApp, str]) -> AsyncIterator[Bench]:
    app, target = fakes
    pool = await open_pool(postgres, application_name="test")
    channel = connect(target)
    await migrate(pool, "registry", MIGRATIONS)
    store = Store()
    store.open(pool)
    bench = Bench(store, CrashingNeighbours(channel, channel), app)
    async with store.transaction() as tx:
        await store.insert_job(tx, JOB, "", bench.clock.now())
    yield bench
    await channel.close()
    await pool.close()


async def crash_everywhere(
    bench: Bench,
    act: Callable[[Saga, VersionId], Awaitable[None]],
    go_on: Callable[[Saga, VersionId], Awaitable[None]],
    check: Callable[[VersionId], None],
) -> int:
    """Act on a new version with a crash at the first point, go on after a restart, check; then at the second point, and
    so on until the act comes to its end. How many points there were."""
    for crash_at in itertools.count(1):
        version = await bench.new_version()
        bench.fakes.calls.made.clear()
        saga, point = bench.saga(crash_at)
        try:
            await act(saga, version)
        except Crashed:
            await go_on(bench.saga()[0], version)
        check(version)
        if not point.reached:
            return crash_at - 1
    raise AssertionError


async def test_a_retirement_survives_a_crash_at_every_point(bench: Bench) -> None:
    async def act(saga: Saga, version: VersionId) -> None:
        await saga.retire(version, ASKED)
        await bench.run(saga, State.DROPPED, version)

    def check(version: VersionId) -> None:
        assert bench.fakes.replayer.dropped.count(version.name) == 1
        calls = [call for call in bench.fakes.calls.made if call != "ReleaseVersion"]
        assert calls == sorted(calls, key=["StopRun", "DropTable"].index)

    # The caller repeats, too. Points: store, call, store for each of release, stop, release again, drop.
    assert await crash_everywhere(bench, act, act, check) == 12


async def test_taking_back_survives_a_crash_at_every_point(bench: Bench) -> None:
    async def act(saga: Saga, version: VersionId) -> None:
        await saga.retire(version, ASKED)
        await bench.run(saga, State.RETIRED, version)
        await go_on(saga, version)

    async def go_on(saga: Saga, version: VersionId) -> None:
        await saga.unretire(version, "bo")
        await bench.run(saga, State.REGISTERED, version)

    def check(version: VersionId) -> None:
        assert version.name not in bench.fakes.switcher.released
        assert bench.fakes.replayer.runs[version.name] in (run_pb2.Run.QUEUED, run_pb2.Run.TAILING)
        assert bench.fakes.replayer.dropped == []

    assert await crash_everywhere(bench, act, go_on, check) >= 12


async def test_a_refusal_that_nobody_waits_for_ends_the_retirement(bench: Bench) -> None:
    version = await bench.new_version()
    bench.fakes.switcher.in_use[version.name] = "VERSION_IN_USE"
    saga, _ = bench.saga(crash_at=2)  # after the call, before its outcome is stored
    with pytest.raises(Crashed):
        await saga.retire(version, ASKED)
    restarted, _ = bench.saga()
    bench.clock.time += timedelta(minutes=1)
    await restarted.run_due()
    stored = await bench.store.version(version)
    assert (stored.state, stored.retirement) == (State.REGISTERED, None)
    assert "Cut over to another version" in (await audit(bench, version))[-1][3]

    # Weeks later, when the route no longer names it, nothing that was refused comes to pass.
    bench.fakes.switcher.in_use.clear()
    bench.clock.time += timedelta(days=30)
    assert not await restarted.run_due()
    assert version.name not in bench.fakes.switcher.released


async def test_a_run_that_was_resumed_is_stopped_again_before_the_drop(bench: Bench) -> None:
    saga, _ = bench.saga()
    version = await to_the_drop(bench, saga)
    bench.fakes.replayer.runs[version.name] = run_pb2.Run.TAILING  # by a rollback that came to nothing
    bench.fakes.calls.made.clear()
    await bench.run(saga, State.DROPPED, version)
    assert bench.fakes.calls.made == ["ReleaseVersion", "DropTable", "StopRun", "ReleaseVersion", "DropTable"]
    assert bench.fakes.replayer.dropped == [version.name]
    assert [row[0] for row in await audit(bench, version)][-3:] == ["RETIRING", "RETIRED", "DROPPED"]


async def test_asking_again_with_more_counts_although_the_first_is_refused(bench: Bench) -> None:
    version = await bench.new_version()
    bench.fakes.switcher.in_use[version.name] = "ROLLBACK_WINDOW"
    bench.fakes.calls.held["ReleaseVersion"] = held = asyncio.Event()
    saga, _ = bench.saga()
    first = asyncio.create_task(saga.retire(version, ASKED))
    await eventually(lambda: _is_true("ReleaseVersion" in bench.fakes.calls.made))
    await saga.retire(version, Asked(ASKED.retain_for, True, "bo"))
    held.set()
    with pytest.raises(FailedPrecondition):
        await first
    await bench.run(saga, State.RETIRED, version)


async def test_who_asks_while_the_switcher_is_asked_is_refused_as_well(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = await bench.new_version()
    bench.fakes.switcher.in_use[version.name] = "ROLLBACK_WINDOW"
    bench.fakes.calls.held["ReleaseVersion"] = held = asyncio.Event()
    first = asyncio.create_task(bench.saga()[0].retire(version, ASKED))
    await eventually(lambda: _is_true("ReleaseVersion" in bench.fakes.calls.made))
    other, _ = bench.saga()
    assert (await other.retire(version, ASKED)).state is State.RETIRING
    read = other._store.version

    async def once_the_first_is_refused(version: VersionId) -> Version:
        held.set()
        await asyncio.wait([first])
        return await read(version)

    monkeypatch.setattr(other._store, "version", once_the_first_is_refused)
    for asked in (other.retire(version, ASKED), first):
        with pytest.raises(FailedPrecondition, match="ROLLBACK_WINDOW"):
            await asked


async def to_the_drop(bench: Bench, saga: Saga) -> VersionId:
    """A version whose retention is just over."""
    version = await bench.new_version()
    await saga.retire(version, ASKED)
    await bench.run(saga, State.RETIRED, version)
    bench.clock.time += ASKED.retain_for
    return version


async def test_taking_back_before_the_drop_is_decided_wins(bench: Bench) -> None:
    saga, _ = bench.saga()
    version = await to_the_drop(bench, saga)
    bench.fakes.calls.made.clear()
    bench.fakes.calls.held["ReleaseVersion"] = held = asyncio.Event()
    step = asyncio.create_task(saga.run_due())
    await eventually(lambda: _is_true("ReleaseVersion" in bench.fakes.calls.made))
    await saga.unretire(version, "bo")
    assert not await saga.run_due(), "a call was begun beside one that is under way"
    held.set()
    await step
    await bench.run(saga, State.REGISTERED, version)
    assert bench.fakes.calls.made == ["ReleaseVersion", "ReinstateVersion", "ResumeRun"]
    assert version.name in bench.fakes.replayer.tables


async def test_taking_back_after_the_drop_is_decided_is_refused(bench: Bench) -> None:
    saga, _ = bench.saga()
    version = await to_the_drop(bench, saga)
    await saga.run_due()
    bench.fakes.calls.held["DropTable"] = held = asyncio.Event()
    step = asyncio.create_task(saga.run_due())
    await eventually(lambda: _is_true("DropTable" in bench.fakes.calls.made))
    with pytest.raises(FailedPrecondition) as refused:
        await saga.unretire(version, "bo")
    assert refused.value.reason == "VERSION_DROPPED"
    held.set()
    await step
    assert (await bench.store.version(version)).state is State.DROPPED


async def test_a_blocked_drop_can_be_taken_back(bench: Bench) -> None:
    saga, _ = bench.saga()
    version = await to_the_drop(bench, saga)
    bench.fakes.calls.errors["DropTable"] = [Aborted("TABLE_BLOCKED", "Session 7 holds a lock.")]
    await saga.run_due()
    await saga.run_due()
    await saga.unretire(version, "bo")
    await bench.run(saga, State.REGISTERED, version)
    assert version.name in bench.fakes.replayer.tables


async def test_taking_back_races_the_drop_and_one_wins(bench: Bench) -> None:
    outcomes: set[bool] = set()
    for turns in range(200):
        if turns >= 24 and outcomes == {True, False}:
            break  # how long the one takes beside the other hangs on the machine
        saga, other = bench.saga()[0], bench.saga()[0]
        version = await to_the_drop(bench, saga)

        async def take_back(turns: int = turns, version: VersionId = version, saga: Saga = saga) -> bool:
            for _ in range(turns):  # later and later
                await bench.store.version(version)
            try:
                await saga.unretire(version, "bo")
            except FailedPrecondition:
                return False
            return True

        async def drive(saga: Saga) -> None:
            for _ in range(3):
                await saga.run_due()

        taken_back, *_ = await asyncio.gather(take_back(), drive(saga), drive(other))
        outcomes.add(taken_back)
        await bench.run(saga, State.REGISTERED if taken_back else State.DROPPED, version)
        replayer = bench.fakes.replayer
        assert (version.name in replayer.tables) is taken_back
        assert (replayer.runs[version.name] == run_pb2.Run.QUEUED) is taken_back
        assert (version.name in bench.fakes.switcher.released) is not taken_back
    assert outcomes == {True, False}


async def test_two_registries_make_each_call_once(bench: Bench) -> None:
    sagas = [bench.saga()[0] for _ in range(2)]
    versions = [await bench.new_version() for _ in range(12)]
    for version in versions:
        await sagas[0].retire(version, ASKED)
    bench.fakes.calls.made.clear()

    async def all_dropped() -> bool:
        await asyncio.gather(*(saga.run_due() for saga in sagas))
        bench.clock.time += timedelta(minutes=2)
        states = [(await bench.store.version(version)).state for version in versions]
        return all(state is State.DROPPED for state in states)

    await eventually(all_dropped, every_s=0)
    for call in ("StopRun", "ReleaseVersion", "DropTable"):
        assert bench.fakes.calls.made.count(call) == len(versions)


async def test_the_audit_names_who_and_what(bench: Bench) -> None:
    saga, _ = bench.saga()
    version = await bench.new_version()
    await saga.retire(version, ASKED)
    await saga.unretire(version, "bo")
    await bench.run(saga, State.REGISTERED, version)
    await saga.retire(version, Asked(ASKED.retain_for, True, "cy"))
    assert await audit(bench, version) == [
        ("CREATE_VERSION", "", None, ""),
        ("RETIRE", "ann@desk", False, ""),
        ("UNRETIRE", "bo", None, ""),
        ("REGISTERED", "", None, ""),
        ("RETIRE", "cy", True, ""),
    ]
    assert bench.fakes.switcher.actors == ["ann@desk", "bo", "cy"]


async def audit(bench: Bench, version: VersionId) -> list[tuple[Any, ...]]:
    """Action, actor, whether the way back is given up, and why, of each row."""
    async with bench.store.transaction() as tx:
        rows = await tx.fetch(
            "select action, claimed_actor, forgo_rollback, why from registry.audit where number = $1 order by id",
            version.number,
        )
    return [tuple(row) for row in rows]


async def _is_true(value: bool) -> bool:
    return value
