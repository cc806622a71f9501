"""What a front tells of exposures: each first one, in bounded memory, and lost only where it is counted as lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.errors import InvalidInput, Unavailable
from turnout.exposure import LEFT_OUT_MAX, verified
from turnout.reading.exposing import Exposing
from turnout.reading.exposures import Exposures, Seen
from turnout.reading.routing import Cause, Committed, Resolver, RoutingTable
from turnout.routing import HASHES, Arm, Experiment, Interval, Route, Units

KEY = b"k" * 32
EXPERIMENT = Experiment("jobs/j/experiments/e", 7, Units.CALLER, slow_us=50_000)
HALF = HASHES // 2


def route(experiment: Experiment | None = EXPERIMENT) -> Route:
    """v1 and v2 with half of the units each."""
    intervals = Interval(0, HALF, 1, 1), Interval(HALF, HASHES, 2, 2)
    extra = tuple(Arm(version, 0) for _, version in experiment.overrides if version > 2) if experiment else ()
    return Route("j", 2, 1, (Arm(1, 5000), Arm(2, 5000), *extra), "salt", intervals, "owner", experiment)


def made(**limits: int) -> Exposures:
    exposures = Exposures(**limits)
    exposures.use_keys({3: KEY})
    return exposures


def expose(exposures: Exposures, unit: str, *, found: bool = True, took_s: float = 0.01, version: int = 1) -> str:
    return exposures.answered(route(), exposures.of(route(), version, unit, 1000.9), found=found, took_s=took_s)


def untold(exposures: Exposures) -> list[tuple[int, Seen]]:
    return [(one.exposure.version, one.seen) for one in exposures.next(1000)]


def test_the_id_says_what_was_exposed() -> None:
    exposure = verified({3: KEY}, expose(made(), "ada", version=2))
    assert (exposure.experiment, exposure.epoch, exposure.version) == (7, 2, 2)
    assert (exposure.propensity, exposure.time_s) == (5000, 1000)


def test_only_the_first_of_each_is_told() -> None:
    exposures = made()
    for _ in range(3):
        expose(exposures, "ada")
        expose(exposures, "ada", found=False)
        expose(exposures, "ada", took_s=0.06)
    assert untold(exposures) == [(1, Seen.EXPOSED), (1, Seen.NOT_FOUND), (1, Seen.SLOW)]
    expose(exposures, "ada", version=2)
    assert untold(exposures)[-1] == (2, Seen.EXPOSED)


@pytest.mark.parametrize(
    ("counts_by", "unit", "kind", "left_out"),
    [
        (Units.CALLER, "ada", Units.CALLER, {}),
        (Units.CALLER, "", Units.CALLER, {7: 1}),
        (Units.CALLER, "['UA']", Units.KEY, {7: 1}),
        (Units.KEY, "['UA']", Units.KEY, {}),
        (Units.KEY, "ada", Units.CALLER, {7: 1}),
    ],
)
def test_a_read_whose_unit_is_of_another_kind_is_left_out(
    counts_by: Units, unit: str, kind: Units, left_out: dict[int, int]
) -> None:
    exposures = made()
    routed = route(Experiment("jobs/j/experiments/e", 7, counts_by))
    table = RoutingTable().with_commit(Committed(1, "p", routed))
    resolver = table.resolver("j", pinned=0, split=True, passed_over=frozenset())
    exposing = Exposing(exposures)
    for _ in range(3):  # a table that has moved, a token that is waited for
        exposing.anew()
        exposing.resolved(resolver, resolver.of(unit or None, kind), unit, kind)
    assert exposures.left_out == {}
    exposing.answered(True)
    exposing.answered(True)
    assert exposures.left_out == left_out


def test_each_key_of_a_batch_that_is_left_out_counts_once() -> None:
    exposures = made()
    exposing, given = Exposing(exposures), resolver(Experiment("e", 7, Units.KEY))
    for _ in range(2):
        exposing.anew()
        for place in range(3):
            exposing.resolved(given, given.of("ada"), "ada", Units.CALLER, place)
    assert exposing.answered_each([0, 1], [1, 0]) == exposing.answered_each([2], [1]) == ()
    assert exposures.left_out == {7: 3}


def test_reads_are_left_out_of_the_newest_experiments_that_are_known() -> None:
    exposures = made()
    for number in range(LEFT_OUT_MAX + 5):
        exposures.leave_out(number)
    exposures.leave_out(LEFT_OUT_MAX + 4)
    assert len(exposures.left_out) == LEFT_OUT_MAX
    assert min(exposures.left_out) == 5
    assert exposures.left_out[LEFT_OUT_MAX + 4] == 2


def test_what_is_told_leaves_and_is_not_told_again() -> None:
    exposures = made()
    expose(exposures, "ada")
    expose(exposures, "bob")
    exposures.told(1)
    assert len(exposures.next(10)) == 1
    expose(exposures, "ada")
    assert exposures.untold == 1


def test_without_a_key_nothing_is_signed_but_units_are_counted() -> None:
    exposures = Exposures()
    assert expose(exposures, "ada") == ""
    assert exposures.untold == 1


def test_a_failure_is_an_exposure_too() -> None:
    exposures = made()
    exposures.unanswered(exposures.of(route(), 2, "ada", 0.0), to_blame=True)
    assert untold(exposures) == [(2, Seen.EXPOSED), (2, Seen.FAILURE)]


@given(st.lists(st.integers(0, 30), max_size=200), st.integers(1, 10), st.integers(1, 10))
def test_memory_is_bounded_and_nothing_is_lost_in_silence(units: list[int], remembered: int, room: int) -> None:
    exposures = made(remembered_max=remembered, untold_max=room)
    told: set[int] = set()
    for at, unit in enumerate(units):
        expose(exposures, str(unit))
        assert exposures.untold <= room
        if at % 3 == 2:
            batch = exposures.next(2)
            told |= {one.exposure.unit for one in batch}
            exposures.told(len(batch))
    told |= {one.exposure.unit for one in exposures.next(room)}
    assert len(told) + exposures.lost >= len(set(units))
    assert len(exposures._told) + len(exposures._told_before) <= 2 * remembered


def test_what_was_dropped_is_told_when_there_is_room_again() -> None:
    exposures = made(untold_max=1)
    expose(exposures, "ada")
    expose(exposures, "bob")
    assert (exposures.untold, exposures.lost) == (1, 1)
    exposures.told(1)
    expose(exposures, "bob")
    assert exposures.untold == 1


# --- which answers count --------------------------------------------------------------------------------------------


def resolver(experiment: Experiment | None, *, split: bool = True) -> Resolver:
    table = RoutingTable().with_commit(Committed(1, "p", route(experiment)))
    return table.resolver("j", pinned=0, split=split, passed_over=frozenset())


@pytest.mark.parametrize(
    ("experiment", "unit", "units", "cause", "counts"),
    [
        (EXPERIMENT, "ada", Units.CALLER, Cause.ROUTED, True),
        (EXPERIMENT, "s3:ada", Units.KEY, Cause.ACTIVE, False),
        (Experiment("e", 7, Units.KEY), "s3:ada", Units.KEY, Cause.ROUTED, True),
        (Experiment("e", 7, Units.KEY), "ada", Units.CALLER, Cause.ROUTED, False),
        (Experiment("e", 7, Units.CALLER, overrides=(("ada", 3),)), "ada", Units.CALLER, Cause.OVERRIDE, False),
        (Experiment("e", 7, Units.CALLER, overrides=(("bob", 3),)), "ada", Units.CALLER, Cause.ROUTED, True),
        (Experiment("e", 7, Units.CALLER, 10_000, "h"), "ada", Units.CALLER, Cause.HOLDOUT, False),
        (None, "ada", Units.CALLER, Cause.ROUTED, False),
    ],
)
def test_testers_held_out_and_other_units_are_not_counted(
    experiment: Experiment | None, unit: str, units: Units, cause: Cause, counts: bool
) -> None:
    given = resolver(experiment)
    resolution = given.of(unit, units)
    assert resolution.cause is cause
    assert given.counts(resolution, units) is counts


def test_a_front_that_is_cut_off_exposes_nobody() -> None:
    given = resolver(EXPERIMENT, split=False)
    resolution = given.of("ada")
    assert (resolution.version, resolution.cause) == (1, Cause.ACTIVE)
    assert not given.counts(resolution, Units.CALLER)


def test_a_stand_in_is_no_exposure() -> None:
    table = RoutingTable().with_commit(Committed(1, "p", route()))
    given = table.resolver("j", pinned=0, split=True, passed_over=frozenset({2}))
    unit = next(str(n) for n in range(100) if resolver(EXPERIMENT).of(str(n)).version == 2)
    assert given.of(unit).cause is Cause.STAND_IN
    assert not given.counts(given.of(unit), Units.CALLER)


@given(st.text(min_size=1, max_size=20))
def test_the_holdout_is_the_same_in_every_experiment_whatever_the_weights(unit: str) -> None:
    some = Experiment("a", 1, Units.CALLER, 1000, "jobs/j/holdout")
    other = Experiment("b", 2, Units.CALLER, 1000, "jobs/j/holdout")
    held = [resolver(one).of(unit).cause is Cause.HOLDOUT for one in (some, other)]
    assert held[0] == held[1]
    wider = Experiment("c", 3, Units.CALLER, 3000, "jobs/j/holdout")
    assert not held[0] or resolver(wider).of(unit).cause is Cause.HOLDOUT


class TestExposing:
    def resolved(self, exposures: Exposures) -> Exposing:
        exposing, given = Exposing(exposures), resolver(EXPERIMENT)
        exposing.resolved(given, given.of("ada"), "ada", Units.CALLER)
        exposing.reading(given.of("ada").version)
        return exposing

    def test_an_answer_has_its_id(self) -> None:
        exposures = made()
        assert self.resolved(exposures).answered(True)
        assert [seen for _, seen in untold(exposures)] == [Seen.EXPOSED]

    def test_a_read_that_is_resolved_anew_counts_as_it_was_answered(self) -> None:
        exposures = made()
        exposing = self.resolved(exposures)
        exposing.anew()
        assert exposing.answered(True) == ""
        assert not exposures.untold

    def test_what_the_version_is_to_blame_for_is_a_failure(self) -> None:
        exposures = made()
        with pytest.raises(Unavailable), self.resolved(exposures):
            raise Unavailable("TABLE_MISSING", "gone")
        assert [seen for _, seen in untold(exposures)] == [Seen.EXPOSED, Seen.FAILURE]

    def test_of_a_batch_only_the_version_that_failed_is_blamed(self) -> None:
        exposures = made()
        exposing = self.resolved(exposures)
        exposing.reading(99)
        with pytest.raises(Unavailable), exposing:
            raise Unavailable("TABLE_MISSING", "gone")
        assert [seen for _, seen in untold(exposures)] == [Seen.EXPOSED]

    def test_what_the_caller_is_to_blame_for_is_none(self) -> None:
        exposures = made()
        with pytest.raises(InvalidInput), self.resolved(exposures):
            raise InvalidInput("INVALID_KEY", "no key")
        assert not exposures.untold
