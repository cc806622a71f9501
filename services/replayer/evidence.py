"""What speaks for or against slowing copies down: how fast reads are beside their quiet value, how far the versions
that serve are behind, how long writes take. Pure: times are monotonic seconds of the process that governs.

The *quiet value* is the p99 of reads while no copy runs. It is a mean of what was seen in quiet windows, in the
logarithm, so that one hiccup does not move it much; it follows slowly, and the older it is the more a new window
counts. What is compared with it are windows that began after the last change of the copies' rate: what was read before
says nothing about it. One window is enough to see that all is well or very bad; in between a second one is awaited.
"""

import math
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from services.replayer.ladder import CLEAR, SEVERE, Pressure, Reason
from services.replayer.run import Sample
from turnout.names import VersionId

READS_MIN: Final = 20  # in a window: of fewer the 99th percentile says nothing
WINDOWS_MAX: Final = 3  # that are looked at together
LIVE_S: Final = 5.0  # reads are live for so long after the last window of enough of them
SETTLE_S: Final = 0.5  # a new rate has reached the workers, and what was under way is done
QUIET_READS_MAX: Final = 3_000  # as so many reads counts what is known of the quiet value, at most
WINDOW_READS_MAX: Final = 300  # and one window as so many
HALF_LIFE_S: Final = 600.0
QUIET_OLD_S: Final = 300.0  # a quiet value is learnt anew then
SPEED_S: Final = 1.0  # a copy writes in bursts: a shorter time says nothing of its speed
SLACK_S: Final = 0.003  # that reads may always be slower than their quiet value


@dataclass(frozen=True, slots=True)
class Window:
    """Reads of a span of time, and the 99th percentile of their latencies."""

    began_s: float
    ended_s: float
    reads: int
    p99_s: float


def pooled(windows: Collection[Window]) -> Window | None:
    """Several windows, of several fronts or one after another, as one; each counts by its reads."""
    reads = sum(window.reads for window in windows)
    if not reads:
        return None
    mean = sum(window.reads * math.log(window.p99_s) for window in windows) / reads
    began_s, ended_s = min(w.began_s for w in windows), max(w.ended_s for w in windows)
    return Window(began_s, ended_s, reads, math.exp(mean))


@dataclass(frozen=True, slots=True)
class Quiet:
    """The p99 of reads while no copy runs, from so many reads, learnt last at that time."""

    p99_s: float
    reads: float
    at_s: float


def learn(quiet: Quiet | None, window: Window) -> Quiet:
    """The quiet value with one more quiet window."""
    counted = min(window.reads, WINDOW_READS_MAX)
    if quiet is None:
        return Quiet(window.p99_s, counted, window.ended_s)
    known = min(quiet.reads, QUIET_READS_MAX) * 0.5 ** (max(0.0, window.ended_s - quiet.at_s) / HALF_LIFE_S)
    mean = (known * math.log(quiet.p99_s) + counted * math.log(window.p99_s)) / (known + counted)
    return Quiet(math.exp(mean), known + counted, window.ended_s)


class ReadEvidence:
    """What the fronts have said of their reads."""

    def __init__(self, quiet: Quiet | None = None) -> None:
        self.quiet = quiet
        self._windows: deque[Window] = deque(maxlen=WINDOWS_MAX)
        self._changed_s = -math.inf
        self._live_s = -math.inf
        self.fresh = False  # there is something that was not judged yet

    def changed(self, now_s: float) -> None:
        """The rate of the copies was changed: what was read until now is no evidence any more."""
        self._changed_s = now_s + SETTLE_S
        self._windows.clear()
        self.fresh = False

    def add(self, window: Window, still_since_s: float | None) -> bool:
        """A window of all fronts; `still_since_s`: no copy has moved since then, None = one moves. Whether the quiet
        value was learnt from it."""
        if window.reads < READS_MIN:
            return False
        self._live_s = window.ended_s
        if still_since_s is not None:
            quiet = window.began_s >= still_since_s
            if quiet:
                self.quiet = learn(self.quiet, window)
            return quiet
        if window.began_s >= self._changed_s:
            self._windows.append(window)
            self.fresh = True
        return False

    def doubt(self) -> None:
        """Let the next quiet window count more than all that is known: reads may be slow for reasons of their own."""
        if self.quiet is not None:
            self.quiet = replace(self.quiet, reads=min(self.quiet.reads, WINDOW_READS_MAX / 3))

    def live(self, now_s: float) -> bool:
        """Whether enough is read to say how fast reads are."""
        return now_s - self._live_s <= LIVE_S

    def unknown(self, now_s: float) -> bool:
        """Whether reads are live and their quiet value is not known, or not lately."""
        return self.live(now_s) and (self.quiet is None or now_s - self.quiet.at_s > QUIET_OLD_S)

    def pending(self, now_s: float) -> bool:
        """Whether reads are live and nothing new is known of them: better wait for it."""
        return self.live(now_s) and not self.fresh

    def pressure(self, ratio_max: float) -> Pressure | None:
        """How near the reads' p99 is to `ratio_max` times its quiet value; None while that cannot be said. Each window
        is judged once."""
        seen = pooled(self._windows)
        if self.quiet is None or seen is None or not self.fresh:
            return None
        self.fresh = False
        allowed_s = max(ratio_max * self.quiet.p99_s, self.quiet.p99_s + SLACK_S)
        ratio = seen.p99_s / allowed_s
        if len(self._windows) == 1 and CLEAR < ratio < SEVERE:
            ratio = (CLEAR + 1) / 2  # neither healthy nor hurting before there is a second window
        figures = (
            f"the reads' p99 at the fronts is {_ms(seen.p99_s)} beside a quiet value of {_ms(self.quiet.p99_s)}, and "
            f"{_ms(allowed_s)} is allowed"
        )
        return Pressure(Reason.READ_LATENCY, ratio, figures)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


# --- from samples ---------------------------------------------------------------------------------------------------


def lag_s(samples: Sequence[Sample], version: VersionId) -> float:
    """How long ago the log ended where the version's slowest partition stands now, in seconds; 0 = at the end. Of one
    that is behind all samples, as long as they reach back."""
    if not samples:
        return 0.0
    newest = samples[-1]
    late_s = 0.0
    for tp, position in newest.of(version).items():
        for sample in reversed(samples):
            ends = sample.ends.get(tp)
            if ends is None or ends.end <= position.next_offset:
                break
            late_s = max(late_s, newest.monotonic_s - sample.monotonic_s)
    return late_s


def speed_per_s(samples: Sequence[Sample], version: VersionId) -> float | None:
    """Records a second of the run since it began to move, over the last SPEED_S at most; None while that is too short
    to say."""
    if not samples:
        return None
    newest = samples[-1]
    within = [sample for sample in samples if newest.monotonic_s - sample.monotonic_s <= SPEED_S]
    moved = [sample for sample in within if _records(sample, version) > _records(within[0], version)]
    first = moved[0] if _records(samples[0], version) == _records(within[0], version) and moved else within[0]
    span_s = newest.monotonic_s - first.monotonic_s
    return (_records(newest, version) - _records(first, version)) / span_s if span_s >= SPEED_S * 0.7 else None


def _records(sample: Sample, version: VersionId) -> int:
    return sum(position.records for position in sample.of(version).values())


def still_since_s(samples: Sequence[Sample], versions: Collection[VersionId]) -> float | None:
    """Since when none of the runs has committed anything, as far as the samples reach back; None = one just did."""
    if not samples:
        return None
    since = None
    for before, after in zip(reversed(samples[:-1]), reversed(samples[1:]), strict=True):
        if any(_offsets(before, version) != _offsets(after, version) for version in versions):
            break
        since = before.monotonic_s
    return since


def _offsets(sample: Sample, version: VersionId) -> int:
    return sum(position.next_offset for position in sample.of(version).values())


def lag_pressure(lags_s: Iterable[tuple[VersionId, float]], allowed_s: float) -> Pressure | None:
    """Of versions that serve reads: how near the one that is furthest behind is to what is allowed."""
    worst = max(lags_s, key=lambda one: one[1], default=None)
    if worst is None:
        return None
    version, late_s = worst
    figures = f"{version}, which serves reads, is {late_s:.1f} s behind the log, and {allowed_s:g} s is allowed"
    return Pressure(Reason.SERVING_LAG, late_s / allowed_s, figures)


def sink_pressure(write_s: float | None, allowed_s: float) -> Pressure | None:
    """How near what a write takes is to what is allowed; None = nothing was written lately."""
    if write_s is None:
        return None
    figures = f"a write to the database takes {write_s:.1f} s, and {allowed_s:g} s is allowed"
    return Pressure(Reason.SINK_LATENCY, write_s / allowed_s, figures)
