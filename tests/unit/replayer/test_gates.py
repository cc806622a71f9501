"""The gates: every clause of catch-up, coverage and schema, and the words they say."""

import itertools
import math
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.replayer import gates
from services.replayer.forecast import Forecast
from services.replayer.gates import DerivedTypes, Gate, Limits, catch_up, coverage, schema
from services.replayer.history import GAP_S, History
from services.replayer.outlook import Outlook
from services.replayer.retention import Risk
from services.replayer.run import Position, Run, Sample
from services.replayer.states import State
from tests.unit.replayer.made import COUNT, NOW, at, definition, run, sample, tp
from turnout.log_range import LogRange
from turnout.schema import Column, ColumnType, DerivedColumn, JobKind, Merge

V1, V2 = run(1), run(2)
EXPECTING_NOTHING = Outlook()
LIMITS = Limits(lag_s=2.0, event_lag_s=5.0, stable_s=1.0)


def _steady(*samples_of: tuple[Position, Position | None, int], every_s: float = 0.5) -> list[Sample]:
    """Samples of partition 0: (candidate, baseline, end of the log)."""
    made = []
    for number, (ours, theirs, end) in enumerate(samples_of):
        runs = [(V2, {0: ours})] + ([(V1, {0: theirs})] if theirs is not None else [])
        made.append(sample(runs, {0: end}, at_s=number * every_s))
    return made


def _asked(
    samples: list[Sample], baseline: Run | None = V1, candidate: Run = V2, outlook: Outlook = EXPECTING_NOTHING
) -> Gate:
    return catch_up(candidate, baseline, samples, samples[-1].monotonic_s, LIMITS, outlook)


def _says(gate: Gate, text: str) -> bool:
    return any(text in line for line in gate.evidence)


# --- catch-up: one partition, at one moment -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "end", "passes"),
    [
        (at(100), at(100), 500, True),  # level with the baseline, however far the log is
        (at(200), at(100), 500, True),  # ahead of it
        (at(99), at(100), 500, False),  # the baseline has had that one for long
        (at(100), at(100), 100, True),  # idle: both at the end of the log
        (at(100), at(150), 150, False),  # at what was the end of the log once
        (at(100), at(150), 100, False),  # the same: the baseline shows that the known end is an old one
        (at(100), at(100), 50, True),  # an old end says nothing against it either
        (at(100, event_s=-900), at(100, event_s=-1), 500, True),  # nothing is missing, whatever the stamps say
    ],
)
def test_a_partition_that_stands_still(ours: Position, theirs: Position, end: int, passes: bool) -> None:
    assert _asked(_steady(*[(ours, theirs, end)] * 10)).passed is passes


def _moving(lag: int, *, event_lag_s: float | None = None, per_step: int = 10) -> list[Sample]:
    """Samples each 0.5 s in which the baseline applies 10 offsets, and the candidate the same `lag` offsets later."""
    made: list[tuple[Position, Position | None, int]] = []
    for step in range(12):
        stamp = None if event_lag_s is None else step * 0.5 - 100
        theirs = at(1000 + step * per_step, event_s=stamp)
        ours = at(1000 + step * per_step - lag, event_s=None if stamp is None else stamp - (event_lag_s or 0.0))
        made.append((ours, theirs, 9000))
    return _steady(*made)


@pytest.mark.parametrize(("lag", "passes"), [(0, True), (1, True), (40, True), (41, False)])
def test_it_may_lack_what_came_within_the_allowed_lag(lag: int, passes: bool) -> None:
    assert _asked(_moving(lag)).passed is passes  # 2 s are 4 steps of 10 offsets


@pytest.mark.parametrize(("event_lag_s", "passes"), [(5.0, True), (5.1, False)])
def test_and_no_more_event_time_than_allowed(event_lag_s: float, passes: bool) -> None:
    gate = _asked(_moving(10, event_lag_s=event_lag_s))
    assert gate.passed is passes
    assert passes or gate.evidence[0] == "partition flights/0 is 10 offsets and 5.1 s of event time behind version 1"


def test_event_times_in_the_future_count_as_now() -> None:
    far = _steady(*[(at(1000 + s, event_s=9000), at(1001 + s, event_s=99_000), 9000) for s in range(12)])
    assert _asked(far).passed


@pytest.mark.parametrize(("offset", "passes"), [(100, True), (99, False)])
def test_a_first_version_is_measured_by_the_log(offset: int, passes: bool) -> None:
    assert _asked(_steady(*[(at(offset), None, 100)] * 10), baseline=None).passed is passes


def test_a_first_version_may_lack_what_has_just_come() -> None:
    assert _asked(_steady(*[(at(100), None, 100)] * 9, (at(100), None, 170)), baseline=None).passed


def test_a_version_that_has_just_begun_is_allowed_no_lag() -> None:
    """Its first sample knows only the end of the log now, though the log was empty two seconds ago."""
    empty = [sample([], {0: 0}, at_s=s / 2) for s in range(5)]
    begun = [sample([(V2, {0: at(0)})], {0: 500}, at_s=2.5 + s / 2) for s in range(3)]
    assert not gates.caught_up_with_log(V2, empty + begun, LIMITS)
    assert not _asked(empty + begun, baseline=None).passed


def test_an_unknown_end_of_the_log_is_no_evidence() -> None:
    samples = [sample([(V2, {0: at(5)})], {}, at_s=s / 2) for s in range(3)]
    gate = _asked(samples, baseline=None)
    assert not gate.passed
    assert _says(gate, "Kafka has not answered")


@pytest.mark.parametrize(("age_s", "passes"), [(LIMITS.sample_age_s, True), (LIMITS.sample_age_s + 0.1, False)])
def test_an_old_end_of_the_log_is_no_evidence(age_s: float, passes: bool) -> None:
    samples = [sample([(V2, {0: at(100)})], {0: 100}, at_s=s / 4, asked_s=s / 4 - age_s) for s in range(8)]
    gate = _asked(samples, baseline=None)
    assert gate.passed is passes
    assert gates.caught_up_with_log(V2, samples, LIMITS) is passes
    assert passes or _says(gate, "the end of the log as it was 3.1 s ago: Kafka has not answered since")


def test_an_end_of_which_only_workers_have_told_is_not_known() -> None:
    samples = [sample([(V2, {0: at(100)})], {0: 100}, at_s=s / 4, asked_s=-math.inf) for s in range(8)]
    gate = _asked(samples, baseline=None)
    assert not gate.passed
    assert _says(gate, "Kafka has not answered yet")


def test_a_baseline_that_runs_away_from_the_known_end_of_the_log() -> None:
    """Kafka answers the workers of the baseline only: the candidate stands at the end that was known last."""
    made = [(at(100), at(100 + 3000 * step), 100) for step in range(14)]
    gate = _asked(_steady(*made, every_s=0.25))
    assert not gate.passed
    assert _says(gate, "partition flights/0 is 39,000 offsets behind version 1")


def test_every_partition_behind_is_listed_with_its_numbers() -> None:
    ours = {0: at(100), 1: at(50, event_s=-60), 3: at(7)}
    theirs = {0: at(100), 1: at(40_162, event_s=0), 3: at(1000)}
    samples = [sample([(V2, ours), (V1, theirs)], dict.fromkeys(ours, 50000), at_s=s / 2) for s in range(3)]
    gate = _asked(samples)
    assert "partition flights/1 is 40,112 offsets and 60 s of event time behind version 1" in gate.evidence
    assert "partition flights/3 is 993 offsets behind version 1" in gate.evidence
    assert not _says(gate, "flights/0")


def test_a_partition_not_yet_taken_up() -> None:
    runs = [(V2, {0: at(100)}), (V1, {0: at(100), 1: at(30)})]
    gate = _asked([sample(runs, {0: 100, 1: 100}, at_s=s / 2) for s in range(3)])
    assert _says(
        gate, "partition flights/1 is 30 offsets behind version 1, for it has not taken up this new partition yet"
    )


# --- catch-up: over time --------------------------------------------------------------------------------------------


def test_level_for_too_short_a_time() -> None:
    level, behind = (at(100), at(100), 500), (at(50), at(100), 500)
    gate = _asked(_steady(level, level, behind, level, level))
    assert gate.evidence == ("all partitions are level for 0.5 s only; 1.0 s are asked for",)
    assert _asked(_steady(behind, level, level, level)).passed


def _history(samples: list[Sample]) -> list[Sample]:
    """What is left of the samples when they are taken one after another."""
    history = History()
    for one in samples:
        history.add(one)
    return list(history.samples)


def test_a_gap_in_the_measuring_is_not_bridged() -> None:
    """PostgreSQL was away for eleven seconds, in which the baseline went on and the candidate did not."""
    runs = [(0.0, 1000), (11.0, 50_000)]
    samples = [sample([(V2, {0: at(1000)}), (V1, {0: at(theirs)})], {0: 50_000}, at_s=s) for s, theirs in runs]
    assert not _asked(_history(samples)).passed
    level = [sample([(V2, {0: at(9)}), (V1, {0: at(9)})], {0: 9}, at_s=s) for s in (0.0, 0.5, 1.0, 5.0, 5.5, 5.75)]
    gate = _asked(_history(level))
    assert gate.evidence == ("all partitions are level for 0.8 s only; 1.0 s are asked for",)


@st.composite
def trajectories(draw: st.DrawFn) -> list[tuple[float, int, int, int, bool]]:
    """Moments: (seconds, candidate, baseline, known end of the log, whether it was measured)."""
    s, ours, theirs, end, moments = 0.0, 0, 0, 0, []
    stalls = draw(st.integers(0, 30))  # from then on the candidate and what is known of the log stand still
    for number in range(draw(st.integers(2, 40))):
        s += draw(st.sampled_from([0.05, 0.25, 0.25, 0.25, 0.5, 0.9, 1.1, 3.0]))
        theirs += draw(st.sampled_from([0, 0, 1, 10, 5000]))
        if number < stalls:
            ours = draw(st.integers(ours, theirs)) if draw(st.booleans()) else theirs
            end = draw(st.sampled_from([0, ours, theirs]))
        moments.append((s, ours, theirs, end, draw(st.integers(0, 3)) > 0))
    s, ours, theirs, end, _ = moments[-1]
    return [*moments[:-1], (s, ours, theirs, end, True)]


@given(trajectories())
def test_it_never_lacks_what_the_baseline_had_before_the_allowed_lag(
    moments: list[tuple[float, int, int, int, bool]],
) -> None:
    measured = [
        sample([(V2, {0: at(ours)}), (V1, {0: at(theirs)})], {0: end}, at_s=s)
        for s, ours, theirs, end, taken in moments
        if taken
    ]
    samples = _history(measured)
    if not _asked(samples).passed:
        return
    now_s = samples[-1].monotonic_s
    window = [one.monotonic_s for one in samples if now_s - one.monotonic_s <= LIMITS.stable_s]
    for at_s, ours, _, _, taken in moments:
        if taken and at_s in window:
            had = [theirs for s, _, theirs, _, _ in moments if s < at_s - LIMITS.lag_s]
            assert ours >= max(had, default=0)
    assert now_s - samples[0].monotonic_s >= LIMITS.stable_s
    assert all(b.monotonic_s - a.monotonic_s <= GAP_S for a, b in itertools.pairwise(samples))


@given(trajectories(), st.data())
def test_nor_what_the_log_had_before_its_end_counts_as_old(
    moments: list[tuple[float, int, int, int, bool]], data: st.DataObject
) -> None:
    """Here the second trajectory is the log itself, and each measurement knows its end of an earlier moment."""
    measured = []
    for number, (s, ours, _, _, taken) in enumerate(moments):
        asked_s, _, end, _, _ = moments[data.draw(st.integers(0, number))]
        if taken:
            measured.append(sample([(V2, {0: at(ours)})], {0: end}, at_s=s, asked_s=asked_s))
    samples = _history(measured)
    if _asked(samples, baseline=None).passed:
        now_s, ours, _, _, _ = moments[-1]
        assert ours >= max((end for s, _, end, _, _ in moments if s < now_s - LIMITS.sample_age_s), default=0)


def test_an_old_measurement_is_no_evidence() -> None:
    samples = _steady(*[(at(100), at(100), 500)] * 3)
    gate = catch_up(V2, V1, samples, samples[-1].monotonic_s + LIMITS.sample_age_s + 0.1, LIMITS, Outlook())
    assert not gate.passed
    assert _says(gate, "nothing has been measured lately")
    assert not catch_up(V2, V1, [], 0.0, LIMITS, Outlook()).passed


@pytest.mark.parametrize("state", [state for state in State if state not in (State.TAILING, State.COMPLETED)])
def test_only_a_tailing_run_passes(state: State) -> None:
    candidate = run(2, state, failure_reason="MALFORMED_RECORD", failure_message="at offset 7")
    gate = _asked(_steady(*[(at(100), at(100), 500)] * 3), candidate=candidate)
    assert not gate.passed
    assert _says(gate, state.value)
    assert _says(gate, "at offset 7") is (state is State.FAILED)
    assert _says(gate, "resume it") is (state in (State.PAUSED, State.STOPPED))
    assert _says(gate, "its place in the budget of copies") is (state is State.QUEUED)


def test_of_a_failed_run_its_failure_alone_is_told() -> None:
    candidate = run(2, State.FAILED, failure_reason="MALFORMED_RECORD", failure_message="at offset 7")
    gate = _asked(_steady(*[(at(10), at(100), 500)] * 3), candidate=candidate)
    assert gate.evidence == ("the run of version 2 has FAILED (MALFORMED_RECORD): at offset 7",)


def test_a_forecast_comes_with_the_refusal() -> None:
    samples = _steady((at(0), at(5000), 5000), (at(500), at(5000), 5000))
    gate = _asked(samples, outlook=Outlook(Forecast(4.5, 4.0, 6.0)))
    assert "at 1,000 records/s it reaches the end of the log in about 4.5 s (between 4.0 s and 6.0 s)" in gate.evidence
    gate = _asked(samples, outlook=Outlook(Forecast(4.5, 4.0, None)))
    assert _says(gate, "(between 4.0 s and an unknown time)")
    gate = _asked(samples, outlook=Outlook(Forecast(never=True)), candidate=run(2, State.REPLAYING))
    assert _says(gate, "it never catches up, for the log grows faster")


def test_a_log_that_expires_first_is_said() -> None:
    samples = _steady((at(0), at(5000), 5000), (at(500), at(5000), 5000))
    gate = _asked(samples, outlook=Outlook(risk=Risk(tp(), NOW, 79.0, "flights/0: too late")))
    assert "flights/0: too late" in gate.evidence


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.floats(0.1, 1.0))
def test_it_passes_just_when_all_of_the_window_was_level(levels: list[bool], every_s: float) -> None:
    samples = _steady(*[(at(100 if level else 0), at(100), 500) for level in levels], every_s=every_s)
    held = 0
    for level in reversed(levels):
        if not level:
            break
        held += 1
    held_s = samples[-1].monotonic_s - samples[-held].monotonic_s if held else -1.0
    assert _asked(samples).passed is (held_s >= LIMITS.stable_s)


# --- catch-up: bounded ranges ---------------------------------------------------------------------------------------

DONE = run(2, State.COMPLETED)


def test_a_first_version_of_a_bounded_range_passes_once_it_is_complete() -> None:
    samples = _steady((at(100, until=100), None, 900))  # one sample is enough: it stands there for good
    gate = _asked(samples, None, DONE)
    assert gate.passed
    assert gate.evidence == ("all 1 partitions are at the end of the range",)
    reading = _asked(_steady(*[(at(60, until=100), None, 900)] * 10), None, run(2, State.REPLAYING))
    assert reading.evidence[:2] == (
        "the run of version 2 is REPLAYING, still copying the retained log",
        "partition flights/0 is 40 offsets behind the end of its range, offset 100",
    )


@pytest.mark.parametrize("theirs", [at(150), at(100), at(90), at(100, until=101), at(40, until=200)])
def test_beside_a_version_that_goes_further_it_never_catches_up(theirs: Position) -> None:
    gate = _asked(_steady(*[(at(100, until=100), theirs, 900)] * 10), V1, DONE)
    assert not gate.passed
    further = "has no end" if theirs.range_end is None else f"goes on to {theirs.range_end}"
    assert gate.evidence == (
        f"partition flights/0 is {max(0, theirs.next_offset - 100)} offsets behind version 1, and it never catches up: "
        f"the range of version 2 ends at offset 100, and that of version 1 {further}",
    )


def test_of_several_partitions_it_is_said_once() -> None:
    ours = {n: at(100 + n, until=100 + n) for n in range(5)}
    theirs = {**dict.fromkeys(ours, at(150)), 0: at(100, until=100)}
    gate = _asked([sample([(DONE, ours), (V1, theirs)], {})], V1, DONE)
    assert gate.evidence == (
        "version 2 never catches up: its range ends (flights/1 at offset 101, flights/2 at offset 102, flights/3 at "
        "offset 103 and 1 more), and that of version 1 goes further; it is 190 offsets behind now",
    )


@pytest.mark.parametrize("theirs", [at(100, until=100), at(90, until=90), at(60, until=100)])
def test_beside_one_that_goes_no_further_it_passes(theirs: Position) -> None:
    gate = _asked(_steady((at(100, until=100), theirs, 900)), V1, DONE)
    assert gate.passed
    assert gate.evidence == ("all 1 partitions are at the end of the range, which goes as far as that of version 1",)


def test_a_live_candidate_beside_a_bounded_version() -> None:
    assert _asked(_steady(*[(at(900), at(100, until=100), 900)] * 10)).passed
    assert not _asked(_steady(*[(at(50), at(100, until=100), 900)] * 10)).passed


def test_a_partition_that_the_range_leaves_out() -> None:
    samples = [
        sample([(V2, {0: at(100, until=100)}), (V1, {0: at(100, until=100), 1: at(5, until=5)})], {0: 900, 1: 9})
    ]
    gate = _asked(samples, V1, DONE)
    assert gate.evidence == (
        "partition flights/1 is 5 offsets behind version 1, for its range leaves this partition out",
    )


@pytest.mark.parametrize(("ours", "over"), [(at(99, until=100), False), (at(100, until=100), True)])
def test_the_end_of_a_range_is_stood_at_exactly(ours: Position, over: bool) -> None:
    moving = _steady(*[(at(n, until=100), None, 900) for n in (0, 50)], (ours, None, 900))
    assert gates.caught_up_with_log(V2, moving, LIMITS) is over


# --- coverage -------------------------------------------------------------------------------------------------------


def test_coverage_names_the_span_that_would_be_lost() -> None:
    v1 = replace(V1, start_times={tp(0): NOW - timedelta(days=700)})
    v2 = replace(V2, start_times={tp(0): NOW - timedelta(days=30)})
    gate = coverage(v2, v1, {tp(0): 1200, tp(1): 0}, {tp(0): 0, tp(1): 0})
    assert not gate.passed
    assert gate.evidence == (
        "partition flights/0: version 1 begins at offset 0, version 2 only at 1,200: readers would lose 1,200 offsets, "
        "written from 2024-02-01 12:00:00 to 2025-12-02 12:00:00 UTC",
        "the log start has moved since version 1 began: version 2 is not cut over silently; override this gate if "
        "readers may lose that span",
    )
    late = replace(v2, log_range=LogRange(start_time=NOW - timedelta(days=30)))
    assert (
        coverage(late, v1, {tp(0): 1200}, {tp(0): 0})
        .evidence[-1]
        .startswith("version 2 is made of the log from 2025-12-02 12:00:00 UTC on: version 2 is not cut over silently")
    )


def test_coverage_says_when_it_does_not_know_what_time_would_be_lost() -> None:
    gate = coverage(V2, V1, {tp(0): 1200}, {tp(0): 0})
    assert gate.evidence[0].endswith("would lose 1,200 offsets, of which it is not known when they were written")


@given(
    st.dictionaries(st.integers(0, 5), st.integers(0, 50), min_size=1),
    st.dictionaries(st.integers(0, 5), st.integers(0, 50), min_size=1),
)
def test_coverage_passes_just_when_no_partition_begins_later(ours: dict[int, int], theirs: dict[int, int]) -> None:
    gate = coverage(V2, V1, {tp(n): o for n, o in ours.items()}, {tp(n): o for n, o in theirs.items()})
    assert gate.passed is all(ours[n] <= theirs[n] for n in theirs if n in ours)


def test_coverage_of_other_topics_cannot_be_told() -> None:
    gate = coverage(V2, V1, {tp(0, "flights-2"): 0}, {tp(0): 0})
    assert not gate.passed
    assert _says(gate, "does not read flights, from which version 1 is made")


def test_coverage_of_a_first_version() -> None:
    assert coverage(V2, None, {tp(0): 1200}, {}).passed


@pytest.mark.parametrize(("kind", "passes"), [(JobKind.MAP, True), (JobKind.AGGREGATE, False), (JobKind.FOLD, False)])
def test_compacted_topics_are_for_maps(kind: JobKind, passes: bool) -> None:
    candidate = replace(V2, definition=definition(kind=kind))
    gate = coverage(candidate, None, {tp(0): 0}, {}, frozenset({"flights"}))
    assert gate.passed is passes
    assert passes or _says(gate, "flights is compacted")


# --- schema ---------------------------------------------------------------------------------------------------------


def _schema(before: Run, after: Run, old_type: str = "float8", new_type: str = "float8") -> Gate:
    return schema(after, before, DerivedTypes(candidate={"share": new_type}, baseline={"share": old_type}))


def test_added_columns_are_fine() -> None:
    after = replace(V2, definition=definition(COUNT, Column("cancelled", ColumnType.INT64, merge=Merge.SUM)))
    gate = _schema(V1, after)
    assert gate.passed
    assert gate.evidence == ("column cancelled: added (int64, not null)",)


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (Column("flights_", ColumnType.INT64, merge=Merge.SUM), "flights: removed"),
        (Column("flights", ColumnType.DECIMAL, merge=Merge.SUM), "flights: type changed from int64 to decimal"),
        (Column("flights", ColumnType.INT64, nullable=True, merge=Merge.SUM), "flights: nullability changed"),
    ],
)
def test_what_readers_would_trip_over_is_refused(column: Column, says: str) -> None:
    gate = _schema(V1, replace(V2, definition=definition(column)))
    assert not gate.passed
    assert _says(gate, says)


@pytest.mark.parametrize(("new_type", "passes"), [("float8", True), ("numeric", False)])
def test_an_expression_may_change_but_not_its_type(new_type: str, passes: bool) -> None:
    before = replace(V1, definition=definition(derived=(DerivedColumn("share", "flights::float8"),)))
    after = replace(V2, definition=definition(derived=(DerivedColumn("share", "flights / 2.0"),)))
    assert _schema(before, after, new_type=new_type).passed is passes


def test_schema_of_a_first_version_and_of_equal_columns() -> None:
    assert schema(V2, None, DerivedTypes()).passed
    assert _schema(V1, V2).evidence == ("the columns are those of version 1",)
