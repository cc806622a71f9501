"""A shadow on the route: what begins and ends it, who it keeps from being released; and what is said of its counts."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.switcher.gates import Said, answers_to
from services.switcher.questions import GateQuestion
from services.switcher.records import route_from_json, route_to_json
from services.switcher.shadow_report import report, shadow_gate, total
from services.switcher.switch import Change, Conduct, CutOver, Nothing, Release, RollBack, SetShadow, SetTraffic, decide
from tests.unit.switcher.test_switch import DAY, FIRST, MOVED, NONE, NOW, SPLIT, after
from turnout.errors import FailedPrecondition, InvalidInput, NotFound
from turnout.reading.route_proto import committed_message, committed_of
from turnout.reading.routing import Committed
from turnout.routing import Route, shadowed
from turnout.shadow import Shadow, ShadowCounts, ShadowVerdict

SHADOW = Shadow(2, 500)
SHADOWED = after(FIRST, SetShadow(SHADOW))


def changed(decision: object) -> Change:
    assert isinstance(decision, Change)
    return decision


def test_a_shadow_answers_nobody_and_asks_for_its_schema_alone() -> None:
    change = changed(decide(FIRST, SetShadow(SHADOW), NOW, DAY))
    assert FIRST.route is not None
    assert change.route == replace(FIRST.route, epoch=FIRST.epoch + 1, shadow=SHADOW)
    assert change.gates == (GateQuestion(2, 1, schema_only=True),)
    assert not change.emergency
    assert change.route.versions == {1}
    assert change.route.named == {1, 2}
    said = [Said("catch-up", passed=False, evidence=("behind",)), Said("schema", passed=True, evidence=())]
    assert [(one.gate, one.passed) for one in answers_to(change.gates[0], said, frozenset())] == [("schema", True)]
    assert [one.passed for one in answers_to(change.gates[0], [], frozenset())] == [False]


def test_another_share_asks_no_gate_and_the_same_one_changes_nothing() -> None:
    assert changed(decide(SHADOWED, SetShadow(Shadow(2, 100)), NOW, DAY)).gates == ()
    assert decide(SHADOWED, SetShadow(SHADOW), NOW, DAY) == Nothing()
    assert changed(decide(SHADOWED, SetShadow(None), NOW, DAY)).route.shadow is None
    assert decide(FIRST, SetShadow(None), NOW, DAY) == Nothing()


def test_it_goes_on_until_another_version_is_active() -> None:
    weighed = after(SHADOWED, SetTraffic(((1, 9000), (3, 1000))))
    assert weighed.route is not None
    assert weighed.route.shadow == SHADOW
    moved = after(weighed, CutOver(2))
    assert moved.route is not None
    assert moved.route.shadow is None
    assert moved.way_back is not None
    assert moved.way_back.shadow is None
    back = after(moved, RollBack())
    assert back.route is not None
    assert back.route.shadow is None
    alone = after(weighed, CutOver(1))
    assert alone.route is not None
    assert alone.route.shadow == SHADOW


@pytest.mark.parametrize("shadow", [Shadow(1, 500), Shadow(0, 500), Shadow(2, 0), Shadow(2, 10_001)])
def test_what_is_no_candidate_with_a_share_is_refused(shadow: Shadow) -> None:
    with pytest.raises(InvalidInput):
        decide(FIRST, SetShadow(shadow), NOW, DAY)
    with pytest.raises(ValueError, match="shadow"):
        replace(FIRST.route, shadow=shadow)  # type: ignore[type-var]


def test_owners_and_releases_are_respected() -> None:
    with pytest.raises(NotFound):
        decide(NONE, SetShadow(SHADOW), NOW, DAY)
    owned = after(FIRST, Conduct("jobs/flights/experiments/e", ((1, 10_000),), "jobs/flights/experiments/e", None))
    owned = replace(owned, route=replace(FIRST.route, owner="jobs/flights/experiments/e"))  # type: ignore[type-var]
    with pytest.raises(FailedPrecondition, match="owns the route"):
        decide(owned, SetShadow(SHADOW), NOW, DAY)
    over = changed(decide(owned, SetShadow(SHADOW, override_owner=True), NOW, DAY))
    assert over.route.owner == "jobs/flights/experiments/e"
    with pytest.raises(FailedPrecondition, match="turnout shadow stop"):
        decide(SHADOWED, Release(2), NOW, DAY)
    with pytest.raises(FailedPrecondition, match="retired"):
        decide(after(FIRST, Release(2)), SetShadow(SHADOW), NOW, DAY)


@pytest.mark.parametrize("state", [SHADOWED, SPLIT, MOVED])
def test_routes_keep_it_wherever_they_are_written(state: object) -> None:
    route: Route = state.route  # type: ignore[attr-defined]
    assert route_from_json(route.job, route_to_json(route)) == route
    assert committed_of(committed_message(Committed(1, "p", route))).route == route


@given(st.integers(0, 10_000))
def test_the_share_is_a_share_of_the_units_and_grows_by_keeping_those_it_had(share: int) -> None:
    units = [str(number) for number in range(300)]
    kept = {unit for unit in units if share and shadowed("j", Shadow(2, share), unit)}
    more = {unit for unit in units if shadowed("j", Shadow(2, 10_000), unit)}
    assert kept <= more == set(units)
    assert abs(len(kept) / len(units) - share / 10_000) < 0.15


def counts(**numbers: int) -> ShadowCounts:
    return ShadowCounts(**numbers, columns={"name": 3}, left_out={"BEHIND": 2})


def test_the_verdict_comes_with_its_numbers() -> None:
    found = report("j", (2, 1), 500, [counts(compared=40, equal=28, only_candidate_differs=12)], NOW)
    assert found.verdict is ShadowVerdict.DIFFERS
    assert found.sentence == (
        "v2 differs more often than v1 from itself: of 40 compared reads 12 differed in v2 alone and 0 in a second "
        f"read of v1 alone (evidence {found.e_value:.3g}, 20 decides); by column: name 3; 95.2 % of the sampled reads "
        "were compared (left out: BEHIND 2)."
    )
    noisy = report("j", (2, 1), None, [counts(compared=40, only_candidate_differs=12, only_active_differs=11)], NOW)
    assert noisy.verdict is ShadowVerdict.NOT_SHOWN
    assert "v2 is not shown to differ more often than v1 from itself" in noisy.sentence


def test_what_was_not_compared_is_said() -> None:
    assert report("j", (2, 1), 500, [], None).sentence.startswith("No read of v1 has been sampled yet")
    assert report("j", (2, 1), 500, [counts()], None).sentence == "None of 2 sampled reads could be compared: BEHIND 2."
    assert total([counts(compared=1), counts(compared=2)]).columns == {"name": 6}


@pytest.mark.parametrize(
    ("compared", "differing", "passed"),
    [(0, 0, False), (1, 0, True), (50, 0, True), (5000, 3, True), (5000, 900, False)],
)
def test_the_gate_passes_what_was_compared_and_is_not_shown_to_differ(
    compared: int, differing: int, passed: bool
) -> None:
    counts = ShadowCounts(compared=compared, only_candidate_differs=differing)
    said = report("flights", (2, 1), None, [counts], NOW)
    gate = shadow_gate("flights", 2, said, frozenset())
    assert (gate.gate, gate.version, gate.passed, gate.evidence) == ("shadow", 2, passed, (said.sentence,))
    assert shadow_gate("flights", 2, said, frozenset({"shadow"})).overridden == (not passed)


def test_the_gate_does_not_pass_what_nobody_has_compared() -> None:
    gate = shadow_gate("flights", 2, None, frozenset())
    assert not gate.passed
    assert "`turnout shadow set flights v2` begins" in gate.evidence[0]
