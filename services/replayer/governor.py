"""The governor: from what is seen of live work twice a second to how fast each copy may go. Pure: time is passed in.

It puts together the evidence (`evidence.py`) and the ladder of rates (`ladder.py`). After each change of the rate it
waits for reads that were answered since, so that it never judges a rate by what another one did. Where the reads' quiet
value is unknown or old while a copy runs it makes a *probe*: the copies stand still until one window of reads without
them has been seen. A pause of the ladder teaches the quiet value as well, so that reads which have become slow for
reasons of their own hold no copy up for long.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from services.replayer.evidence import (
    QUIET_OLD_S,
    SETTLE_S,
    SPEED_S,
    Quiet,
    ReadEvidence,
    Window,
    lag_pressure,
    lag_s,
    sink_pressure,
    speed_per_s,
    still_since_s,
)
from services.replayer.ladder import (
    RUNGS,
    SHARE_RUNG,
    Copy,
    Ladder,
    Pressure,
    Reason,
    Throttle,
    bottom_of,
    budgeted,
    most_pressing,
    standing,
    step,
    throttles,
)
from services.replayer.progress import measure
from services.replayer.run import Run, Sample
from services.replayer.states import State
from turnout.names import VersionId

STEP_S: Final = 1.0  # between two ticks of the ladder where no reads set the pace
PROBE_S: Final = 5.0  # at most; it ends with the first window of reads without copies
PROBE_AGAIN_S: Final = 30.0  # after one that taught nothing
LAG_S_MAX: Final = 2.0  # of a version that serves reads
WRITE_S: Final = 0.05  # what a write of a copy should take while reads are live
INGEST_FOLLOWS: Final = 0.1  # of its distance to the newest rate of arrival, a tick
FULL_FORGETS: Final = 0.005  # of its distance to a lower rate, a tick

_BEGINS: Final = Pressure(Reason.READ_LATENCY, 1.0, "reads are live, and a copy beside them begins slowly")


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known at a tick. Seconds are monotonic.

    reads: of all fronts together, since the last tick; None = nothing new. serving: versions that routes name.
    write_s: what the slowest of the copies' writes since the last tick took; None = there was none. ratio_max: how many
    times their quiet value the reads' p99 may reach; 0 = reads do not count. row_limits: each copy's share of the
    budget of rows, in records a second.
    """

    now_s: float
    samples: Sequence[Sample]
    reads: Window | None = None
    serving: Collection[VersionId] = ()
    write_s: float | None = None
    ratio_max: float = 0.0
    row_limits: Mapping[VersionId, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """What holds each copy down, and what its writes should take at most (None = no limit)."""

    throttles: Mapping[VersionId, Throttle] = field(default_factory=dict)
    write_s_max: float | None = None


class Governor:
    """Governs all copies of a database. `ladder` and `evidence.quiet` are what another one needs to go on."""

    def __init__(
        self,
        sink_s_max: float,
        *,
        quiet: Quiet | None = None,
        rung: int = 0,
        cause: Pressure | None = None,
        full_per_s: Mapping[VersionId, float] | None = None,
    ) -> None:
        self.evidence = ReadEvidence(quiet)
        self.ladder = Ladder(rung=min(rung, RUNGS), cause=cause) if rung and cause is not None else Ladder()
        self.full_per_s: dict[VersionId, float] = dict(full_per_s or {})
        self._sink_s_max = sink_s_max
        self._ingest_per_s: dict[VersionId, float] = {}
        self._changed_s: float | None = None  # when the copies' rate was changed last
        self._stepped_s = float("-inf")
        self._write_s: float | None = None  # the slowest write since the last step
        self._copying_s: float | None = None  # when a copy was seen last, or the first look
        self._standing_since_s: float | None = None  # all copies are held still
        self._kept_back: Window | None = None
        self._resting = not self.full_per_s  # no copies, as far as is known
        self._probe_until_s: float | None = None
        self._probed_s = float("-inf")
        self._doubt_s = PROBE_AGAIN_S  # from one probe to the next one in doubt

    def tick(self, seen: Seen) -> Decision:
        """Take note of what is seen, and decide."""
        now_s = seen.now_s
        runs = _copying(seen.samples)
        if self._changed_s is None:
            self._changed_s = now_s
        reads = self._of_this_state(seen.reads, copying=bool(runs))
        learnt = reads is not None and self.evidence.add(reads, self._still_since_s(seen, runs))
        if runs or self._copying_s is None:
            self._copying_s = now_s
        if not runs:
            self._rest()
            return Decision()
        live = seen.ratio_max > 0 and self.evidence.live(now_s)
        if self._resting:
            self._begin(now_s, slowly=live)
        if seen.write_s is not None and now_s - self._changed_s > SETTLE_S:  # before it began at the rate before
            self._write_s = max(self._write_s or 0.0, seen.write_s)
        copies = [self._copy(run, seen) for run in runs]
        self._probe(seen, learnt=learnt)
        if self._probe_until_s is None:
            self._step(seen, bottom_of(copies))
        standing_still = self._probe_until_s is not None or self.ladder.paused
        if not standing_still:
            self._standing_since_s = None
        elif self._standing_since_s is None:
            self._standing_since_s = now_s
        governed = standing(copies) if self._probe_until_s is not None else throttles(self.ladder, copies, now_s)
        return Decision(budgeted(governed, seen.row_limits), WRITE_S if live else None)

    def _of_this_state(self, reads: Window | None, *, copying: bool) -> Window | None:
        """The reads that are known to be of the present state. A copy may have begun since the newest sample, and then
        the newest reads are no quiet ones: without copies they are kept back until the next tick."""
        if copying:
            self._kept_back = None
            return reads
        before, self._kept_back = self._kept_back, reads
        return before

    def _begin(self, now_s: float, *, slowly: bool) -> None:
        """The first copies after a rest. While reads are live they begin slowly: at full speed they would have hurt
        them before the first window of reads beside them has come."""
        self._resting = False
        if slowly and self.ladder.rung == 0:
            self.ladder = Ladder(rung=SHARE_RUNG, cause=_BEGINS)
            self._changed(now_s)

    def _rest(self) -> None:
        """Without copies there is nothing to govern."""
        self._resting = True
        self.ladder = Ladder()
        self.full_per_s.clear()
        self._ingest_per_s.clear()
        self._probe_until_s = self._standing_since_s = self._write_s = None
        self._doubt_s = PROBE_AGAIN_S

    def _still_since_s(self, seen: Seen, runs: Collection[Run]) -> float | None:
        """Since when no copy has done anything; None while one does."""
        if not runs:
            return None if self._copying_s is None else self._copying_s + SETTLE_S
        if self._standing_since_s is None:
            return None
        committed_s = still_since_s(seen.samples, [run.version for run in runs])
        return None if committed_s is None else max(committed_s, self._standing_since_s + SETTLE_S)

    # --- the copies ---

    def _copy(self, run: Run, seen: Seen) -> Copy:
        """How fast a copy can go and must go at least. Full speed is what it is seen to do while nothing holds it."""
        version, progress = run.version, measure(seen.samples, run.version)
        arriving = sum(rates.arriving for rates in progress.partitions.values())
        known = self._ingest_per_s.get(version, arriving)
        self._ingest_per_s[version] = known + (arriving - known) * INGEST_FOLLOWS
        full, rate = self.full_per_s.get(version), speed_per_s(seen.samples, version)
        if self.ladder.rung == 0 and self._probe_until_s is None and rate:
            if full is None or rate > full:
                self.full_per_s[version] = rate
            elif self._unhindered_for(seen.now_s) and rate > full / 10:  # else it waits for something
                self.full_per_s[version] = full + (rate - full) * FULL_FORGETS
        limits = [limit for limit in (run.rate_limit, seen.row_limits.get(version)) if limit]
        full = self.full_per_s.get(version)
        known_full = min([full, *limits]) if full is not None else min(limits, default=None)
        return Copy(version, known_full, self._ingest_per_s[version])

    def _unhindered_for(self, now_s: float) -> bool:
        return self._changed_s is not None and now_s - self._changed_s > SPEED_S

    # --- the ladder ---

    def _probe(self, seen: Seen, *, learnt: bool) -> None:
        """Begin a probe where one is needed, end one that has taught something or has lasted too long."""
        now_s = seen.now_s
        if self._probe_until_s is not None:
            if learnt or now_s >= self._probe_until_s:
                self._probe_until_s = None
                self._changed(now_s)
            return
        in_doubt = self.ladder.in_doubt and self.evidence.live(now_s)
        wanted = seen.ratio_max > 0 and not self.ladder.paused and (in_doubt or self.evidence.unknown(now_s))
        if wanted and now_s - self._probed_s > (self._doubt_s if in_doubt else PROBE_AGAIN_S):
            if in_doubt:
                self.evidence.doubt()
                self._doubt_s = min(2 * self._doubt_s, QUIET_OLD_S)
            self._probe_until_s, self._probed_s = now_s + PROBE_S, now_s

    def _step(self, seen: Seen, bottom: int) -> None:
        now_s = seen.now_s
        lags_s = [(version, lag_s(seen.samples, version)) for version in _tailing(seen)]
        pressures = [lag_pressure(lags_s, LAG_S_MAX), sink_pressure(self._write_s, self._sink_s_max)]
        if not self.ladder.paused:
            reads_count = seen.ratio_max > 0 and self.evidence.live(now_s)
            hurts = any(pressure is not None and pressure.hurts for pressure in pressures)
            if reads_count and self.evidence.pending(now_s) and not hurts:
                return
            if not (reads_count and self.evidence.fresh) and now_s - self._stepped_s < STEP_S:
                return
            if reads_count:
                pressures.append(self.evidence.pressure(seen.ratio_max))
        before = self.ladder
        self.ladder = step(before, most_pressing(one for one in pressures if one is not None), bottom, now_s)
        self._stepped_s, self._write_s = now_s, None
        if (before.rung, before.paused) != (self.ladder.rung, self.ladder.paused):
            self._changed(now_s)

    def _changed(self, now_s: float) -> None:
        self._changed_s = now_s
        self.evidence.changed(now_s)


def _copying(samples: Sequence[Sample]) -> list[Run]:
    """The runs in their copy phase."""
    return [run for run in samples[-1].runs.values() if run.state is State.REPLAYING] if samples else []


def _tailing(seen: Seen) -> list[VersionId]:
    """The versions that serve reads and follow the log; one that copies again is in no state to be protected."""
    runs = seen.samples[-1].runs if seen.samples else {}
    return [version for version in seen.serving if version in runs and runs[version].state is State.TAILING]
