"""The Kappa story in six chapters, told through the SDK on real flights."""

import asyncio
import difflib
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from datetime import date, timedelta
from pathlib import Path

import asyncpg

from examples.demo import reference
from examples.demo.feed import Feed, Record
from examples.demo.measurements import Measurements
from examples.demo.narrator import Narrator
from examples.demo.readers import UNITS, Readers, Window
from examples.demo.stack import Stack
from examples.flights import records
from turnout.client import Client, basis_points
from turnout.errors import FailedPrecondition
from turnout.results import RouteChange, Run, RunState, VersionState

JOB = "carrier-punctuality"
TOPIC = "flights"
PARTITIONS = 4
FLIGHTS = Path(__file__).parent.parent / "flights"
CODE = {1: FLIGHTS / "carrier_punctuality_v1.py", 2: FLIGHTS / "carrier_punctuality_v2.py"}
CARRIERS = {
    "9E": "Endeavor", "AA": "American", "AS": "Alaska", "B6": "JetBlue", "DL": "Delta", "EV": "ExpressJet",
    "F9": "Frontier", "FL": "AirTran", "HA": "Hawaiian", "MQ": "Envoy", "OO": "SkyWest", "UA": "United",
    "US": "US Airways", "VX": "Virgin America", "WN": "Southwest", "YV": "Mesa",
}  # fmt: skip

DECEMBER_PER_S = 400
COMMITTED_WITHIN_S = 0.5
READS_OBSERVED = 2_000
RETAIN_FOR = timedelta(seconds=3)


class Story:
    """One telling. Chapters are called in order; each leaves the stack as the next one needs it."""

    def __init__(self, stack: Stack, client: Client, narrator: Narrator) -> None:
        self.stack = stack
        self.client = client
        self.tell = narrator
        self.measured = Measurements()
        self.december: Iterator[Record] = records.december()
        self.feed = Feed(stack.kafka, TOPIC, PARTITIONS)
        self.expected = reference.tables(records.FILE)
        self.readers = Readers(stack.target, JOB, [key for key in self.expected[1] if key[1] < date(2013, 12, 1)])
        self.v1_records_per_s = 0.0

    async def run(self) -> Measurements:
        """Tell all of it."""
        await self._the_log()
        await self._version_1_goes_live()
        await self._readers_begin()
        try:
            await self._version_2_replays()
            await self._the_tables_are_compared()
            await self._readers_move()
            await self._version_1_is_retired()
        finally:
            await self.readers.stop()
        self.measured.reads = self.readers.reads
        self.measured.reads_failed = self.readers.failed
        self.measured.read_slowest_ms = round(self.readers.slowest_ms, 1)
        self.measured.reads_by_version = {str(v): n for v, n in sorted(self.readers.by_version.items())}
        self.tell.details(self.readers.failures[:5])
        return self.measured

    async def _the_log(self) -> None:
        self.tell.chapter(0, "The log: January to November is retained, December will keep arriving")
        with self.tell.step(f"turnout produce {TOPIC} examples/flights/flights-2013.csv.gz --key tailnum") as step:
            await self.feed.create_topic()
            produced = await self.feed.produce(records.january_to_november())
            step.result = f"{produced:,} flights in topic {TOPIC}, {PARTITIONS} partitions, keyed by tail number"

    async def _version_1_goes_live(self) -> None:
        self.tell.chapter(1, "Version 1 replays the log, follows it live, and serves")
        with self.tell.step(f"turnout apply {_shown(CODE[1])} --workers 1") as step:
            await self.client.apply(CODE[1])
            started = time.monotonic()
            await self.client.start_run(JOB, 1, workers=1)
            self.feed.start(self.december, DECEMBER_PER_S)
            run = await self._until(1, lambda run: run.state is RunState.TAILING)
            self.v1_records_per_s = run.records / (time.monotonic() - started)
            step.result = (
                f"v1: {run.records:,} records replayed by one worker at {self.v1_records_per_s:,.0f}/s with its start,"
                " now tailing"
            )
        with self.tell.step(f"turnout cutover {JOB} v1") as step:
            await self._until_gates_pass(1)
            step.result = self._adopted(await self.client.cut_over(JOB, 1))

    async def _readers_begin(self) -> None:
        self.tell.chapter(2, f"{UNITS:,} units read without pause from here to the end")
        with self.tell.step(f"turnout read {JOB} UA 2013-07-01 --unit user-1") as step:
            self.readers.start()
            window = await self.readers.observe(READS_OBSERVED // 2)
            step.result = f"{_counted(window)}, {self.readers.failed} failed"

    async def _version_2_replays(self) -> None:
        self.tell.chapter(3, "Version 1 counts cancelled flights as punctual; version 2 mends it")
        self.tell.diff(_diff(CODE[1], CODE[2]))
        with self.tell.step(f"turnout apply {_shown(CODE[2])} --no-run") as step:
            await self.client.apply(CODE[2])
            step.result = "created v2; column cancelled is added"
        with self.tell.step(f"turnout estimate {JOB} v2") as step:
            estimate = await self.client.estimate(JOB, 2)
            table = "unknown" if estimate.table_bytes is None else f"about {estimate.table_bytes / 1024:,.0f} KiB"
            step.result = (
                f"up to {estimate.records:,} records, {estimate.log_bytes / 2**20:,.0f} MiB of log, new table {table}"
            )
        limit = round(self.v1_records_per_s / 2 / 1000) * 1000
        started = time.monotonic()
        with self.tell.step(f"turnout apply {_shown(CODE[2])} --workers 2 --rate {limit}") as step:
            await self.client.start_run(JOB, 2, workers=2, rate_limit=limit)
            run = await self._until(2, lambda run: run.progress > 0.2 and run.records_per_s > 0)
            step.result = f"v2: {run.progress:.0%} at {run.records_per_s:,.0f} records/s beside the live v1"
        await self._a_cutover_asked_too_early()
        await self._the_limit_is_lifted(limit)
        self.measured.catch_up_s = round(time.monotonic() - started, 1)

    async def _a_cutover_asked_too_early(self) -> None:
        with self.tell.step(f"turnout cutover {JOB} v2") as step:
            try:
                await self.client.cut_over(JOB, 2)
            except FailedPrecondition as refusal:
                gates = ", ".join(sorted({violation.type for violation in refusal.violations}))
                step.result = f"refused by the gate {gates}; nothing has changed. Its evidence:"
                evidence = [violation.description for violation in refusal.violations]
            else:
                raise RuntimeError("A cutover to a version that had not caught up was not refused.")
        self.tell.details(evidence)

    async def _the_limit_is_lifted(self, limit: int) -> None:
        with self.tell.step(f"turnout run rate {JOB} v2 0") as step:
            before = await self.client.set_run_rate(JOB, 2, None)
            started = time.monotonic()
            # At the end of the log but for what arrives meanwhile: from there on the feed sets the pace.
            after = await self._until(2, lambda run: run.lag < DECEMBER_PER_S)
            took_s = time.monotonic() - started
            # What may have been read under the limit and committed only now is left out: it is not the full rate's.
            rate = (after.records - before.records - limit * COMMITTED_WITHIN_S) / took_s
            self.measured.replay_records_per_s = round(rate)
            after = await self._until(2, lambda run: run.state is RunState.TAILING)
            step.result = f"v2: {after.records:,} records, the rest of them at {rate:,.0f}/s; now tailing beside v1"

    async def _the_tables_are_compared(self) -> None:
        self.tell.chapter(4, "What does the new code change?")
        with self.tell.step() as step:
            await self.feed.finish(self.december)
            self.measured.flights = self.feed.produced
            for version in CODE:
                await self._until(version, lambda run: run.state is RunState.TAILING and run.lag == 0)
            await self._until_gates_pass(2, baseline=1)
            step.result = (
                f"December is complete: {self.feed.produced:,} flights; the feed rests, and both versions are level"
            )
        with self.tell.step(f"turnout compare {JOB} v1 v2") as step:
            comparison = await self.client.compare(JOB, 1, 2)
            self.measured.rows_changed = comparison.rows_changed
            step.result = (
                f"{comparison.rows_changed} of {comparison.rows_new} rows change,"
                f" columns added: {', '.join(comparison.columns_added)};"
                f" {'exact: both at one cut of the log' if comparison.exact else 'not exact'}"
            )
        with self.tell.step(f"turnout read {JOB} --scan --version v2") as step:
            tables = {version: await self._rows(version) for version in CODE}
            self.measured.tables_match_reference = tables == self.expected
            before, after = (reference.ranking(list(tables[version].values())) for version in CODE)
            places = [[carrier for carrier, _ in ranking].index("US") + 1 for ranking in (before, after)]
            step.result = f"US Airways falls from place {places[0]} to {places[1]} of {len(after)}"
        self.tell.rankings(before, after, CARRIERS)

    async def _readers_move(self) -> None:
        self.tell.chapter(5, "Readers move: 10 %, 50 %, all; back; and all again. The SQL view follows")
        for share in (10, 50):
            with self.tell.step(f"turnout traffic set {JOB} v1={100 - share} v2={share}") as step:
                change = await self.client.set_traffic(JOB, {1: basis_points(100 - share), 2: basis_points(share)})
                # Several rounds over all units: each must stay where it is.
                window = await self.readers.observe(2 * UNITS)
                units = window.units_by_version
                step.result = (
                    f"{self._adopted(change)}; {units[2] / max(1, units.total()):.1%} of units read v2,"
                    f" {window.units_moved} changed sides between two reads"
                )
        for command in (f"turnout cutover {JOB} v2", f"turnout rollback {JOB}", f"turnout cutover {JOB} v2"):
            with self.tell.step(command) as step:
                back = "rollback" in command
                change = await (self.client.roll_back(JOB) if back else self.client.cut_over(JOB, 2))
                window = await self.readers.observe(READS_OBSERVED // 2)
                view = await self._view_shows(change.route.active_version)
                split = "the split from before the cutover is back, " if back else ""
                step.result = f"{self._adopted(change)}; {split}{_counted(window)}; the view shows v{view}"

    async def _version_1_is_retired(self) -> None:
        self.tell.chapter(6, "Version 1 is retired: its run stops, its table is kept for a while, then dropped")
        command = f"turnout retire {JOB} v1 --forgo-rollback --retain-for {RETAIN_FOR.seconds}s"
        with self.tell.step(command) as step:
            await self.client.retire(JOB, 1, retain_for=RETAIN_FOR, forgo_rollback=True)
            async with asyncio.timeout(60):
                while (await self.client.get_version(JOB, 1)).state is not VersionState.DROPPED:
                    await asyncio.sleep(0.1)
            self.measured.table_v1_dropped = await self._query("select to_regclass($1) is null", f"serving.{_table(1)}")
            step.result = "v1: released, run stopped, table retained, dropped; nobody was reading it any more"
        with self.tell.step(f"turnout show {JOB}") as step:
            window = await self.readers.observe(READS_OBSERVED // 2)
            still = await self._rows(2) == self.expected[2]
            self.measured.tables_match_reference = still and self.measured.tables_match_reference
            step.result = f"v2 serves: {_counted(window)}, {self.readers.failed} of {self.readers.reads:,} reads failed"

    async def _until(self, version: int, reached: Callable[[Run], bool]) -> Run:
        """Follow a run, with a bar, until it is where the story needs it."""
        with self.tell.progress() as bar:
            task = bar.add_task(f"v{version}", total=1.0, note="")
            async with asyncio.timeout(120):
                async with aclosing(self.client.watch_run(JOB, version)) as watch:
                    async for run in watch:
                        bar.update(task, completed=run.progress, note=_note(run))
                        if run.state is RunState.FAILED:
                            raise RuntimeError(f"v{version} failed: {run.status_message}")
                        if reached(run):
                            return run
        raise RuntimeError(f"The watch of v{version} ended before its time.")

    async def _until_gates_pass(self, version: int, baseline: int | None = None) -> None:
        async with asyncio.timeout(30):
            while not (await self.client.check_gates(JOB, version, baseline=baseline)).passed:
                await asyncio.sleep(0.1)

    async def _rows(self, version: int) -> reference.Table:
        rows: reference.Table = {}
        async for read in self.client.scan(JOB, version=version):
            assert read.row is not None
            rows[str(read.row["carrier"]), date.fromisoformat(str(read.row["month"]))] = dict(read.row)
        return rows

    async def _view_shows(self, active: int) -> int:
        """The version that the SQL view shows, told by its columns; waits until it has followed."""
        async with asyncio.timeout(10):
            while True:
                columns = await self._query(
                    "select count(*) from information_schema.columns where table_schema = 'serving' "
                    "and table_name = $1 and column_name = 'cancelled'",
                    JOB.replace("-", "_"),
                )
                if (shown := 2 if columns else 1) == active:
                    return shown
                await asyncio.sleep(0.05)

    async def _query(self, statement: str, argument: str) -> bool:
        connection = await asyncpg.connect(self.stack.postgres)
        try:
            return bool(await connection.fetchval(statement, argument))
        finally:
            await connection.close()

    def _adopted(self, change: RouteChange) -> str:
        assert change.adoption_time is not None
        adoption_ms = change.adoption_time.total_seconds() * 1000
        self.measured.adopted_in(adoption_ms)
        return f"epoch {change.route.epoch} adopted by every front in {adoption_ms:.0f} ms"


def _table(version: int) -> str:
    return f"{JOB.replace('-', '_')}__v{version}"


def _shown(path: Path) -> str:
    return f"examples/flights/{path.name}"


def _counted(window: Window) -> str:
    answers = ", ".join(f"{count:,} by v{version}" for version, count in sorted(window.by_version.items()))
    return f"{window.by_version.total():,} reads answered: {answers}"


def _note(run: Run) -> str:
    eta = "" if run.eta is None else f", {run.eta.total_seconds():.0f} s to go"
    return f"{run.records:,} records, {run.records_per_s:,.0f}/s, lag {run.lag:,}{eta}"


def _diff(old: Path, new: Path) -> list[str]:
    lines = difflib.unified_diff(
        old.read_text(encoding="utf-8").splitlines(), new.read_text(encoding="utf-8").splitlines(), n=0, lineterm=""
    )
    return [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]
