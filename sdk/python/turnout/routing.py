"""Which version answers a reader: the hash of a unit, and the interval of the route that it falls into.

The switcher writes routes (services/switcher/intervals.py draws the intervals), every front reads them.
Both, and any other client that wants to know beforehand, compute the same:

1. The *unit* is what a split goes by: the caller's own (a user id), else the canonical text of the row's key.
2. ``hash = murmur3_x86_32(utf8(salt + "\\0" + unit), seed 0)``, unsigned.
3. The version is the owner of the interval ``low <= hash < high``.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from struct import pack
from uuid import UUID

import mmh3

from turnout import shares
from turnout.shadow import Shadow

HASHES = 2**32
"""Number of unit hashes: intervals cover [0, HASHES)."""
WHOLE = shares.WHOLE
"""All traffic, in basis points."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Arm:
    """A version's share of the units, in basis points (0 to 10000)."""

    version: int
    weight: int


@dataclass(frozen=True, slots=True)
class Interval:
    """The unit hashes from `low` to below `high`, which `version` owns since `acquired_epoch`."""

    low: int
    high: int
    version: int
    acquired_epoch: int

    @property
    def size(self) -> int:
        return self.high - self.low


class Units(Enum):
    """What an experiment counts by. Only units of its kind take part."""

    KEY = "KEY"
    """The row's key; a read that brings a unit of its own is routed by that, and is not counted."""
    CALLER = "CALLER"
    """The caller's unit; a read without one gets the active version, and is not counted."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """What a front has to know of the experiment on a route. Its control is the active version."""

    name: str
    """`jobs/{job}/experiments/{experiment}`"""
    number: int
    """Stands for the experiment, and hence for its job, in each exposure."""
    units: Units
    holdout: int = 0
    """Basis points of the units that stay on the active version."""
    holdout_salt: str = ""
    overrides: tuple[tuple[str, int], ...] = ()
    """Unit and version, for testers: they are not counted."""
    slow_us: int = 0
    """An answer that took longer, in microseconds, is SLOW; 0 = none is."""
    version_of: Mapping[str, int] = field(init=False, repr=False, compare=False)
    """The overrides by unit."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "version_of", dict(self.overrides))


@dataclass(frozen=True, slots=True)
class Route:
    """Which version of a job serves which share of its units.

    Arms are sorted by version, hold the active one (its weight may be 0) and no other without weight, unless an
    override of the experiment names it; intervals are sorted and without gaps. ValueError when they are not: no front
    may serve by such a route.
    """

    job: str
    epoch: int
    active_version: int
    arms: tuple[Arm, ...]
    salt: str
    intervals: tuple[Interval, ...]
    owner: str = ""
    """Name of the experiment or rollout that alone changes the route; "" = anybody may."""
    experiment: Experiment | None = None
    shadow: Shadow | None = None
    required_gates: tuple[str, ...] = ()
    """Gates that every change of the route is asked beyond the usual ones, in order. No front's business."""
    weights: Mapping[int, int] = field(init=False, repr=False, compare=False)
    """Of each version that the route names, in basis points."""
    lows: tuple[int, ...] = field(init=False, repr=False, compare=False)
    sole: int | None = field(init=False, repr=False, compare=False)
    """The version that owns every interval; None where there are several."""

    def __post_init__(self) -> None:
        _check_arms(self)
        _check_intervals(self)
        _check_shadow(self)
        object.__setattr__(self, "weights", {arm.version: arm.weight for arm in self.arms})
        object.__setattr__(self, "lows", tuple(interval.low for interval in self.intervals))
        owners = {interval.version for interval in self.intervals}
        object.__setattr__(self, "sole", owners.pop() if len(owners) == 1 else None)

    @property
    def versions(self) -> frozenset[int]:
        """Every version that may answer; a front must be able to read all of them."""
        return frozenset(arm.version for arm in self.arms)

    @property
    def named(self) -> frozenset[int]:
        """Every version that the route names, the shadow's too, which a front need not be able to read."""
        return self.versions if self.shadow is None else self.versions | {self.shadow.version}

    def weight(self, version: int) -> int:
        """The version's share in basis points; 0 where the route does not name it."""
        return self.weights.get(version, 0)


def unit_hash(salt: str, unit: str) -> int:
    """The place of a unit in [0, 2^32): MurmurHash3 (x86, 32 bits, seed 0) of salt, a zero byte, the unit."""
    return mmh3.hash(f"{salt}\0{unit}".encode(), 0, signed=False)  # type: ignore[no-any-return, unused-ignore]


def owner(route: Route, hashed: int) -> int:
    """The version that owns a unit hash."""
    return route.intervals[bisect_right(route.lows, hashed) - 1].version


def resolve(route: Route, unit: str) -> int:
    """The version that answers a unit."""
    return owner(route, unit_hash(route.salt, unit))


def held_out(experiment: Experiment, unit: str) -> bool:
    """Whether a unit stays on the active version for as long as the experiment runs: by a hash of its own."""
    if not experiment.holdout:
        return False
    return unit_hash(experiment.holdout_salt, unit) < experiment.holdout * HASHES // WHOLE


def shadowed(job: str, shadow: Shadow, unit: str) -> bool:
    """Whether the reads of a unit are compared with the candidate: by a hash of its own, independent of the split."""
    return unit_hash(f"jobs/{job}/shadow", unit) < shadow.share * HASHES // WHOLE


def unit_of_key(values: Iterable[object]) -> str:
    """The unit of a row: the canonical text of its key.

    `values` are the key's, in the order of the table's key and of the columns' own types (an int is no equal
    of a float: convert first). Each value is written as ``<letter><bytes>:<text>``, where bytes is the length
    of the text in UTF-8, and the values follow one another without a separator, so that no two keys share a
    text:

    ======  ===========  ==================================================================================
    letter  column       text
    ======  ===========  ==================================================================================
    n       any          empty: null
    b       boolean      true or false
    i       bigint       decimal digits, with - when negative
    f       double       16 lower-case hex digits of the big-endian IEEE 754 bits; -0 as 0, every NaN as
                         7ff8000000000000
    s       text         itself (an enum: its value)
    x       bytea        lower-case hex
    d       date         days since 1970-01-01, decimal
    t       timestamptz  microseconds since 1970-01-01T00:00:00Z, decimal
    m       numeric      decimal notation without exponent or trailing zeros (2.50 -> 2.5, 100 -> 100); 0 for
                         every zero; NaN, Infinity, -Infinity
    u       uuid         lower-case, hyphenated
    ======  ===========  ==================================================================================

    So ``("AA", date(2013, 1, 1))`` is ``s2:AAd5:15706``. TypeError for any other type; ValueError for a
    datetime without a time zone.
    """
    return "".join(_canonical(value) for value in values)


def _canonical(value: object) -> str:
    letter, text = _tagged(value.value if isinstance(value, Enum) else value)
    return f"{letter}{len(text.encode())}:{text}"


def _tagged(value: object) -> tuple[str, str]:
    match value:
        case None:
            return "n", ""
        case bool():  # before int, which it is a kind of
            return "b", "true" if value else "false"
        case int():
            return "i", str(int(value))
        case float():
            return "f", _double_bits(value)
        case str():
            return "s", value
        case bytes() | bytearray() | memoryview():
            return "x", bytes(value).hex()
        case datetime():  # before date, which it is a kind of
            return "t", str(_microseconds(value))
        case date():
            return "d", str((value - _EPOCH.date()).days)
        case Decimal():
            return "m", _plain(value)
        case UUID():
            return "u", str(value)
        case _:
            raise TypeError(f"a value of type {type(value).__name__} cannot be part of a key")


def _double_bits(value: float) -> str:
    if value != value:
        return "7ff8000000000000"
    return pack(">d", value + 0.0).hex()  # -0.0 + 0.0 is 0.0: PostgreSQL finds one row by either


def _microseconds(value: datetime) -> int:
    if value.tzinfo is None:
        raise ValueError(f"{value.isoformat()} has no time zone: a key's time must say which one it is in")
    return (value - _EPOCH) // timedelta(microseconds=1)


def _plain(value: Decimal) -> str:
    if not value.is_finite():
        return "NaN" if value.is_nan() else str(value)
    if not value:
        return "0"  # -0 and 0.00 are the same number
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _check_arms(route: Route) -> None:
    versions = [arm.version for arm in route.arms]
    if versions != sorted(set(versions)):
        raise ValueError(f"arms of the route of {route.job} are not sorted by version, or name one twice: {versions}")
    if route.active_version not in versions:
        raise ValueError(f"the route of {route.job} has no arm for its active version {route.active_version}")
    named = {version for _, version in route.experiment.overrides} if route.experiment else set()
    if not named <= set(versions):
        raise ValueError(f"overrides on the route of {route.job} name versions without an arm: {sorted(named)}")
    for arm in route.arms:
        if arm.weight < 0 or (arm.weight == 0 and arm.version not in {route.active_version, *named}):
            raise ValueError(f"v{arm.version} of {route.job} has weight {arm.weight}; an arm that serves has more")
    total = sum(arm.weight for arm in route.arms)
    if total != WHOLE:
        raise ValueError(f"weights of the route of {route.job} sum to {total} instead of {WHOLE}")


def _check_intervals(route: Route) -> None:
    end = 0
    owners = set()
    for interval in route.intervals:
        if interval.low != end or interval.high <= interval.low:
            raise ValueError(f"intervals of the route of {route.job} leave a gap or overlap at {end}: {interval}")
        end = interval.high
        owners.add(interval.version)
    if end != HASHES:
        raise ValueError(f"intervals of the route of {route.job} end at {end} instead of {HASHES}")
    if owners != {arm.version for arm in route.arms if arm.weight}:
        raise ValueError(f"intervals of the route of {route.job} do not belong to its arms: {sorted(owners)}")


def _check_shadow(route: Route) -> None:
    shadow = route.shadow
    if shadow is None:
        return
    if shadow.version < 1 or shadow.version == route.active_version or not 1 <= shadow.share <= WHOLE:
        raise ValueError(f"the shadow of the route of {route.job} is no candidate with a share of its reads: {shadow}")
