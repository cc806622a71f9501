"""The reads: resolve, count as in flight, read the table, and look again once where the table has moved."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, TypeVar

from turnout.errors import FailedPrecondition, InvalidInput, NotFound, TurnoutError, Unavailable
from turnout.names import VersionId
from turnout.reading.columns import Column, Table
from turnout.reading.front import Front
from turnout.reading.routing import Resolution
from turnout.reading.table import Deadline, Page, Position, TableMissing, TableMoved, TableReader, Tables, Values
from turnout.reading.values import Keys
from turnout.routing import Interval, unit_hash, unit_of_key

KEYS_MAX = 10_000
SCAN_ROWS_DEFAULT = 1000
SCAN_ROWS_MAX = 1_000_000

T = TypeVar("T")


class Routes(Protocol):
    """Asks the switcher for one route, outside of the watch."""

    async def refetch(self, job: str, deadline: Deadline) -> None:
        """Bring the front's route of the job up to date; leaves it as it is when the switcher is away."""


class Registry(Protocol):
    """Asks the registry what became of a version."""

    async def was_dropped(self, version: VersionId, deadline: Deadline) -> bool:
        """Whether the version's table is gone for good; False when it has none yet. NotFound; Unavailable."""


@dataclass(frozen=True, slots=True)
class Request:
    """What every read says: the job, its caller's unit ("" = none) and the version that it pins (0 = as routed).

    InvalidInput (INVALID_VERSION) for a negative version.
    """

    job: str
    unit: str
    version: int

    def __post_init__(self) -> None:
        if self.version < 0:
            raise InvalidInput(
                "INVALID_VERSION", f"The version is {self.version}; it must be 0 (= as routed) or a version's number."
            )


@dataclass(frozen=True, slots=True)
class Served:
    """Who answered: the resolution, the table, and how far its rows reflect the log."""

    resolution: Resolution
    table: Table
    positions: tuple[Position, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Which version a unit would read, and why. `interval` is the one that holds the hash."""

    unit: str
    hashed: int
    resolution: Resolution
    active_version: int
    interval: Interval
    age_s: float


class Reads:
    """The read path of a front."""

    def __init__(self, front: Front, tables: Tables, routes: Routes, registry: Registry) -> None:
        self._front = front
        self._tables = tables
        self._routes = routes
        self._registry = registry

    async def get(self, request: Request, keys: Keys, deadline: Deadline) -> tuple[Served, Values | None]:
        """The row of the one key, or None."""

        async def attempt() -> tuple[Served, Values | None]:
            units = await self._units(request, keys, deadline)
            with self._front.read(request.job, units, request.version) as (resolution,):
                reader = await self._reader(request.job, resolution, deadline)
                positions, row = await reader.get(keys.of(reader.table)[0], deadline)
            return Served(resolution, reader.table, positions), row

        return await self._twice(request, attempt, deadline)

    async def batch(
        self, request: Request, keys: Keys, deadline: Deadline, *, units: Sequence[str] = ()
    ) -> tuple[list[Served], list[tuple[int, Values | None]]]:
        """For each key which of the versions answered it, and its row or None. `units`: one for each key, or none."""
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

        async def attempt() -> tuple[list[Served], list[tuple[int, Values | None]]]:
            its_units = list(units) or await self._units(request, keys, deadline)
            with self._front.read(request.job, its_units, request.version) as resolutions:
                return await self._batch(request.job, keys, resolutions, deadline)

        return await self._twice(request, attempt, deadline)

    async def _batch(
        self, job: str, keys: Keys, resolutions: Sequence[Resolution], deadline: Deadline
    ) -> tuple[list[Served], list[tuple[int, Values | None]]]:
        places: dict[Resolution, list[int]] = {}
        for place, resolution in enumerate(resolutions):
            places.setdefault(resolution, []).append(place)
        served: list[Served] = []
        results: list[tuple[int, Values | None]] = [(0, None)] * len(keys)
        for resolution, its_places in places.items():
            reader = await self._reader(job, resolution, deadline)
            values = keys.of(reader.table)
            positions, rows = await reader.batch([values[place] for place in its_places], deadline)
            for place, row in zip(its_places, rows, strict=True):
                results[place] = (len(served), row)
            served.append(Served(resolution, reader.table, positions))
        return served, results

    async def scan(
        self, request: Request, order_by: Sequence[tuple[str, bool]], limit: int, deadline: Deadline
    ) -> AsyncGenerator[tuple[Served, Page], None]:
        """Pages of rows in the order of (column, descending); each with who answered, the first with the positions."""
        rows_max = _scan_rows(limit)
        for again in (False, True):
            try:
                with self._front.read(request.job, [request.unit or None], request.version) as (resolution,):
                    reader = await self._reader(request.job, resolution, deadline)
                    order = _order(reader.table, order_by)
                    async with aclosing(reader.scan(order, rows_max, deadline)) as pages:
                        async for page in pages:
                            yield Served(resolution, reader.table, page.positions), page
            except TableMoved as moved:  # only before the first page: then the cursor holds the table
                if again:
                    raise await self._explained(moved, request, deadline) from moved
                await self._look_again(moved, request, deadline)
            else:
                return

    async def explain(self, request: Request, keys: Keys | None, deadline: Deadline) -> Explanation:
        """Which version the unit, or the row of that key, would read now."""
        if (keys is None) == (not request.unit):
            raise InvalidInput("UNIT_OR_KEY", "Give either the unit or the row's key that the route is to be told for.")
        unit = request.unit or await self._unit_of_row(request, keys, deadline)
        table, split = self._front.routes()
        resolution = table.resolve(request.job, unit, split=split)
        route = table.routed(request.job)
        hashed = unit_hash(route.salt, unit)
        interval = next(one for one in route.intervals if one.low <= hashed < one.high)
        return Explanation(unit, hashed, resolution, route.active_version, interval, self._front.age_s or 0.0)

    async def _unit_of_row(self, request: Request, keys: Keys | None, deadline: Deadline) -> str:
        assert keys is not None
        (unit,) = await self._twice(request, lambda: self._units(request, keys, deadline), deadline)
        return unit or ""

    async def _units(self, request: Request, keys: Keys, deadline: Deadline) -> list[str | None]:
        """The unit of each key: the caller's, else the row's key, by the active version's table."""
        if request.unit or request.version:
            return [request.unit or None] * len(keys)
        table, _ = self._front.routes()
        active = VersionId(request.job, table.routed(request.job).active_version)
        reader = await self._tables.reader(active, deadline)
        return [unit_of_key(values) for values in keys.of(reader.table)]

    async def _reader(self, job: str, resolution: Resolution, deadline: Deadline) -> TableReader:
        return await self._tables.reader(VersionId(job, resolution.version), deadline)

    async def _twice(self, request: Request, attempt: Callable[[], Awaitable[T]], deadline: Deadline) -> T:
        try:
            return await attempt()
        except TableMoved as moved:
            await self._look_again(moved, request, deadline)
        try:
            return await attempt()
        except TableMoved as moved:
            raise await self._explained(moved, request, deadline) from moved

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


def version_not_found(version: VersionId) -> NotFound:
    """The answer for a version that never existed."""
    return NotFound(
        "VERSION_NOT_FOUND",
        f"There is no {version}. `turnout show {version.job}` lists the versions.",
        metadata={"version": version.name},
    )
