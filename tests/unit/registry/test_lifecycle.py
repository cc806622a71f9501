"""The life of a version, every state with every event."""

import itertools

import pytest

from services.registry.lifecycle import TRANSITIONS, Event, State, after
from turnout.errors import FailedPrecondition
from turnout.registry.v1 import registry_pb2


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_pair_is_in_the_table_or_refused(state: State, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        assert after(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(FailedPrecondition) as refused:
            after(state, event)
        assert refused.value.reason == "ILLEGAL_TRANSITION"


def test_dropped_is_final() -> None:
    assert not [pair for pair in TRANSITIONS if pair[0] is State.DROPPED]


def test_only_a_retired_version_is_dropped() -> None:
    assert [pair for pair, to in TRANSITIONS.items() if to is State.DROPPED] == [(State.RETIRED, Event.TABLE_DROPPED)]


def test_every_state_is_reached() -> None:
    reached = {State.REGISTERED}
    for _ in State:
        reached |= {to for (state, _), to in TRANSITIONS.items() if state in reached}
    assert reached == set(State)


def test_names_are_those_of_the_contract() -> None:
    assert {state.value for state in State} | {"STATE_UNSPECIFIED"} == set(registry_pb2.Version.State.keys())
