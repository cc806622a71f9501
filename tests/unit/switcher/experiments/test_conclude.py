"""What follows from a situation, and that it follows again."""

import math
from pathlib import Path

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from services.switcher.experiments.conclude import (
    EPOCHS_MAX,
    Action,
    ArmTally,
    EpochTally,
    GateSaid,
    Situation,
    conclude,
    in_basis_points,
    inputs_of,
)
from services.switcher.experiments.record import (
    RULES,
    RulesChangedError,
    decode,
    encode,
    in_words,
    recomputed,
    recorded,
)
from services.switcher.experiments.spec import Bandit, Metric, Objective, Rule, Spec
from services.switcher.statistics.decision import Plan, Verdict
from services.switcher.statistics.harm import Firsts
from services.switcher.statistics.promotion import Windows
from services.switcher.statistics.srm import FirstExposures
from tests.unit.switcher.experiments.made import situation, spec, tally
from turnout.routing import HASHES, WHOLE

RECORDS = Path(__file__).with_name("records") / "rules-3.jsonl"
AB = spec(9500, 500)
ABC = spec(8000, 1000, 1000)
HARMLESS = (tally(9500, 95), tally(500, 5))
HARMFUL = (tally(9500, 95), tally(500, 60))
BANDIT = Bandit(floor=0.05, step_max=0.1, every_s=60.0, units_min=100)


def test_a_candidate_that_harms_goes_off_the_route_and_takes_the_experiment_with_it() -> None:
    told = conclude(situation(AB, *HARMFUL))
    assert told.action is Action.END
    assert told.aborted == (2,)
    assert told.after.weights == (WHOLE, 0)
    assert told.after.epoch == 3
    assert [one[2] for one in told.after.intervals] == [1] * len(told.after.intervals)
    assert "60 of 155 first errors are its own" in told.sentence


WATCHED = msgspec.structs.replace(AB, harms=(Metric.ERROR, Metric.CONVERSION))


def converting(*candidates: int) -> Situation:
    """Errors alike; of 9,500 units of v1 1,000 converted, and these first ones were the candidate's, epoch by epoch."""
    given = situation(WATCHED)
    arms = [
        (ArmTally(9500, 9500, 95, 1000, harms=(95, 1000)), ArmTally(500, 500, 5, own, harms=(5, own)))
        for own in candidates
    ]
    epochs = tuple(EpochTally(place, given.route.weights, one) for place, one in enumerate(arms, start=2))
    return msgspec.structs.replace(given, epochs=epochs)


def test_a_candidate_of_which_fewer_units_convert_goes_off_the_route() -> None:
    told = conclude(converting(20, 20, 20))
    assert told.action is Action.END
    assert told.after.weights == (WHOLE, 0)
    assert "v2 does harm (CONVERSION): 60 of 3,060 first conversions are its own" in told.sentence
    record = encode(recorded("jobs/j/experiments/e", "guardrails", "", converting(20, 20, 20)))
    assert recomputed(record) == record


@pytest.mark.parametrize("own", [52, 50, 100])
def test_a_candidate_of_which_as_many_convert_stays(own: int) -> None:
    assert conclude(converting(own, own, own)).action is Action.KEEP


def test_where_nobody_reports_conversions_nothing_is_said_of_them() -> None:
    arms = ArmTally(9500, 9500, 95, harms=(95, 0)), ArmTally(500, 500, 5, harms=(5, 0))
    told = conclude(situation(WATCHED, *arms))
    [judged] = told.decision.judgements
    assert judged.log_e_harms[1] == 0.0
    assert told.action is Action.KEEP


def test_of_several_candidates_only_the_harmful_one_goes() -> None:
    told = conclude(situation(ABC, tally(8000, 80), tally(1000, 150), tally(1000, 10)))
    assert told.action is Action.ABORT
    assert told.aborted == (2,)
    assert told.after.weights == (9000, 0, 1000)


def test_what_is_gone_is_not_aborted_again() -> None:
    counted = tally(8000, 80), tally(1000, 150), tally(1000, 10)
    told = conclude(situation(ABC, *counted, gone=(2,)))
    assert told.action is Action.KEEP
    assert told.after.weights == ABC_WEIGHTS


ABC_WEIGHTS = tuple(arm.weight for arm in ABC.arms)


def test_a_comparison_that_failed_aborts_at_once() -> None:
    gate = GateSaid("comparison", 2, False, ("12 rows differ that must not.",))
    told = conclude(situation(AB, gates=(gate,)))
    assert told.action is Action.END
    assert "12 rows differ that must not." in told.sentence


def test_units_that_are_not_spread_as_designed_pause_it() -> None:
    skewed = situation(AB, tally(9500), tally(800))
    assert conclude(skewed).action is Action.PAUSE
    told = conclude(situation(AB, tally(9500), tally(800), paused=True))
    assert told.action is Action.KEEP
    assert told.waiting_for.startswith("a person")
    assert conclude(situation(AB, tally(9500), tally(800), passed_over=(Verdict.FREEZE,))).action is Action.KEEP


def test_harm_aborts_also_while_it_is_paused_and_stale() -> None:
    told = conclude(situation(AB, *HARMFUL, paused=True, stale="the front f", passed_over=(Verdict.FREEZE,)))
    assert told.action is Action.END


def test_used_up_units_pause_it_for_a_person() -> None:
    counted = situation(spec(5000, 5000, plan=Plan(units_max=2000)), tally(1000, 10), tally(1000, 11))
    told = conclude(counted)
    assert told.action is Action.PAUSE
    assert "a person has to decide" in told.sentence


def test_a_candidate_that_has_proven_itself_waits_for_a_person() -> None:
    told = conclude(situation(spec(5000, 5000), tally(5000, 2500), tally(5000, 2400)))
    assert told.action is Action.KEEP
    assert told.waiting_for == "a person: v2 may be promoted"


class TestBandit:
    GOOD = (tally(1000, 0, 100), tally(1000, 0, 200))

    def given(self, *arms: ArmTally, **fields: object) -> Situation:
        bandit = fields.pop("bandit", BANDIT)
        assert isinstance(bandit, Bandit)
        return situation(spec(5000, 5000, bandit=bandit), *arms, **{"epoch_age_s": 61.0, **fields})

    def test_it_takes_one_bounded_step_towards_the_better_arm(self) -> None:
        told = conclude(self.given(*self.GOOD))
        assert told.action is Action.STEP
        assert told.after.weights == (4000, 6000)
        assert told.wanted == pytest.approx((0.05, 0.95), abs=1e-3)

    def test_it_stands_still_once_there_are_too_many_epochs_to_keep(self) -> None:
        given = self.given(*self.GOOD)
        [first] = given.epochs
        before = [EpochTally(-number, (5000, 5000), (tally(0), tally(0))) for number in range(EPOCHS_MAX - 1, 0, -1)]
        steps = msgspec.structs.replace(given, epochs=(*before[1:], first))
        assert conclude(steps).action is Action.STEP
        stands = msgspec.structs.replace(given, epochs=(*before, first))
        assert conclude(stands).action is Action.KEEP
        assert "after 1,000 epochs the weights stay" in conclude(stands).waiting_for

    @pytest.mark.parametrize(
        ("fields", "waiting"),
        [
            ({"epoch_age_s": 59.0}, "the bandit's next step, in 1 s"),
            ({"stale": "the front f, which has not told yet what it saw"}, "the front f"),
            ({"paused": True}, "a person"),
            (
                {"gates": (GateSaid("catch-up", 2, False, ("Partition 0 is behind.",)),)},
                "the gate catch-up of v2: Partition 0 is behind.",
            ),
        ],
    )
    def test_it_waits(self, fields: dict[str, object], waiting: str) -> None:
        told = conclude(self.given(*self.GOOD, **fields))
        assert told.action is Action.KEEP
        assert waiting in told.waiting_for

    def test_it_waits_for_windows_in_every_arm(self) -> None:
        told = conclude(self.given(tally(100, 0, 10), ArmTally(units=100, closed=99, harms=(0,))))
        assert told.waiting_for == "100 complete windows in each arm; the fewest are 99"

    def test_it_moves_away_from_errors(self) -> None:
        told = conclude(self.given(tally(1000, 30), tally(1000, 10), bandit=Bandit(objective=Objective.ERRORS)))
        assert told.action is Action.KEEP  # an hour is not over
        assert told.wanted[1] > 0.9

    def test_the_simple_rule_gives_all_but_epsilon_to_the_best(self) -> None:
        greedy = Bandit(rule=Rule.EPSILON_GREEDY, epsilon=0.1, floor=0.01, every_s=1.0, step_max=1.0)
        told = conclude(self.given(*self.GOOD, bandit=greedy))
        assert told.after.weights == (590, 9410)  # the floor, and 5 and 95 hundredths of the rest

    def test_rewards_are_means(self) -> None:
        arms = ArmTally(500, 500, 0, 0, 500.0, 1000.0, (0,)), ArmTally(500, 500, 0, 0, 700.0, 1500.0, (0,))
        told = conclude(self.given(*arms, bandit=Bandit(objective=Objective.REWARDS, step_max=0.1, every_s=1.0)))
        assert told.after.weights == (4000, 6000)

    def test_where_it_stays_it_says_so(self) -> None:
        told = conclude(self.given(tally(1000, 0, 100), tally(1000, 0, 100)))
        assert told.action is Action.KEEP
        assert "the weights are where they should be" in told.waiting_for


def test_strata_are_epochs_with_their_own_shares() -> None:
    epochs = (
        EpochTally(2, (9500, 500), (tally(95, 3), tally(5, 1))),
        EpochTally(3, (5000, 5000), (tally(50, 2), tally(50, 4, harms=6))),
    )
    first = situation(AB)
    inputs = inputs_of(Situation(spec=AB, epochs=epochs, route=first.route))
    assert inputs.exposures == (FirstExposures((0.95, 0.05), (95, 5)), FirstExposures((0.5, 0.5), (50, 50)))
    [candidate] = inputs.candidates
    assert candidate.harms[0].firsts == (Firsts(0.05, 3, 1), Firsts(0.5, 2, 6))
    assert candidate.windows == (Windows(0.05, 95, 3, 5, 1), Windows(0.5, 50, 2, 50, 4))


@pytest.mark.parametrize("line", RECORDS.read_bytes().splitlines())
def test_records_that_earlier_releases_made_by_the_same_rules_are_drawn_again_the_same(line: bytes) -> None:
    assert recomputed(line) == line


def test_slow_answers_are_a_harm_only_where_there_is_a_limit() -> None:
    def metrics(slow_s: float) -> list[str]:
        given = Spec(AB.arms, AB.units, slow_s=slow_s)
        return [harm.metric for harm in inputs_of(situation(given)).candidates[0].harms]

    assert Metric.SLOW.value in metrics(0.1)
    assert Metric.SLOW.value not in metrics(0.0)


shares = st.lists(st.floats(0.0, 1.0), min_size=2, max_size=8).filter(lambda one: sum(one) > 0.01)


@given(shares)
def test_basis_points_are_whole_and_sum_up(raw: list[float]) -> None:
    total = sum(raw)
    exact = [one / total for one in raw]
    points = in_basis_points(exact)
    assert sum(points) == WHOLE
    assert all(abs(point - share * WHOLE) <= 1.0 for point, share in zip(points, exact, strict=True))


counts = st.tuples(st.integers(0, 3000), st.integers(0, 100), st.integers(0, 100))


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    arms = draw(st.integers(2, 4))
    cuts = sorted(draw(st.lists(st.integers(1, 3000), min_size=arms - 1, max_size=arms - 1)))
    weights = [*cuts, WHOLE - sum(cuts)]
    assume(min(weights) > 0)
    bandit = draw(st.sampled_from([None, Bandit(units_min=2, every_s=1.0), Bandit(objective=Objective.ERRORS)]))
    given = spec(*weights, bandit=bandit)
    drawn = situation(given).route
    epochs = tuple(
        EpochTally(
            2 + place,
            drawn.weights,
            tuple(tally(units, min(units, errors), min(units, done)) for units, errors, done in one),
        )
        for place, one in enumerate(
            draw(st.lists(st.lists(counts, min_size=arms, max_size=arms), min_size=1, max_size=3))
        )
    )
    gone = draw(st.sets(st.sampled_from(given.candidates), max_size=arms - 1))
    return Situation(
        spec=given,
        epochs=epochs,
        route=drawn,
        epoch_age_s=draw(st.sampled_from([0.0, 10.0])),
        stale=draw(st.sampled_from(["", "the front f"])),
        paused=draw(st.booleans()),
        gone=tuple(sorted(gone)),
        asked=draw(st.sampled_from([None, drawn.weights])),
    )


@given(situations())
def test_every_conclusion_can_be_drawn_again_and_leaves_a_whole_route(given: Situation) -> None:
    record = encode(recorded("jobs/j/experiments/e", "guardrails", "", given))
    assert recomputed(record) == record
    assert decode(record).situation == given
    told = decode(record).conclusion
    assert sum(told.after.weights) == WHOLE
    sizes = dict.fromkeys([arm.version for arm in given.spec.arms], 0)
    for low, high, version, _ in told.after.intervals:
        sizes[version] += high - low
    for arm, weight in zip(given.spec.arms, told.after.weights, strict=True):
        assert abs(sizes[arm.version] - weight * HASHES / WHOLE) < 1
    moved = told.action not in (Action.KEEP, Action.PAUSE)
    assert told.after.epoch == given.route.epoch + moved
    assert (told.after == given.route) is not moved
    assert told.sentence.endswith(".")


@given(situations())
def test_a_bandit_never_steps_further_than_it_may(given: Situation) -> None:
    told = conclude(given)
    if told.action is Action.STEP:
        assert given.spec.bandit is not None
        assert not given.stale
        assert not given.paused
        limit = given.spec.bandit.step_max * WHOLE + 1
        pairs = zip(given.route.weights, told.after.weights, strict=True)
        assert all(abs(after - before) <= limit for before, after in pairs)


def test_a_record_that_was_changed_shows() -> None:
    record = encode(recorded("jobs/j/experiments/e", "guardrails", "", situation(AB, *HARMFUL)))
    assert recomputed(record.replace(b'"END"', b'"KEEP"')) != record.replace(b'"END"', b'"KEEP"')


@pytest.mark.parametrize(
    ("asked", "began", "who", "says"),
    [
        ((5000, 5000), True, "ada", "ada began with v1 50 %, v2 50 %."),
        ((2500, 7500), False, "ada", "ada moved the weights to v1 25 %, v2 75 %."),
        ((0, WHOLE), False, "ada", "ada gave all the units to v2."),
        ((WHOLE, 0), False, "", "Somebody gave all the units to v1, the control."),
    ],
)
def test_who_asked_for_what_is_told_of_what_was_asked_for(
    asked: tuple[int, ...], began: bool, who: str, says: str
) -> None:
    given = msgspec.structs.replace(situation(AB, *HARMLESS), asked=asked)
    if began:
        given = msgspec.structs.replace(given, epochs=())
    record = recorded("jobs/j/experiments/e", who, "", given)
    assert in_words(record) == says
    assert record.conclusion.sentence == "Somebody asked for these weights."


def test_what_was_concluded_is_told_as_it_was() -> None:
    record = recorded("jobs/j/experiments/e", "guardrails", "", situation(AB, *HARMFUL))
    assert in_words(record) == record.conclusion.sentence


def test_other_rules_are_not_mistaken_for_these() -> None:
    record = encode(recorded("jobs/j/experiments/e", "guardrails", "", situation(AB, *HARMLESS)))
    other = record.replace(f'"rules":{RULES}'.encode(), f'"rules":{RULES + 1}'.encode())
    with pytest.raises(RulesChangedError, match=f"by rules {RULES + 1}"):
        recomputed(other)


def test_harm_at_the_planned_level_is_found_at_the_planned_level() -> None:
    # One candidate and one harm: the whole of alpha is its own.
    told = conclude(situation(AB, tally(9500, 95), tally(500, 60)))
    [judged] = told.decision.judgements
    assert judged.log_e_harms[0] >= math.log(20)
