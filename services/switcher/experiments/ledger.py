"""What became of exposures, in PostgreSQL: each call is one transaction, so that what is answered is stored.

Everything is insert-or-nothing: repeats, late ones and those out of order change nothing that was counted. A unit is
counted where a front tells of its first exposure; an outcome enrols nobody. Sums are kept beside the rows, so that a
verdict costs the same however many units there are.
"""

import hashlib
import json
import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final

from core.postgres import Pool
from services.switcher.experiments.rows import SQL
from services.switcher.experiments.spec import REWARD_MAX, Metric, spec_from_json
from services.switcher.rows import transaction
from turnout.exposure import Exposure

CLOSE_MAX: Final = 20_000
"""Windows that one transaction adds up."""
REWARDS_MAX: Final = 1_000
"""Rewards of a unit in an experiment: whoever reports by an exposure id may not fill the table."""
TOLD_AFTER_END: Final = timedelta(minutes=5)
"""How long after an experiment's end, beyond the delay of its plan, what was seen before is still taken in."""
_ONCE: Final = 0  # the key of what a unit has once


class Result(Enum):
    """What became of an outcome."""

    STORED = "STORED"
    DUPLICATE = "DUPLICATE"
    NOT_COUNTED = "NOT_COUNTED"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an exposure. value: of a REWARD; outcome_id: the reporter's own, of a REWARD."""

    exposure: Exposure
    metric: Metric
    value: float = 0.0
    outcome_id: str = ""

    @property
    def key(self) -> int:
        """What makes a repeat one: of a reward its id, else its exposure; of everything else that it is one."""
        if self.metric is not Metric.REWARD:
            return _ONCE
        one = self.exposure
        content = self.outcome_id or f"{one.epoch} {one.version} {one.time_s}"
        digest = hashlib.sha256(content.encode()).digest()
        return int(struct.unpack_from(">q", digest)[0])


@dataclass
class _Part:
    """What one experiment gets of a call."""

    exposures: list[Exposure] = field(default_factory=list)
    outcomes: list[tuple[int, Outcome]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Flushed:
    """A front that has told all that it saw: what it has lost, and the reads that experiments (by number) do not count
    because of their unit."""

    front: str
    lost: int
    left_out: Mapping[int, int]


class Ledger:
    """Units and outcomes of the experiments that count."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def record(
        self, exposures: Iterable[Exposure], outcomes: Sequence[Outcome], flushed: Flushed | None = None
    ) -> list[Result]:
        """Store them; the result of each outcome. flushed: what the front that has told all that it saw says besides.

        exposures: as fronts tell of them, the first of a unit to each version at least. Unavailable.
        """
        parts: dict[int, _Part] = defaultdict(_Part)
        for one in exposures:
            parts[one.experiment].exposures.append(one)
        for place, outcome in enumerate(outcomes):
            parts[outcome.exposure.experiment].outcomes.append((place, outcome))
        results = [Result.NOT_COUNTED] * len(outcomes)
        async with transaction(self._pool) as connection:
            # In one order, and before anything else: transactions of two fronts wait here, and never for one another.
            for row in await connection.fetch(SQL.lock_all, sorted(parts), TOLD_AFTER_END):
                part = parts[row["number"]]
                await self._units(connection, row, part)
                for place, result in (await self._outcomes(connection, row, part)).items():
                    results[place] = result
            if flushed is not None:
                await connection.execute(SQL.flushed, flushed.front, flushed.lost, json.dumps(flushed.left_out))
        return results

    async def _units(self, connection: Any, row: Any, part: _Part) -> None:
        if not part.exposures:
            return
        number, spec = row["number"], spec_from_json(row["spec"])
        units = [one.unit for one in part.exposures]
        versions = [one.version for one in part.exposures]
        times = [_time(one) for one in part.exposures]
        epochs = [one.epoch for one in part.exposures]
        places = spec.plan.units_max - row["units"]
        await connection.execute(SQL.add_units, number, units, epochs, versions, times, places, row["end_time"])
        await connection.execute(SQL.mix_units, number, units, versions, times, timedelta(seconds=spec.window_s))

    async def _outcomes(self, connection: Any, row: Any, part: _Part) -> Mapping[int, Result]:
        if not part.outcomes:
            return {}
        rows = await connection.fetch(
            SQL.add_outcomes,
            row["number"],
            [place for place, _ in part.outcomes],
            [one.exposure.unit for _, one in part.outcomes],
            [one.metric.value for _, one in part.outcomes],
            [one.key for _, one in part.outcomes],
            [one.exposure.epoch for _, one in part.outcomes],
            [one.exposure.version for _, one in part.outcomes],
            [_time(one.exposure) for _, one in part.outcomes],
            [one.value for _, one in part.outcomes],
            row["units"] < _units_max(row["spec"]),
            REWARDS_MAX,
            row["end_time"],
        )
        counted = {row["place"]: row["stored"] for row in rows}
        # Of several in one call that are the same, one was looked at; the others are its repeats.
        same = {_same(one) for place, one in part.outcomes if place in counted}
        return {place: _result(counted.get(place), repeated=_same(one) in same) for place, one in part.outcomes}

    async def close_windows(self, number: int) -> int:
        """Add up windows that are over, and for which nothing more is waited for; how many, at most CLOSE_MAX.

        Of an experiment that has ended those that were over by then: afterwards its units got something else.
        """
        async with transaction(self._pool) as connection:
            [row] = await connection.fetch(SQL.lock_all, [number], TOLD_AFTER_END) or [None]
            if row is None:
                return 0
            spec = spec_from_json(row["spec"])
            window, delay = timedelta(seconds=spec.window_s), timedelta(seconds=spec.delay_s)
            errors = [metric.value for metric in spec.errors]
            # Of an experiment that began after the last analyse it expects no rows, and would compare each with each.
            await connection.execute(SQL.without_nested_loops)
            limits = CLOSE_MAX, REWARD_MAX, row["end_time"]
            return int(await connection.fetchval(SQL.close_windows, number, window, delay, errors, *limits))


def _units_max(spec: str) -> int:
    return spec_from_json(spec).plan.units_max


def _same(one: Outcome) -> tuple[int, Metric, int]:
    return one.exposure.unit, one.metric, one.key


def _result(stored: bool | None, *, repeated: bool) -> Result:
    if stored:
        return Result.STORED
    return Result.DUPLICATE if stored is False or repeated else Result.NOT_COUNTED


def _time(exposure: Exposure) -> datetime:
    return datetime.fromtimestamp(exposure.time_s, UTC)
