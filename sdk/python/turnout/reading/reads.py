"""The reads: resolve, count as in flight, read the table, and look again once where the table has moved."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, TypeVar

from turnout.errors import FailedPrecondition, InvalidInput, NotFound, TurnoutError, Unavailable
from turnout.names import VersionId
from turnout.query.v1.query_pb2 import ReadToken
from turnout.reading.columns import Column, Table
from turnout.reading.deadline import Deadline
from turnout.reading.exposing import Exposing
from turnout.reading.front import Front
from turnout.reading.limits import SCAN_ROWS_MAX
from turnout.reading.positions import Positions
from turnout.reading.routing import Cause, Resolution, Resolver
from turnout.reading.scans import taken_in_time
from turnout.reading.shadows import LOOKED_MAX, Answers, Shadows, Unpacked
from turnout.reading.table import Found, Page, TableMissing, TableMoved, TableReader, Tables, Values
from turnout.reading.tokens import behind, token_of
from turnout.reading.values import Keys
from turnout.routing import Interval, Route, Units, unit_hash, unit_of_key
from turnout.shadow import Shadow
from turnout.telemetry import meter

KEYS_MAX = 10_000
SCAN_ROWS_DEFAULT = 1000

STAND_INS = "turnout.reads.stand_ins"

_WAIT_SHARE = 0.5
_WAIT_S_MAX = 2.0
_POLL_S = 0.01
_POLL_S_MAX = 0.1

T = TypeVar("T")


class Routes(Protocol):
    """Asks the switcher for one route, outside of the watch."""

    async def refetch(self, job: str, deadline: Deadline) -> bool:
        """Bring the front's route of the job up to date; False, and it stays as it is, when the switcher is away."""


class Registry(Protocol):
    """Asks the registry what became of a version."""

    async def was_dropped(self, version: VersionId, deadline: Deadline) -> bool:
        """Whether the version's table is gone for good; False when it has none yet. NotFound; Unavailable."""


@dataclass(frozen=True, slots=True)
class Request:
    """What every read says: the job, its caller's unit ("" = none), the version that it pins (0 = as routed), and what
    its caller has seen. passed_over: versions that are behind that, for which the active one stands in.

    InvalidInput (INVALID_VERSION) for a negative version.
    """

    job: str
    unit: str
    version: int
    token: ReadToken | None = None
    passed_over: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if self.version < 0:
            raise InvalidInput(
                "INVALID_VERSION", f"The version is {self.version}; it must be 0 (= as routed) or a version's number."
            )


class Served(NamedTuple):  # made for every read, and as a tuple in a third of the time of a frozen class
    """Who answered: the resolution, the table, and how far its rows reflect the log."""

    resolution: Resolution
    table: Table
    positions: Positions
    exposure_id: str = ""
    """Where an experiment counts the unit of the whole read."""


def token_after(request: Request, served: Sequence[Served]) -> bytes:
    """The token of an answer by all of these, which goes on from that of the request."""
    if request.token is None and len(served) == 1:  # made once, until the positions change
        return served[0].positions.kept(("token", served[0].resolution), lambda: _token_after(request, served))
    return _token_after(request, served)


def _token_after(request: Request, served: Sequence[Served]) -> bytes:
    epoch = max((one.resolution.epoch for one in served), default=0)
    group = max((one.resolution.group for one in served), default=0)
    each = [position for one in served for position in one.positions.each]
    return token_of(request.job, epoch, each, request.token, group=group)


@dataclass(frozen=True, slots=True)
class Group:
    """What one version answered of a batch: what was found for the keys at `places`.

    exposure_ids: one for each of them, where an experiment counts each key's unit; else none.
    """

    served: Served
    places: Sequence[int]
    found: Found
    exposure_ids: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """Which version a unit would read, and why. `interval` is the one that holds the hash."""

    unit: str
    hashed: int
    resolution: Resolution
    active_version: int
    interval: Interval
    age_s: float


class Waits:
    """The waits of a read that would be behind its token: short ones, for a share of the deadline that leaves time for
    the version that stands in."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._until_left_s = deadline.left_s - min(deadline.left_s * _WAIT_SHARE, _WAIT_S_MAX)
        self._next_s = _POLL_S

    async def again(self) -> bool:
        """Wait a little; False when that has been enough, counting what was read in between."""
        left_s = self._deadline.left_s - self._until_left_s
        if left_s <= 0:
            return False
        await asyncio.sleep(min(self._next_s, left_s))
        self._next_s = min(self._next_s * 1.5, _POLL_S_MAX)
        return True


class Reads:
    """The read path of a front."""

    def __init__(self, front: Front, tables: Tables, routes: Routes, registry: Registry, shadows: Shadows) -> None:
        self._front = front
        self._shadows = shadows
        self._tables = tables
        self._routes = routes
        self._registry = registry
        self._stand_ins = meter("turnout.reads").create_counter(STAND_INS, "{read}", "reads that a stand-in answered")

    async def get(self, request: Request, keys: Keys, deadline: Deadline) -> tuple[Served, Values | None]:
        """The row of the one key, or None."""
        exposing = Exposing(self._front.exposures)

        async def attempt(asked: Request) -> tuple[Served, Values | None]:
            exposing.anew()
            with self._front.read(asked.job, asked.version, asked.passed_over) as resolver:
                resolution, unit, units = self._same(asked, resolver), asked.unit, Units.CALLER
                if resolution is None:
                    ((unit,), units) = await self._units(asked, keys, resolver, deadline), Units.KEY
                    resolution = resolver.of(unit, units)
                exposing.resolved(resolver, resolution, unit, units)
                exposing.reading(resolution.version)
                reader = await self._reader(asked.job, resolution, deadline)
                positions, row = await reader.get(keys.of(reader.table)[0], deadline)
            return Served(resolution, reader.table, positions), row

        with exposing:
            if request.token is None:
                served, row = await self._twice(request, attempt, deadline)
            else:
                served, row = await self._not_behind(request, attempt, lambda answer: [answer[0]], deadline)
        exposure_id = exposing.answered(row is not None)
        if (shadowed := self._shadowed(request, served)) is not None:
            units = [request.unit] if request.unit else []
            answers = Answers(served.table, served.positions, keys.of(served.table), Unpacked([row]), [0], units)
            self._shadows.answered(*shadowed, answers)
        if exposure_id:  # as `_replace` would make it, in half of the time
            served = Served(served.resolution, served.table, served.positions, exposure_id)
        return served, row

    async def batch(
        self, request: Request, keys: Keys, deadline: Deadline, *, units: Sequence[str] = ()
    ) -> list[Group]:
        """What each version answered; every key is in one group. `units`: one for each key, or none."""
        if len(keys) > KEYS_MAX:
            raise InvalidInput(
                "TOO_MANY_KEYS", f"{len(keys)} keys came, and a batch holds at most {KEYS_MAX}: split it."
            )
        if units and (request.unit or len(units) != len(keys) or not all(units)):
            raise InvalidInput(
                "INVALID_UNITS",
                f"{len(units)} units came for {len(keys)} keys: give each key its own, none of them empty, or one "
                f"for all keys.",
            )

        exposing = Exposing(self._front.exposures)

        async def attempt(asked: Request) -> list[Group]:
            exposing.anew()
            with self._front.read(asked.job, asked.version, asked.passed_over) as resolver:
                places: dict[Resolution, Sequence[int]] = {}
                if units:
                    places = _places(exposing, resolver, units, Units.CALLER)
                elif (same := self._same(asked, resolver)) is not None:
                    places[same] = range(len(keys))
                    exposing.resolved(resolver, same, asked.unit, Units.CALLER)
                else:
                    its_units = await self._units(asked, keys, resolver, deadline)
                    places = _places(exposing, resolver, its_units, Units.KEY)
                groups = []
                for one, at in places.items():
                    if at:
                        exposing.reading(one.version)
                        groups.append(await self._group(asked.job, one, keys, at, deadline))
                return groups

        with exposing:
            if request.token is None:
                groups = await self._twice(request, attempt, deadline)
            else:
                groups = await self._not_behind(
                    request, attempt, lambda groups: [one.served for one in groups], deadline
                )
        for one in groups:
            if (shadowed := self._shadowed(request, one.served)) is not None:
                self._shadows.answered(*shadowed, _answers(one, keys, request.unit, units))
        return _exposed(exposing, groups, each=bool(units) or not request.unit)

    def _shadowed(self, request: Request, served: Served) -> tuple[Route, Shadow] | None:
        """The route and its shadow, if this answer is one of the active version that is to be compared with it."""
        route, resolution = self._front.table.route(request.job), served.resolution
        if route is None or route.shadow is None or resolution.cause is Cause.PINNED:
            return None
        answered_by = resolution.version, resolution.epoch
        return (route, route.shadow) if answered_by == (route.active_version, route.epoch) else None

    async def _group(
        self, job: str, resolution: Resolution, keys: Keys, places: Sequence[int], deadline: Deadline
    ) -> Group:
        reader = await self._reader(job, resolution, deadline)
        columns = keys.by_column(reader.table)
        if len(places) != len(keys):
            columns = [[column[place] for place in places] for column in columns]
        positions, found = await reader.batch(columns, deadline)
        return Group(Served(resolution, reader.table, positions), places, found)

    async def scan(
        self, request: Request, order_by: Sequence[tuple[str, bool]], limit: int, deadline: Deadline
    ) -> AsyncGenerator[tuple[Served, Page], None]:
        """Pages of rows in the order of (column, descending), each with who answered."""
        rows_max = _scan_rows(limit)
        exposing = Exposing(self._front.exposures)
        opened: list[AsyncGenerator[tuple[Served, Page], None]] = []

        async def attempt(asked: Request) -> tuple[Served, Page]:
            """Begins the scan: its first page. A scan that was begun before is given up."""
            await _closed(opened)
            exposing.anew()
            opened.append(taken_in_time(self._pages(asked, exposing, order_by, rows_max, deadline), deadline))
            return await anext(opened[0])

        try:
            if request.token is None:
                served, page = await self._twice(request, attempt, deadline)
            else:
                served, page = await self._not_behind(request, attempt, lambda first: [first[0]], deadline)
            exposure_id = exposing.answered(bool(page.rows))
            yield served._replace(exposure_id=exposure_id), page
            async for served, page in opened[0]:
                yield served._replace(exposure_id=exposure_id), page
        finally:
            await _closed(opened)

    async def _pages(
        self,
        asked: Request,
        exposing: Exposing,
        order_by: Sequence[tuple[str, bool]],
        rows_max: int,
        deadline: Deadline,
    ) -> AsyncGenerator[tuple[Served, Page], None]:
        with self._front.read(asked.job, asked.version, asked.passed_over) as resolver, exposing:
            resolution = resolver.of(asked.unit or None)
            exposing.resolved(resolver, resolution, asked.unit, Units.CALLER)
            exposing.reading(resolution.version)
            reader = await self._reader(asked.job, resolution, deadline)
            order = _order(reader.table, order_by)
            async with aclosing(reader.scan(order, rows_max, deadline)) as pages:
                async for page in pages:
                    yield Served(resolution, reader.table, page.positions), page

    async def explain(self, request: Request, keys: Keys | None, deadline: Deadline) -> Explanation:
        """Which version the unit, or the row of that key, would read now."""
        if (keys is None) == (not request.unit):
            raise InvalidInput("UNIT_OR_KEY", "Give either the unit or the row's key that the route is to be told for.")
        unit = request.unit or await self._unit_of_row(request, keys, deadline)
        table, split = self._front.routes(request.job)
        resolution = table.resolve(request.job, unit, Units.CALLER if keys is None else Units.KEY, split=split)
        route = table.routed(request.job)
        hashed = unit_hash(route.salt, unit)
        interval = next(one for one in route.intervals if one.low <= hashed < one.high)
        return Explanation(unit, hashed, resolution, route.active_version, interval, self._front.age_s or 0.0)

    async def _unit_of_row(self, request: Request, keys: Keys | None, deadline: Deadline) -> str:
        assert keys is not None

        async def attempt(asked: Request) -> list[str]:
            with self._front.read(asked.job) as resolver:
                return await self._units(asked, keys, resolver, deadline)

        (unit,) = await self._twice(request, attempt, deadline)
        return unit

    def _same(self, asked: Request, resolver: Resolver) -> Resolution | None:
        """What answers every key of the read; None where that depends on the key."""
        return resolver.of(asked.unit) if asked.unit else resolver.same

    async def _units(self, asked: Request, keys: Keys, resolver: Resolver, deadline: Deadline) -> list[str]:
        """The unit that each row's key stands for, by the active version's table."""
        assert resolver.route is not None
        reader = await self._tables.reader(VersionId(asked.job, resolver.route.active_version), deadline)
        return [unit_of_key(values) for values in keys.of(reader.table)]

    async def _reader(self, job: str, resolution: Resolution, deadline: Deadline) -> TableReader:
        return await self._tables.reader(VersionId(job, resolution.version), deadline)

    async def _twice(self, request: Request, attempt: Callable[[Request], Awaitable[T]], deadline: Deadline) -> T:
        try:
            return await attempt(request)
        except TableMoved as moved:
            await self._look_again(moved, request, deadline)
        try:
            return await attempt(request)
        except TableMoved as moved:
            raise await self._explained(moved, request, deadline) from moved

    async def _not_behind(
        self,
        request: Request,
        attempt: Callable[[Request], Awaitable[T]],
        served: Callable[[T], Sequence[Served]],
        deadline: Deadline,
    ) -> T:
        """An answer that is nowhere behind the request's token.

        Asked again until it is, for a share of the deadline; then with the active version in the place of those that
        are behind; Unavailable (BEHIND_TOKEN) when that is behind too, or the request names the version itself.
        """
        token = request.token
        assert token is not None
        waits = Waits(deadline)
        if not request.version:
            await self._catch_up(request, token, waits, deadline)
        asked = request
        while True:
            answer = await self._twice(asked, attempt, deadline)
            late = {one.resolution: why for one in served(answer) if (why := behind(token, one.positions.each))}
            if not late:
                if asked.passed_over:
                    self._stand_ins.add(1, {"job": request.job})
                return answer
            if await waits.again():
                continue
            versions = frozenset(one.version for one in late if one.cause is Cause.ROUTED)
            if asked.passed_over or not versions or self._active(request) in versions:
                raise _behind_token(request, late)
            asked = replace(request, passed_over=versions)

    async def _catch_up(self, request: Request, token: ReadToken, waits: "Waits", deadline: Deadline) -> None:
        """Wait until the route is not from before the one that the caller has read by, nor from before a step in which
        it changed together with another one that the caller has read by."""
        fetched = False
        while self._route_behind(request.job, token, fetched=fetched):
            fetched = await self._routes.refetch(request.job, deadline)
            if self._route_behind(request.job, token, fetched=fetched) and not await waits.again():
                raise Unavailable(
                    "ROUTE_BEHIND_TOKEN",
                    f"The token has seen epoch {token.epoch} of the route of {request.job} and the step of revision "
                    f"{token.group}, and this front knows none after epoch {self._front.table.epoch(request.job)} and "
                    f"revision {self._front.table.revision}: the switcher does not tell it; try another front.",
                    metadata={"job": request.job},
                )

    def _route_behind(self, job: str, token: ReadToken, *, fetched: bool) -> bool:
        """Whether the front's route of the job may be from before what the token has seen. fetched: it has been asked
        for since, so that every step that anybody can have seen is in it."""
        table = self._front.table
        return table.epoch(job) < token.epoch or (table.revision < token.group and not fetched)

    def _active(self, request: Request) -> int | None:
        route = self._front.table.route(request.job)
        return None if route is None else route.active_version

    async def _look_again(self, moved: TableMoved, request: Request, deadline: Deadline) -> None:
        self._tables.forget(moved.version)
        if not request.version:
            await self._routes.refetch(request.job, deadline)

    async def _explained(self, moved: TableMoved, request: Request, deadline: Deadline) -> TurnoutError:
        """What to tell the caller about a table that is not there after a second look."""
        version = moved.version
        where = {"version": version.name}
        if not isinstance(moved, TableMissing):
            told = f"The table of {version} is being made anew; try again."
            return Unavailable("TABLE_CHANGING", told, metadata=where)
        if not request.version:
            return Unavailable(
                "TABLE_MISSING",
                f"The route of {version.job} names v{version.number}, but its table does not exist. See "
                f"`turnout show {version.job}`; `turnout rollback {version.job}` returns to the version before.",
                metadata=where,
            )
        if await self._registry.was_dropped(version, deadline):
            return FailedPrecondition(
                "VERSION_DROPPED",
                f"{version} was retired and its table dropped. `turnout show {version.job}` lists the versions.",
                metadata=where,
            )
        return FailedPrecondition(
            "VERSION_WITHOUT_TABLE",
            f"{version} has no table yet: its run has not been started. `turnout apply FILE` starts it.",
            metadata=where,
        )


def _scan_rows(limit: int) -> int:
    if not 0 <= limit <= SCAN_ROWS_MAX:
        told = f"The limit is {limit}; it must be 0 (= {SCAN_ROWS_DEFAULT}) to {SCAN_ROWS_MAX}."
        raise InvalidInput("INVALID_LIMIT", told)
    return limit or SCAN_ROWS_DEFAULT


def _order(table: Table, order_by: Sequence[tuple[str, bool]]) -> list[tuple[Column, bool]]:
    return [(table.column(name), descending) for name, descending in order_by]


def _answers(group: Group, keys: Keys, unit: str, units: Sequence[str]) -> Answers:
    """What one version answered of a batch, of as many keys as a shadow looks at. unit, units: those of the batch."""
    served, picked = group.served, range(0, len(group.places), 1 + (len(group.places) - 1) // LOOKED_MAX)
    places = [group.places[at] for at in picked]
    own_units = [units[place] for place in places] if units else [unit] * len(places) if unit else []
    columns = [[column[place] for place in places] for column in keys.by_column(served.table)]
    return Answers(served.table, served.positions, [*zip(*columns, strict=True)], group.found, picked, own_units)


def _places(
    exposing: Exposing, resolver: Resolver, units: Sequence[str], kind: Units
) -> dict[Resolution, Sequence[int]]:
    """Which units each version answers."""
    places: dict[Resolution, list[int]] = {}
    for place, unit in enumerate(units):
        resolution = resolver.of(unit, kind)
        exposing.resolved(resolver, resolution, unit, kind, place)
        places.setdefault(resolution, []).append(place)
    return dict(places)


def _exposed(exposing: Exposing, groups: list[Group], *, each: bool) -> list[Group]:
    """The groups with the ids of exposures: of each key as a unit, or of the one unit of all."""
    if each:
        ids = [exposing.answered_each(one.places, one.found.order) for one in groups]
        return [replace(one, exposure_ids=its) if its else one for one, its in zip(groups, ids, strict=True)]
    found = not any(0 in one.found.order for one in groups)
    exposure_id = exposing.answered(found)
    if not exposure_id:
        return groups
    return [replace(one, served=one.served._replace(exposure_id=exposure_id)) for one in groups]


async def _closed(opened: list[AsyncGenerator[tuple[Served, Page], None]]) -> None:
    while opened:
        await opened.pop().aclose()


def _behind_token(request: Request, late: Mapping[Resolution, str]) -> Unavailable:
    told = "; ".join(f"v{resolution.version}: {why}" for resolution, why in late.items())
    return Unavailable(
        "BEHIND_TOKEN",
        f"No version of {request.job} that may answer has come as far as the token: {told}. Try again, or read without "
        f"the token.",
        metadata={"job": request.job},
    )


def version_not_found(version: VersionId) -> NotFound:
    """The answer for a version that never existed."""
    return NotFound(
        "VERSION_NOT_FOUND",
        f"There is no {version}. `turnout show {version.job}` lists the versions.",
        metadata={"version": version.name},
    )
