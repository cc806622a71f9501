"""Runs as the contract carries them."""

from dataclasses import replace

import pytest

from services.replayer.convert import duration, run_message
from services.replayer.states import State
from tests.unit.replayer.made import at, run, sample
from turnout.replayer.v1 import replayer_pb2 as replayer


def test_durations() -> None:
    assert duration(None) is None
    told = duration(1.5)
    assert told is not None
    assert (told.seconds, told.nanos) == (1, 500_000_000)


def test_a_run_whose_log_is_not_known_yet_has_not_got_anywhere() -> None:
    made = run(2, State.QUEUED)
    for known in ([], [sample([], {})], [sample([(made, {0: at(0)})], {})]):
        message = run_message(made, known, "")
        assert (message.progress, message.lag, message.records) == (0.0, 0, 0)


@pytest.mark.parametrize("state", list(State))
def test_every_state_has_its_name_in_the_contract(state: State) -> None:
    made = run(2, state, failure_message="why")
    message = run_message(made, [sample([(made, {0: at(60)})], {0: 100})], "waiting")
    assert replayer.Run.State.Name(message.state) == state.value
    assert message.status_message == ("why" if state is State.FAILED else "waiting")
    assert (message.lag, message.progress, message.partitions[0].end_offset) == (40, 0.6, 100)


def test_workers_and_replicas_are_those_that_hold_partitions() -> None:
    owners = ["east:job-v2:0.1", "east:job-v2:0.1", "east:job-v2:1.1", "west:2:job-v2:0.3", ""]
    positions = {n: replace(at(1), owner=owner) for n, owner in enumerate(owners)}
    message = run_message(run(2), [sample([(run(2), positions)], {})], "")
    assert (message.live_workers, message.live_replicas) == (3, 2)
    assert [p.owner for p in message.partitions] == owners
