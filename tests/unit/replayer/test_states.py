"""The state machine of a run, exhaustively: every state by every command and event by every fact."""

import itertools

import pytest

from services.replayer.states import (
    TRANSITIONS,
    Command,
    Event,
    Facts,
    IllegalCommandError,
    State,
    after,
)

HAPPENINGS: tuple[Command | Event, ...] = (*Command, *Event)
FACTS = [Facts(table_exists=a, indexes_built=b) for a, b in itertools.product((False, True), repeat=2)]

# What a reader of the documentation expects, written independently of the table: rows are states, columns happenings.
# "." = nothing changes, "x" = refused.
EXPECTED = """
            PAUSE    RESUME    STOP     ADMITTED   CAUGHT_UP  COMPLETED  FAULT
QUEUED      PAUSED   .         STOPPED  REPLAYING  .          .          FAILED
REPLAYING   PAUSED   .         STOPPED  .          TAILING    COMPLETED  FAILED
TAILING     PAUSED   .         STOPPED  .          .          .          FAILED
PAUSED      .        QUEUED    STOPPED  .          .          .          FAILED
STOPPED     x        QUEUED    .        .          .          .          .
FAILED      x        QUEUED    STOPPED  .          .          .          .
COMPLETED   x        x         .        .          .          .          .
"""


def _expected() -> dict[tuple[State, Command | Event], str]:
    lines = [line.split() for line in EXPECTED.strip().splitlines()]
    columns = [h for name in lines[0] for h in HAPPENINGS if h.name == name]
    return {
        (State[row[0]], happening): outcome
        for row in lines[1:]
        for happening, outcome in zip(columns, row[1:], strict=True)
    }


@pytest.mark.parametrize(("state", "happening"), list(itertools.product(State, HAPPENINGS)))
def test_every_state_by_every_happening(state: State, happening: Command | Event) -> None:
    outcome = _expected()[state, happening]
    if outcome == "x":
        with pytest.raises(IllegalCommandError, match=state.value):
            after(state, happening, Facts())
    else:
        assert after(state, happening, Facts()) is (state if outcome == "." else State[outcome])


@pytest.mark.parametrize(("state", "happening", "facts"), list(itertools.product(State, Event, FACTS)))
def test_an_event_is_never_refused(state: State, happening: Event, facts: Facts) -> None:
    assert after(state, happening, facts) in State


@pytest.mark.parametrize("state", list(State))
def test_a_dropped_table_is_never_written_again(state: State) -> None:
    if state in (State.QUEUED, State.REPLAYING, State.TAILING):
        return  # DropTable refuses while a run goes on or waits for its copy
    with pytest.raises(IllegalCommandError, match="dropped"):
        after(state, Command.RESUME, Facts(table_exists=False))


def test_a_run_does_not_tail_before_its_indexes_are_built() -> None:
    assert after(State.REPLAYING, Event.CAUGHT_UP, Facts(indexes_built=False)) is State.REPLAYING


def test_nor_does_it_complete() -> None:
    assert after(State.REPLAYING, Event.COMPLETED, Facts(indexes_built=False)) is State.REPLAYING


def test_a_refusal_says_what_to_do() -> None:
    with pytest.raises(IllegalCommandError, match="STOPPED cannot pause; resume it first"):
        after(State.STOPPED, Command.PAUSE, Facts())
    with pytest.raises(
        IllegalCommandError, match=r"COMPLETED cannot resume; it has read the whole range .* new version"
    ):
        after(State.COMPLETED, Command.RESUME, Facts())


def test_only_a_person_takes_a_run_out_of_the_states_without_workers() -> None:
    for (state, happening), (_, to) in TRANSITIONS.items():
        if not state.wants_workers and to.wants_workers:
            assert (state, happening) == (State.QUEUED, Event.ADMITTED)
        if state in (State.PAUSED, State.STOPPED, State.FAILED) and to is State.QUEUED:
            assert happening is Command.RESUME


def test_a_copy_under_way_is_never_sent_back() -> None:
    assert not [
        key for key, (_, to) in TRANSITIONS.items() if to is State.QUEUED and key[0] in (State.REPLAYING, State.TAILING)
    ]
