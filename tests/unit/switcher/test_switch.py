"""Every command in every state of a route."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.switcher.intervals import whole
from services.switcher.questions import GATES, GateQuestion
from services.switcher.switch import (
    Change,
    Command,
    Conduct,
    CutOver,
    MarkReinstated,
    MarkReleased,
    Nothing,
    Reinstate,
    Release,
    RequireGates,
    RollBack,
    SetTraffic,
    State,
    decide,
    etag_of,
)
from services.switcher.way_back import readiness
from turnout.errors import Aborted, FailedPrecondition, InvalidInput, NotFound, TurnoutError
from turnout.routing import WHOLE, Arm, Experiment, Route, Units

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def after(state: State, *commands: Command, at: datetime = NOW) -> State:
    """The state once the commands were carried out."""
    for command in commands:
        decision = decide(state, command, at, DAY)
        match decision:
            case Change():
                state = replace(
                    state,
                    route=decision.route,
                    way_back=decision.way_back,
                    protected_until=decision.protected_until,
                )
            case MarkReleased():
                state = replace(state, released=state.released | {decision.version})
            case MarkReinstated():
                state = replace(state, released=state.released - {decision.version})
    return state


NONE = State("flights")
FIRST = after(NONE, CutOver(1))  # v1 alone
SPLIT = after(FIRST, SetTraffic(((1, 9000), (2, 1000))))  # v1 active, v2 beside it
MOVED = after(SPLIT, CutOver(2))  # v2 active; the way back is the split, protected
BACK = after(MOVED, RollBack())  # the split again; no way back
LEFT = after(FIRST, CutOver(2), Release(1, forgo_rollback=True))  # v2 active, v1 released
STATES = {"none": NONE, "first": FIRST, "split": SPLIT, "moved": MOVED, "back": BACK, "left": LEFT}

COMMANDS: dict[str, Command] = {
    "v1=100": SetTraffic(((1, WHOLE),)),
    "v1=90 v2=10": SetTraffic(((2, 1000), (1, 9000))),
    "v2=100 v3=0": SetTraffic(((2, WHOLE), (3, 0))),
    "cut over v1": CutOver(1),
    "cut over v2": CutOver(2),
    "roll back": RollBack(),
    "release v1": Release(1),
    "release v1, forgo": Release(1, forgo_rollback=True),
    "release v2": Release(2),
    "release v9": Release(9),
    "reinstate v1": Reinstate(1),
}

# What becomes of each: the route's weights (and the gates asked, "v2/v1" = v2 against v1), or the error's reason.
EXPECTED = {
    "v1=100": {
        "none": "ROUTE_NOT_FOUND",
        "first": "nothing",
        "split": "1*=10000",
        "moved": "ACTIVE_VERSION_MISSING",
        "back": "1*=10000",
        "left": "ACTIVE_VERSION_MISSING",
    },
    "v1=90 v2=10": {
        "none": "ROUTE_NOT_FOUND",
        "first": "1*=9000 2=1000 asks 2/1",
        "split": "nothing",
        "moved": "1=9000 2*=1000 asks 1/2",
        "back": "nothing",
        "left": "VERSION_RELEASED",
    },
    "v2=100 v3=0": {
        "none": "ROUTE_NOT_FOUND",
        "first": "ACTIVE_VERSION_MISSING",
        "split": "ACTIVE_VERSION_MISSING",
        "moved": "nothing",
        "back": "ACTIVE_VERSION_MISSING",
        "left": "nothing",
    },
    "cut over v1": {
        "none": "1*=10000 asks 1/none",
        "first": "nothing",
        "split": "1*=10000",
        "moved": "1*=10000 asks 1/2",
        "back": "1*=10000",
        "left": "VERSION_RELEASED",
    },
    "cut over v2": {
        "none": "2*=10000 asks 2/none",
        "first": "2*=10000 asks 2/1",
        "split": "2*=10000 asks 2/1",
        "moved": "nothing",
        "back": "2*=10000 asks 2/1",
        "left": "nothing",
    },
    "roll back": {
        "none": "ROUTE_NOT_FOUND",
        "first": "NOTHING_TO_RETURN_TO",
        "split": "NOTHING_TO_RETURN_TO",
        "moved": "1*=9000 2=1000",
        "back": "NOTHING_TO_RETURN_TO",
        "left": "VERSION_RELEASED",
    },
    "release v1": {
        "none": "released",
        "first": "VERSION_IN_USE",
        "split": "VERSION_IN_USE",
        "moved": "ROLLBACK_WINDOW",
        "back": "VERSION_IN_USE",
        "left": "nothing",
    },
    "release v1, forgo": {
        "none": "released",
        "first": "VERSION_IN_USE",
        "split": "VERSION_IN_USE",
        "moved": "released",
        "back": "VERSION_IN_USE",
        "left": "nothing",
    },
    "release v2": {
        "none": "released",
        "first": "released",
        "split": "VERSION_IN_USE",
        "moved": "VERSION_IN_USE",
        "back": "VERSION_IN_USE",
        "left": "VERSION_IN_USE",
    },
    "release v9": dict.fromkeys(STATES, "released"),
    "reinstate v1": {**dict.fromkeys(STATES, "nothing"), "left": "reinstated"},
}


def routed(state: State) -> Route:
    assert state.route is not None
    return state.route


def weights_of(route: Route) -> str:
    star = {route.active_version: "*"}
    return " ".join(f"{arm.version}{star.get(arm.version, '')}={arm.weight}" for arm in route.arms)


def outcome(state: State, command: Command) -> str:
    try:
        decision = decide(state, command, NOW, DAY)
    except TurnoutError as error:
        return error.reason
    match decision:
        case Change():
            asked = ",".join(f"{gate.candidate}/{gate.baseline or 'none'}" for gate in decision.gates)
            return weights_of(decision.route) + (f" asks {asked}" if asked else "")
        case Nothing():
            return "nothing"
        case MarkReleased():
            return "released"
        case MarkReinstated():
            return "reinstated"


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_in_every_state(command: str, state: str) -> None:
    assert outcome(STATES[state], COMMANDS[command]) == EXPECTED[command][state]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("command", [COMMANDS["v1=90 v2=10"], CutOver(2), RollBack()])
def test_a_stale_etag_stops_every_change(command: SetTraffic | CutOver | RollBack, state: str) -> None:
    with pytest.raises(Aborted) as caught:
        decide(STATES[state], replace(command, etag=etag_of(99)), NOW, DAY)
    assert caught.value.reason == "STALE_ETAG"
    assert caught.value.metadata["etag"] == etag_of(STATES[state].epoch)


def test_the_present_etag_lets_a_change_pass() -> None:
    assert isinstance(decide(SPLIT, CutOver(2, etag=etag_of(SPLIT.epoch)), NOW, DAY), Change)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (((1, 9000), (2, 900)), "sum to 99 % instead of 100 %"),
        ((), "sum to 0 % instead of 100 %"),
        (((1, 5000), (1, 5000)), "v1 is named twice"),
        (((1, 10500), (2, -500)), "v1 has the weight 105 %; it must be"),
        (((2, -500), (1, 10500)), "v2 has the weight -5 %; it must be"),
    ],
)
def test_weights_that_cannot_be(weights: tuple[tuple[int, int], ...], said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        decide(SPLIT, SetTraffic(weights), NOW, DAY)
    assert caught.value.reason == "INVALID_WEIGHTS"


@pytest.mark.parametrize("command", [SetTraffic(((0, WHOLE),)), CutOver(0), CutOver(-1), Release(0)])
def test_a_number_that_no_version_has(command: Command) -> None:
    with pytest.raises(InvalidInput) as caught:
        decide(FIRST, command, NOW, DAY)
    assert caught.value.reason == "INVALID_VERSION"


@pytest.mark.parametrize("command", [CutOver(2), COMMANDS["v1=90 v2=10"]])
def test_only_known_gates_can_be_passed_over(command: SetTraffic | CutOver) -> None:
    with pytest.raises(InvalidInput, match="no gate 'luck'; the gates are catch-up, coverage, schema, comparison, "):
        decide(FIRST, replace(command, override_gates=("catch-up", "luck")), NOW, DAY)
    passed = decide(FIRST, replace(command, override_gates=("schema",)), NOW, DAY)
    assert isinstance(passed, Change)
    assert passed.overridden == {"schema"}
    assert passed.gates == (GateQuestion(2, 1),), "gates are asked all the same: the audit keeps the evidence"


def changed(state: State, command: Command) -> Change:
    decision = decide(state, command, NOW, DAY)
    assert isinstance(decision, Change)
    return decision


@pytest.mark.parametrize(
    ("weights", "asked"),
    [
        ({1: 9500, 2: 500}, ()),  # less
        ({1: WHOLE}, ()),
        ({1: 8999, 2: 1001}, (2,)),  # more, by the least that there is
        ({1: 5000, 2: 4000, 3: 1000}, (2, 3)),
        ({1: 8500, 2: 500, 3: 1000}, (3,)),  # one less, another one new
    ],
)
def test_gates_are_asked_at_every_growth_of_a_weight(weights: dict[int, int], asked: tuple[int, ...]) -> None:
    change = changed(SPLIT, SetTraffic(tuple(weights.items())))
    assert tuple(gate.candidate for gate in change.gates) == asked
    assert change.emergency == (not asked), "traffic back to the active version is the emergency exit"


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("command", COMMANDS)
def test_an_emergency_asks_no_gate(command: str, state: str) -> None:
    try:
        decision = decide(STATES[state], COMMANDS[command], NOW, DAY)
    except TurnoutError:
        return
    if isinstance(decision, Change):
        assert decision.emergency == (not decision.gates)


def test_a_cutover_must_be_able_to_come_back() -> None:
    cut = changed(SPLIT, CutOver(2))
    assert (cut.moves_on, cut.to_read_back) == (True, frozenset({1, 2}))
    assert changed(SPLIT, CutOver(2, override_gates=("rollback",))).to_read_back == frozenset()
    assert changed(NONE, CutOver(1)).to_read_back == frozenset(), "the first has nothing to come back to"
    for exit_ in (changed(MOVED, RollBack()), changed(MOVED, SetTraffic(((2, 9000), (3, 1000))))):
        assert (exit_.moves_on, exit_.to_read_back) == (False, frozenset())


def test_a_comparison_is_asked_where_it_is_demanded() -> None:
    for change in (
        changed(SPLIT, CutOver(2, require_gates=("comparison",))),
        changed(SPLIT, SetTraffic(((1, 8000), (2, 2000)), require_gates=("comparison",))),
    ):
        assert change.gates == (GateQuestion(2, 1, comparison=True),)
    assert changed(SPLIT, CutOver(2)).gates == (GateQuestion(2, 1),)
    first = changed(NONE, CutOver(1, require_gates=("comparison",)))
    assert first.gates == (GateQuestion(1, None),), "a first version is compared with nothing"
    with pytest.raises(InvalidInput, match="'schema' cannot be demanded"):
        decide(SPLIT, CutOver(2, require_gates=("schema",)), NOW, DAY)


def test_what_a_route_demands_is_asked_of_every_change() -> None:
    demanding = after(SPLIT, RequireGates(("shadow", "comparison", "shadow")))
    assert demanding.route == replace(SPLIT.route, epoch=SPLIT.epoch + 1, required_gates=("comparison", "shadow"))  # type: ignore[type-var]
    both = GateQuestion(2, 1, comparison=True, shadow=True)
    assert changed(demanding, CutOver(2)).gates == (both,)
    assert changed(demanding, SetTraffic(((1, 8000), (2, 2000)))).gates == (both,)
    assert changed(demanding, SetTraffic(((1, WHOLE),))).gates == (), "giving readers back asks nothing"
    assert changed(demanding, Conduct("", ((1, 8000), (2, 2000)), "", None)).gates == (both,)
    overridden = changed(demanding, CutOver(2, override_gates=("shadow",)))
    assert (overridden.gates, overridden.overridden) == ((both,), frozenset({"shadow"}))


def test_a_demand_changes_nothing_else_and_stays_until_it_is_taken_back() -> None:
    assert SPLIT.route is not None
    demand = changed(SPLIT, RequireGates(("comparison",)))
    assert (demand.gates, demand.emergency, demand.moves_on) == ((), False, False)
    moved = after(after(SPLIT, CutOver(2)), RequireGates(("comparison",)))
    assert moved.way_back is not None
    back = after(moved, RollBack())
    assert back.route == replace(SPLIT.route, epoch=moved.epoch + 1, required_gates=("comparison",))
    assert decide(back, RequireGates(("comparison",)), NOW, DAY) == Nothing()
    assert changed(back, RequireGates(())).route.required_gates == ()
    with pytest.raises(Aborted):
        decide(back, RequireGates((), etag="epoch-1"), NOW, DAY)
    with pytest.raises(NotFound):
        decide(NONE, RequireGates(("comparison",)), NOW, DAY)
    with pytest.raises(InvalidInput, match="'schema' cannot be demanded"):
        decide(SPLIT, RequireGates(("schema",)), NOW, DAY)


def test_a_rollback_restores_the_route_wholly() -> None:
    assert SPLIT.route is not None
    assert BACK.route == replace(SPLIT.route, epoch=SPLIT.epoch + 2)


def test_traffic_does_not_lose_the_way_back() -> None:
    trying = after(MOVED, SetTraffic(((2, 9000), (3, 1000))))
    assert trying.way_back == SPLIT.route
    given_up = after(trying, CutOver(2))
    assert given_up.way_back == SPLIT.route, "a cutover to the active version only gives up the split"
    assert after(given_up, RollBack()).route == replace(routed(SPLIT), epoch=given_up.epoch + 1)


def test_cut_over_again_after_a_rollback() -> None:
    again = after(BACK, CutOver(2))
    assert (weights_of(routed(again)), again.way_back) == ("2*=10000", BACK.route)


def test_the_way_back_is_protected_until_its_time() -> None:
    until = NOW + DAY
    assert MOVED.protected_until == until
    with pytest.raises(FailedPrecondition, match="2026-01-02 00:00:00 UTC") as caught:
        decide(MOVED, Release(1), until - timedelta(seconds=1), DAY)
    assert datetime.fromisoformat(caught.value.metadata["protected_until"]) == until
    assert decide(MOVED, Release(1), until, DAY) == MarkReleased(1)


def test_a_released_version_closes_the_way_back_until_it_is_reinstated() -> None:
    assert MOVED.open_way_back == SPLIT.route
    released = after(MOVED, Release(1, forgo_rollback=True))
    assert released.open_way_back is None
    assert after(released, Reinstate(1)).open_way_back == SPLIT.route


def test_an_active_version_may_have_no_weight() -> None:
    emptied = after(SPLIT, SetTraffic(((1, 0), (2, WHOLE))))
    assert emptied.route is not None
    assert emptied.route.arms == (Arm(1, 0), Arm(2, WHOLE))
    assert outcome(emptied, Release(1)) == "VERSION_IN_USE"
    back = decide(emptied, SetTraffic(((1, 5000), (2, 5000))), NOW, DAY)
    assert isinstance(back, Change)
    assert back.gates == (), "the active version needs no gate against itself"


def test_the_first_cutover_makes_the_first_epoch() -> None:
    assert FIRST.route == Route("flights", 1, 1, (Arm(1, WHOLE),), "jobs/flights/route", whole(1, 1))


any_command = st.one_of(
    st.builds(
        lambda part, other: SetTraffic(((1, part), (other, WHOLE - part))),
        st.integers(0, WHOLE),
        st.integers(2, 4),
    ),
    st.builds(CutOver, st.integers(1, 4)),
    st.just(RollBack()),
    st.builds(Release, st.integers(1, 4), st.booleans()),
    st.builds(Reinstate, st.integers(1, 4)),
)


@given(st.lists(any_command, max_size=25))
def test_whatever_is_commanded_no_route_names_a_released_version(commands: Sequence[Command]) -> None:
    state = NONE
    for command in commands:
        before = state
        try:
            state = after(state, command)
        except TurnoutError:
            assert state is before
        if state.route:
            assert not state.route.versions & state.released
            assert state.epoch - before.epoch in (0, 1)


def test_the_gates_have_an_order() -> None:
    assert GATES == ("catch-up", "coverage", "schema", "comparison", "shadow", "rollback")


class TestOwnedRoute:
    """An experiment's route is its own; whoever goes over its head says so, and what ends it is seen on the route."""

    NAME = "jobs/flights/experiments/e"
    EXPERIMENT = Experiment(NAME, 7, Units.CALLER, overrides=(("tester", 3),))
    START = Conduct(NAME, ((1, 9500), (2, 500), (3, 0)), NAME, EXPERIMENT)
    OWNED = after(FIRST, START)

    def test_it_starts_with_its_arms_also_those_of_testers_alone(self) -> None:
        route = self.OWNED.route
        assert route is not None
        assert route.owner == self.NAME
        assert route.experiment == self.EXPERIMENT
        assert route.arms == (Arm(1, 9500), Arm(2, 500), Arm(3, 0))
        change = decide(FIRST, self.START, NOW, DAY)
        assert isinstance(change, Change)
        assert change.gates == (GateQuestion(2, 1), GateQuestion(3, 1))

    @pytest.mark.parametrize(
        "command",
        [
            SetTraffic(((1, 5000), (2, 5000))),
            CutOver(2),
            CutOver(1),
            Conduct("jobs/flights/rollouts/r", ((1, 10_000),), "", None),
        ],
    )
    def test_others_are_refused(self, command: Command) -> None:
        with pytest.raises(FailedPrecondition, match="The experiment e owns the route of flights") as caught:
            decide(self.OWNED, command, NOW, DAY)
        assert caught.value.reason == "ROUTE_OWNED"
        assert caught.value.metadata == {"owner": self.NAME}
        assert "Stop it first (`turnout experiment stop flights e`)" in caught.value.message
        assert ("--override-owner" in caught.value.message) == (not isinstance(command, Conduct))

    def test_weights_among_its_arms_leave_it_running(self) -> None:
        moved = after(self.OWNED, SetTraffic(((1, 5000), (2, 5000)), override_owner=True)).route
        assert moved is not None
        assert moved.experiment == self.EXPERIMENT
        assert moved.weight(2) == 5000
        assert 3 in moved.versions  # for its testers

    @pytest.mark.parametrize(
        "command",
        [
            SetTraffic(((1, 5000), (4, 5000)), override_owner=True),
            CutOver(2, override_owner=True),
            CutOver(1, override_owner=True),
            Conduct(NAME, ((1, 10_000),), "", None),
        ],
    )
    def test_everything_else_ends_it(self, command: Command) -> None:
        route = after(self.OWNED, command).route
        assert route is not None
        assert route.owner == ""
        assert route.experiment is None
        assert all(arm.weight for arm in route.arms)

    def test_a_rollback_leads_back_to_the_control_alone(self) -> None:
        moved = after(self.OWNED, CutOver(2, override_owner=True))
        assert moved.way_back is not None
        assert (moved.way_back.owner, moved.way_back.experiment) == ("", None)
        assert moved.way_back.versions == {1}, "the other candidates need not be kept for it"
        back = after(moved, RollBack()).route
        assert back is not None
        assert (back.epoch, back.arms) == (4, (Arm(1, 10_000),))
        assert {interval.version for interval in back.intervals} == {1}

    def test_a_split_that_a_person_keeps_is_a_way_back(self) -> None:
        kept = after(self.OWNED, Conduct(self.NAME, ((1, 9500), (2, 500)), "", None))
        back = after(kept, CutOver(2), RollBack()).route
        assert back is not None
        assert back.arms == (Arm(1, 9500), Arm(2, 500))

    def test_a_rollback_needs_nobodys_leave_and_says_whose_head_it_goes_over(self) -> None:
        owned = after(MOVED, Conduct(self.NAME, ((2, 9500), (3, 500)), self.NAME, replace(self.EXPERIMENT)))
        told = "The experiment e owns the route no more after it, and ends."
        assert changed(owned, RollBack()).warnings == (told,)
        ready = readiness(owned, NOW, {}, None)
        assert (ready.problems, ready.warnings) == ((), (told,)), "nobody is alarmed by what is no problem"
        assert changed(MOVED, RollBack()).warnings == readiness(MOVED, NOW, {}, None).warnings == ()
        rollout = "jobs/flights/rollouts/r"
        owned = after(MOVED, Conduct(rollout, ((2, 9500), (3, 500)), rollout, None))
        told = "The rollout r owns the route no more after it, and"
        assert changed(owned, RollBack()).warnings == (f"{told} waits for a person.",)
        alone = after(FIRST, CutOver(2, owner=rollout))
        [or_else] = changed(alone, RollBack()).warnings
        assert or_else.startswith(f"{told} ends, or waits for a person where")
        route = after(owned, RollBack()).route
        assert route is not None
        assert route.active_version == 1
        assert route.experiment is None

    def test_an_aborted_candidate_takes_its_testers_with_it(self) -> None:
        without = Conduct(self.NAME, ((1, 9500), (2, 500)), self.NAME, replace(self.EXPERIMENT, overrides=()))
        route = after(self.OWNED, without).route
        assert route is not None
        assert route.versions == {1, 2}

    def test_what_it_has_already_changes_nothing(self) -> None:
        assert decide(self.OWNED, self.START, NOW, DAY) == Nothing()

    def test_a_salt_deals_all_units_anew(self) -> None:
        route = after(FIRST, replace(self.START, salt="another")).route
        assert route is not None
        assert route.salt == "another"

    def test_its_versions_are_not_released(self) -> None:
        for version in (1, 2, 3):
            with pytest.raises(FailedPrecondition):
                decide(self.OWNED, Release(version), NOW, DAY)
