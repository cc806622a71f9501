"""How fast copies may go: a ladder of rates that gives way to live work, and the limit that is named. Pure.

Theory of operation. All copies stand on one rung. Rung 0 is full speed; each further one is three quarters of the one
before, down to the floor of each copy: a little more than its log grows by, for slower than that it would never catch
up. Limiters say how pressing they are, 1 being their limit. One at its limit takes the copies down two rungs; a tick
on which all are clearly below takes them up one. In between nothing moves. A rung that hurt is climbed onto again only
after several such ticks in a row, more of them each time it hurts again, so that the rate settles below it instead of
swinging across it.

                   hurts: +2                          hurts twice
    full speed  <------------->  rungs 1 .. bottom  <------------->  paused
     (rung 0)     healthy: -1                        after a while

Reads that are too slow, but not severely, take the copies no further than to a quarter of full speed. Where even the
floor hurts the copies stand still. They try the floor again after a while, and after twice the time if it hurts still:
also when nothing has got better meanwhile, for then it was not they who hurt.
"""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from turnout.names import VersionId

STEP: Final = 0.75  # of the rate from one rung to the next
RUNGS: Final = 10  # below full speed: the last one is a twentieth of it
DOWN: Final = 2
CLEAR: Final = 0.92  # of its limit: a limiter below it is healthy
FLOOR_OF_INGEST: Final = 1.2
PATIENCE_MAX: Final = 4  # healthy ticks before a rung that hurt is tried again
PAUSE_FIRST_S: Final = 2.0
PAUSE_MAX_S: Final = 30.0
SHARE_RUNG: Final = 4  # the last one above a quarter of full speed
SEVERE: Final = 2.0  # times its limit
DOUBTS: Final = 10  # ticks in a row on which reads are somewhat too slow at a quarter of full speed
FULL_GUESS_PER_S: Final = 100_000.0  # of a copy that has not been seen at full speed yet


class Reason(enum.Enum):
    """What holds a rate down. The value is its name in the contract."""

    RATE_LIMIT = "RATE_LIMIT"
    ROWS_BUDGET = "ROWS_BUDGET"
    READ_LATENCY = "READ_LATENCY"
    SERVING_LAG = "SERVING_LAG"
    SINK_LATENCY = "SINK_LATENCY"
    PAUSED_BY_GOVERNOR = "PAUSED_BY_GOVERNOR"


@dataclass(frozen=True, slots=True)
class Pressure:
    """A limiter: how near its limit it is (1 = there), and its figures in a sentence."""

    reason: Reason
    ratio: float
    figures: str

    @property
    def hurts(self) -> bool:
        return self.ratio >= 1.0

    @property
    def healthy(self) -> bool:
        return self.ratio <= CLEAR

    @property
    def severe(self) -> bool:
        """Whether it may take copies below a quarter of full speed. Reads that are somewhat too slow may not: on a
        small machine any work at all beside them makes them so, and copies would stand still for ever."""
        return self.reason is not Reason.READ_LATENCY or self.ratio >= SEVERE


@dataclass(frozen=True, slots=True)
class Throttle:
    """What holds a run's rate down: records a second over all workers (0 = it stands still), and why in a sentence."""

    reason: Reason
    records_per_s: float
    message: str


@dataclass(frozen=True, slots=True)
class Copy:
    """A run in its copy phase. Records a second: as fast as it goes unhindered (None = not known yet), and by how much
    its log grows."""

    version: VersionId
    full_per_s: float | None
    ingest_per_s: float

    @property
    def floor_per_s(self) -> float:
        """Slower than this it would not catch up."""
        return FLOOR_OF_INGEST * self.ingest_per_s

    def rate(self, rung: int) -> float | None:
        """Records a second on a rung; None = unlimited. Never below the floor."""
        if rung == 0:
            return None
        return max(self.floor_per_s, self._full_per_s * STEP**rung)

    @property
    def bottom(self) -> int:
        """The fastest rung on which the copy is at its floor; the last one where that lies deeper."""
        return next((r for r in range(1, RUNGS) if self._full_per_s * STEP**r <= self.floor_per_s), RUNGS)

    @property
    def _full_per_s(self) -> float:
        return self.full_per_s or FULL_GUESS_PER_S


@dataclass(frozen=True, slots=True)
class Ladder:
    """Where the copies stand. Times are monotonic seconds.

    cause: what took them below full speed last; there is one on every rung but 0. healthy, hurting: ticks in a row.
    hurt_rung: the rung that hurt last, to be climbed onto after `patience` healthy ticks. paused_until_s: they stand
    still until then. pause_s: how long the next pause lasts.
    """

    rung: int = 0
    cause: Pressure | None = None
    healthy: int = 0
    hurting: int = 0
    held: int = 0
    hurt_rung: int | None = None
    patience: int = 1
    paused_until_s: float | None = None
    pause_s: float = PAUSE_FIRST_S

    @property
    def paused(self) -> bool:
        return self.paused_until_s is not None

    @property
    def in_doubt(self) -> bool:
        """Whether it may not be the copies that make reads slow: going slower has not helped for long."""
        return self.held >= DOUBTS


def most_pressing(pressures: Iterable[Pressure]) -> Pressure | None:
    """The limiter nearest to its limit, or furthest above it."""
    return max(pressures, key=lambda one: one.ratio, default=None)


def step(ladder: Ladder, pressing: Pressure | None, bottom: int, now_s: float) -> Ladder:
    """One tick: `pressing` is the most pressing limiter, None where there is none; `bottom` the last rung in use."""
    if ladder.paused_until_s is not None:
        if now_s < ladder.paused_until_s:
            return ladder
        return replace(ladder, rung=bottom, paused_until_s=None, healthy=0, hurting=0)
    if ladder.rung > bottom:
        ladder = replace(ladder, rung=bottom)
    if pressing is not None and pressing.hurts:
        return _down(ladder, pressing, bottom, now_s)
    if pressing is None or pressing.healthy:
        return _up(replace(ladder, healthy=ladder.healthy + 1, hurting=0, held=0), bottom)
    return replace(ladder, healthy=0, hurting=0, held=0)


def _down(ladder: Ladder, cause: Pressure, bottom: int, now_s: float) -> Ladder:
    if not cause.severe and ladder.rung > SHARE_RUNG:
        return _up(replace(ladder, cause=cause, healthy=ladder.healthy + 1, hurting=0), bottom)
    if not cause.severe and ladder.rung >= min(bottom, SHARE_RUNG):
        return replace(ladder, cause=cause, healthy=0, hurting=0, held=ladder.held + 1)
    last = bottom if cause.severe else min(bottom, SHARE_RUNG)
    hurt = replace(ladder, cause=cause, healthy=0, hurting=ladder.hurting + 1, held=0)
    if ladder.rung < bottom:
        return replace(
            hurt,
            rung=min(last, ladder.rung + DOWN),
            hurting=0,
            hurt_rung=ladder.rung,
            patience=min(PATIENCE_MAX, ladder.patience * 2),
        )
    if hurt.hurting < 2:  # the one bad tick that any machine has now and then
        return hurt
    return replace(hurt, hurting=0, paused_until_s=now_s + ladder.pause_s, pause_s=min(PAUSE_MAX_S, ladder.pause_s * 2))


def _up(ladder: Ladder, bottom: int) -> Ladder:
    if ladder.hurt_rung is not None and ladder.rung <= ladder.hurt_rung:  # it does not hurt any more
        patience = ladder.patience // 2
        ladder = replace(ladder, patience=max(1, patience), hurt_rung=ladder.hurt_rung if patience > 1 else None)
    if ladder.rung == 0:
        return replace(ladder, cause=None, pause_s=PAUSE_FIRST_S)
    climbs_back = ladder.hurt_rung is not None and ladder.rung - 1 <= ladder.hurt_rung
    if ladder.healthy < (ladder.patience if climbs_back else 1):
        return ladder
    rung = ladder.rung - 1
    return replace(
        ladder,
        rung=rung,
        healthy=0,
        cause=ladder.cause if rung else None,
        pause_s=ladder.pause_s if rung >= bottom - 1 else PAUSE_FIRST_S,
    )


def bottom_of(copies: Iterable[Copy]) -> int:
    """The last rung in use: there every copy is at its floor."""
    return max((copy.bottom for copy in copies), default=RUNGS)


def throttles(ladder: Ladder, copies: Iterable[Copy], now_s: float) -> dict[VersionId, Throttle]:
    """What the ladder makes of each copy; nothing at full speed."""
    cause = ladder.cause
    if cause is None:
        return {}
    if ladder.paused_until_s is not None:
        again_s = max(0.0, ladder.paused_until_s - now_s)
        message = f"{cause.figures}, even at the slowest rate that would catch up; tries again within {again_s:.0f} s"
        return {copy.version: Throttle(Reason.PAUSED_BY_GOVERNOR, 0.0, message) for copy in copies}
    found = {}
    for copy in copies:
        rate = copy.rate(ladder.rung)
        if rate is not None:
            found[copy.version] = Throttle(cause.reason, rate, cause.figures)
    return found


def standing(copies: Iterable[Copy]) -> dict[VersionId, Throttle]:
    """What a probe makes of the copies: a moment of rest, to learn how fast reads are without them."""
    message = "it rests for a moment, so that it is known how fast reads are without it"
    return {copy.version: Throttle(Reason.READ_LATENCY, 0.0, message) for copy in copies}


def effective(rate_limit: int, held: Throttle | None) -> Throttle | None:
    """What holds a run down in all: the slower of a person's limit (0 = none) and what is held; None = nothing."""
    if rate_limit <= 0:
        return held
    limit = Throttle(Reason.RATE_LIMIT, float(rate_limit), f"its rate limit is {rate_limit:,} records a second")
    return limit if held is None else slower(held, limit)


def slower(one: Throttle, other: Throttle) -> Throttle:
    """Of two throttles the one that counts; the first where they are equal."""
    return other if other.records_per_s < one.records_per_s else one


def budgeted(
    governed: Mapping[VersionId, Throttle], row_limits: Mapping[VersionId, float]
) -> dict[VersionId, Throttle]:
    """The governor's throttles together with each copy's share of the budget of rows, in records a second."""
    found = dict(governed)
    for version, rate in row_limits.items():
        budget = Throttle(
            Reason.ROWS_BUDGET, rate, f"its share of the rows a second of all copies is {rate:,.0f} records a second"
        )
        found[version] = slower(found[version], budget) if version in found else budget
    return found
