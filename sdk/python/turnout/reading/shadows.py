"""The read-time comparison: what the active version has answered, held against the rows of a candidate.

It comes after the answer and takes nothing from it: a sampled answer is put into a bounded queue as it was packed, or
dropped and counted; one worker unpacks it and reads both versions over a connection of its own, within a deadline of
its own. Whatever fails there is a reason why a read was not compared, and nothing else.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import grpc

from turnout.errors import TurnoutError
from turnout.names import VersionId, route_name
from turnout.reading.columns import Table
from turnout.reading.deadline import Deadline
from turnout.reading.front import Front
from turnout.reading.link import SwitcherLink
from turnout.reading.positions import Positions
from turnout.reading.shadow_rules import Difference, Judgement, LastChange, Row, Seen, Vector, difference, judged
from turnout.reading.table import TableMoved, Tables, Values
from turnout.reading.values import transposed
from turnout.routing import Route, shadowed, unit_of_key
from turnout.shadow import Shadow, ShadowCounts
from turnout.shadow_proto import counts_message
from turnout.sql import DELETED_COLUMN, is_hidden
from turnout.status import from_rpc_error
from turnout.switcher.v1 import shadow_pb2
from turnout.tasks import end
from turnout.telemetry import meter

log = logging.getLogger(__name__)

READS: Final = "turnout.shadow.reads"
QUEUE_MAX: Final = 5_000
"""Answers that wait to be compared."""
LOOKED_MAX: Final = 100
"""Keys of one batch that are looked at, evenly over it: no more, for it is the time of readers."""
TOGETHER_MAX: Final = 500
"""Keys of one statement."""
PATIENCE_S: Final = 3.0
"""How long a table is waited for to pass the other one."""
STATEMENT_S: Final = 1.0
KEYS_MAX: Final = 100_000
"""Keys that are compared in one epoch of a route."""
_TALLIES_MAX: Final = 500
_WAIT_S, _WAIT_S_MAX = 0.05, 0.5
_TELL_EVERY_S: Final = 1.0
_CALL_S: Final = 5.0

QUEUE_FULL = "QUEUE_FULL"
BEHIND = "BEHIND"
CHANGED = "CHANGED"
OTHER_KEY = "OTHER_KEY"
OTHER_LOG = "OTHER_LOG"
MISSING = "MISSING"
SLOW = "SLOW"
UNAVAILABLE = "UNAVAILABLE"
UNREADABLE = "UNREADABLE"
ROUTE_CHANGED = "ROUTE_CHANGED"


@dataclass(slots=True)
class _Tally:
    """What was compared in one epoch of a route."""

    route: Route
    shadow: Shadow
    numbers: Counter[str] = field(default_factory=Counter)
    columns: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    known: set[int] = field(default_factory=set)  # hashes of the keys that were compared or wait to be
    sequence: int = 0
    told: int = 0

    def leave_out(self, reason: str, reads: int = 1) -> None:
        self.left_out[reason] += reads
        self.sequence += reads

    def compare(self, found: Difference) -> None:
        self.numbers["compared"] += 1
        self.numbers["equal"] += not found.differs
        self.numbers["only_candidate_differs"] += found.differs and not found.active_differs
        self.numbers["only_active_differs"] += found.active_differs and not found.differs
        self.numbers["active_differs"] += found.active_differs
        self.numbers["only_active"] += found.only_active
        self.numbers["only_candidate"] += found.only_candidate
        self.columns.update(found.columns)
        self.sequence += 1

    @property
    def counts(self) -> ShadowCounts:
        return ShadowCounts(**self.numbers, columns=dict(self.columns), left_out=dict(self.left_out))


class Rows(Protocol):
    """Rows that may still be packed (`table.Found`)."""

    @property
    def rows(self) -> Sequence[Values | None]:
        """Each, None = there is none. FailedPrecondition (VALUE_UNREADABLE)."""

    def __len__(self) -> int:
        """How many."""

    def at(self, places: Sequence[int]) -> "Rows":
        """Those at these places, packed as they are."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """Rows as they are."""

    rows: Sequence[Values | None]

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, places: Sequence[int]) -> "Unpacked":
        """Those at these places."""
        return Unpacked([self.rows[place] for place in places])


@dataclass(slots=True)
class _Answered:
    """An answer that waits to be compared. key: the values, in the order of the table's key.

    found, place: its row among those that were sampled together; row: that, once it is unpacked.
    """

    tally: _Tally
    table: Table
    key: Values
    positions: Positions
    found: Rows
    place: int
    row: Values | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """What the active version has answered: for each key the place of its row in `found`.

    units: of the reads; none = each key is its own.
    """

    table: Table
    positions: Positions
    keys: Sequence[Values]
    found: Rows
    places: Sequence[int]
    units: Sequence[str] = ()


class _NotComparedError(Exception):
    """Why answers cannot be compared."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Shadows:
    """The comparisons of one front. tables: of its own, with the hidden columns."""

    def __init__(self, front: Front, tables: Tables, link: SwitcherLink) -> None:
        self._front = front
        self._tables = tables
        self._link = link
        self._source = secrets.token_hex(8)
        self._tallies: dict[tuple[str, int], _Tally] = {}
        self._queue: deque[_Answered] = deque()
        self._due = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._complaint = ""
        self._reads = meter("turnout.shadow").create_counter(READS, "{read}", "sampled reads, by what became of them")

    async def start(self) -> None:
        """Begin to compare and to tell. Connects to nobody yet."""
        await self._tables.open()
        self._tasks = [
            asyncio.create_task(self._work(), name="compare with shadows"),
            asyncio.create_task(self._tell(), name="tell of shadows"),
        ]

    async def stop(self) -> None:
        """Tell what there is once more, then end."""
        await end(*self._tasks)
        with contextlib.suppress(TurnoutError):
            await self._tell_once()
        await self._tables.close()

    def answered(self, route: Route, shadow: Shadow, answers: Answers) -> None:
        """The active version has answered by this route: queue what is sampled. Never waits, never fails."""
        try:
            self._put(route, shadow, answers)
        except Exception:
            log.exception("sampling answers for v%d failed", shadow.version)

    def _put(self, route: Route, shadow: Shadow, answers: Answers) -> None:
        sampled: dict[int, Values] = {}
        for at, values in enumerate(answers.keys):
            key = tuple(values)
            if not shadowed(route.job, shadow, answers.units[at] if answers.units else unit_of_key(key)):
                continue
            tally = self._tally(route, shadow)
            if hash(key) in tally.known or len(tally.known) >= KEYS_MAX:
                continue
            if len(self._queue) + len(sampled) >= QUEUE_MAX:
                self._leave_out(tally, QUEUE_FULL)
            else:
                tally.known.add(hash(key))
                sampled[answers.places[at]] = key
        if not sampled:
            return
        tally, found = self._tally(route, shadow), answers.found.at([*sampled])
        for place, key in enumerate(sampled.values()):
            self._queue.append(_Answered(tally, answers.table, key, answers.positions, found, place))
        self._due.set()

    def _tally(self, route: Route, shadow: Shadow) -> _Tally:
        known = route.job, route.epoch
        if known not in self._tallies:
            while len(self._tallies) >= _TALLIES_MAX:
                del self._tallies[next(iter(self._tallies))]
            self._tallies[known] = _Tally(route, shadow)
        return self._tallies[known]

    # --- comparing ---

    async def _work(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            while self._queue:
                batch = self._next()
                try:
                    self._unpack(batch)
                    if batch:
                        await self._compare(batch)
                except _NotComparedError as error:
                    self._give_up(batch, error.reason)
                except Exception:
                    log.exception("comparing with v%d failed", batch[0].tally.shadow.version)
                    self._give_up(batch, UNAVAILABLE)

    def _next(self) -> list[_Answered]:
        """The oldest answers of one table and epoch that follow one another."""
        batch = [self._queue.popleft()]
        while self._queue and len(batch) < TOGETHER_MAX:
            one = self._queue[0]
            if one.tally is not batch[0].tally or one.table != batch[0].table:
                break
            batch.append(self._queue.popleft())
        return batch

    def _unpack(self, waiting: list[_Answered]) -> None:
        """Unpack their rows, and take out of the list those that cannot be read."""
        unpacked = {key: _each(found) for key, found in {id(one.found): one.found for one in waiting}.items()}
        readable = []
        for one in waiting:
            row = unpacked[id(one.found)][one.place]
            if isinstance(row, _Unreadable):
                self._give_up([one], UNREADABLE)
            else:
                one.row = row
                readable.append(one)
        waiting[:] = readable

    async def _compare(self, waiting: list[_Answered]) -> None:
        """Compare them, and take each out of the list that is done with; _NotComparedError for those left in it."""
        tally, table = waiting[0].tally, waiting[0].table
        route, until_s, wait_s = tally.route, time.monotonic() + PATIENCE_S, _WAIT_S
        while True:
            if self._front.table.epoch(route.job) != route.epoch:
                raise _NotComparedError(ROUTE_CHANGED)
            with self._front.in_flight.read(route.job, route.epoch):
                candidate = await self._seen(VersionId(route.job, tally.shadow.version), table, waiting)
                again = await self._seen(table.version, table, waiting)
            reads = zip(list(waiting), candidate, again, strict=True)
            waiting[:] = [one for one, its, own in reads if not self._done(one, its, own)]
            if not waiting:
                return
            if time.monotonic() >= until_s:
                raise _NotComparedError(BEHIND)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _WAIT_S_MAX)

    def _done(self, one: _Answered, candidate: Seen | None, again: Seen | None) -> bool:
        """Count an answer that can be judged; False where it has to wait."""
        if candidate is None or again is None:
            self._give_up([one], UNREADABLE)
            return True
        row = None if one.row is None else dict(zip(one.table.column_names, one.row, strict=True))
        answered = Seen(row, _vector(one.positions))
        if answered.at.keys() != candidate.at.keys() or answered.at.keys() != again.at.keys():
            self._leave_out(one.tally, OTHER_LOG)
            return True
        judgement = judged(answered, candidate, again)
        if judgement is Judgement.WAIT:
            return False
        if judgement is Judgement.CHANGED:
            self._give_up([one], CHANGED)
            return True
        found = difference(answered.row, candidate.row, again.row)
        one.tally.compare(found)
        self._reads.add(1, {"job": one.tally.route.job, "outcome": "differs" if found.differs else "equal"})
        return True

    async def _seen(self, version: VersionId, live: Table, waiting: Sequence[_Answered]) -> list[Seen | None]:
        """What a version has for the keys now; None where that cannot be read."""
        deadline = Deadline(STATEMENT_S)
        try:
            async with asyncio.timeout(2 * STATEMENT_S):  # to connect, too
                reader = await self._tables.reader(version, deadline)
                keys = _keys(live, reader.table, [one.key for one in waiting])
                positions, found = await reader.batch(transposed(reader.table, keys), deadline)
        except TimeoutError:
            raise _NotComparedError(SLOW) from None
        except TableMoved as moved:
            self._tables.forget(moved.version)
            raise _NotComparedError(MISSING) from None
        except TurnoutError as error:
            slow = isinstance(error.__cause__, TimeoutError)
            raise _NotComparedError(SLOW if slow else UNAVAILABLE) from None
        at = _vector(positions)
        names = reader.table.column_names
        return [None if isinstance(row, _Unreadable) else _seen(names, row, at) for row in _each(found)]

    def _give_up(self, answers: Sequence[_Answered], reason: str) -> None:
        """Leave these out; their keys may come again."""
        for one in answers:
            self._leave_out(one.tally, reason)
            one.tally.known.discard(hash(one.key))

    def _leave_out(self, tally: _Tally, reason: str) -> None:
        tally.leave_out(reason)
        self._reads.add(1, {"job": tally.route.job, "outcome": reason.lower()})

    # --- telling ---

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(_TELL_EVERY_S)
            try:
                await self._tell_once()
                self._complaint = ""
            except TurnoutError as error:
                if error.message != self._complaint:
                    log.warning("counts of shadows wait to be told: %s", error.message)
                self._complaint = error.message
            except Exception:
                log.exception("telling of shadows failed and is tried again")

    async def _tell_once(self) -> None:
        """Tell the whole counts of what has changed: a repeat, or one that comes late, is none."""
        news = [(one, one.sequence) for one in self._tallies.values() if one.sequence > one.told]
        if news:
            request = shadow_pb2.RecordShadowCountsRequest(
                front=self._front.name, source=self._source, tallies=[_tally_message(one) for one, _ in news]
            )
            try:
                await self._link.stub.RecordShadowCounts(request, timeout=_CALL_S)
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error, "switcher") from None
        for one, sequence in news:
            one.told = sequence
        waiting = {id(one.tally) for one in self._queue}
        for known, one in list(self._tallies.items()):
            over = self._front.table.epoch(known[0]) > known[1]
            if over and one.told == one.sequence and id(one) not in waiting:
                one.known.clear()  # nothing is compared under this route any more; what is left out may still come


def _tally_message(tally: _Tally) -> shadow_pb2.ShadowTally:
    return shadow_pb2.ShadowTally(
        name=route_name(tally.route.job),
        epoch=tally.route.epoch,
        version=tally.shadow.version,
        active_version=tally.route.active_version,
        sequence=tally.sequence,
        counts=counts_message(tally.counts),
    )


class _Unreadable:
    """Stands for a row that cannot be read."""


def _each(found: Rows) -> Sequence[Values | _Unreadable | None]:
    """Each row, and which of them cannot be read."""
    try:
        return found.rows
    except TurnoutError:
        return [_one(found.at([place])) for place in range(len(found))]


def _one(found: Rows) -> Values | _Unreadable | None:
    try:
        return found.rows[0]
    except TurnoutError:
        return _Unreadable()


def _vector(positions: Positions) -> Vector:
    return positions.kept(
        "vector", lambda: {(one.topic, one.topic_id, one.partition): one.next_offset for one in positions.each}
    )


def _seen(names: Sequence[str], values: Values | None, at: Vector) -> Seen:
    if values is None:
        return Seen(None, at)
    every = dict(zip(names, values, strict=True))
    row: Row | None = {name: value for name, value in every.items() if not is_hidden(name)}
    if every.get(DELETED_COLUMN) is True:
        row = None
    return Seen(row, at, _last_change(every))


def _last_change(every: Mapping[str, Any]) -> LastChange | None:
    if "_offset" not in every or "_partition" not in every:
        return None
    return LastChange(every.get("_topic") or "", every["_partition"], every["_offset"])


def _keys(live: Table, table: Table, keys: Sequence[Values]) -> list[Values]:
    """The keys in the order of another table's key. _NotComparedError where that has other columns."""
    if table.key == live.key:
        return list(keys)
    kinds = {column.name: column.kind for column in live.key}
    if kinds != {column.name: column.kind for column in table.key}:
        raise _NotComparedError(OTHER_KEY)
    names = [column.name for column in live.key]
    return [tuple(table.in_key_order(names, key)) for key in keys]
