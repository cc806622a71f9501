"""Runs as the contract carries them."""

from dataclasses import replace

import pytest

from services.replayer.convert import duration, gate_messages, run_message
from services.replayer.forecast import Forecast
from services.replayer.gates import Gate
from services.replayer.outlook import Outlook
from services.replayer.retention import Risk
from services.replayer.states import State
from tests.unit.replayer.made import NOW, at, definition, run, sample, tp
from turnout.replayer.v1 import run_pb2
from turnout.schema import Index


def test_durations() -> None:
    assert duration(None) is None
    told = duration(1.5)
    assert told is not None
    assert (told.seconds, told.nanos) == (1, 500_000_000)


def test_a_run_whose_log_is_not_known_yet_has_not_got_anywhere() -> None:
    made = run(2, State.QUEUED)
    for known in ([], [sample([], {})], [sample([(made, {0: at(0)})], {})]):
        message = run_message(made, known, "", Outlook())
        assert (message.progress, message.lag, message.records) == (0.0, 0, 0)


@pytest.mark.parametrize("state", list(State))
def test_every_state_has_its_name_in_the_contract(state: State) -> None:
    made = run(2, state, failure_message="why")
    message = run_message(made, [sample([(made, {0: at(60)})], {0: 100})], "waiting", Outlook())
    assert run_pb2.Run.State.Name(message.state) == state.value
    assert message.status_message == ("why" if state is State.FAILED else "waiting")
    assert (message.lag, message.progress, message.partitions[0].end_offset) == (40, 0.6, 100)


def test_workers_and_replicas_are_those_that_hold_partitions() -> None:
    owners = ["east:job-v2:0.1", "east:job-v2:0.1", "east:job-v2:1.1", "west:2:job-v2:0.3", ""]
    positions = {n: replace(at(1), owner=owner) for n, owner in enumerate(owners)}
    message = run_message(run(2), [sample([(run(2), positions)], {})], "", Outlook())
    assert (message.live_workers, message.live_replicas) == (3, 2)
    assert [p.owner for p in message.partitions] == owners


def test_all_figures_of_a_run() -> None:
    made = run(2, State.REPLAYING, worker_restarts=3, stuck_restarts=1, priority=7)
    position = replace(at(60, event_s=0.0), set_aside=2, rows_written=50, bytes_written=500, range_end=90)
    outlook = Outlook(Forecast(10.0, 8.0, 13.0), Risk(tp(), NOW, 5.0, "the log runs away"))
    message = run_message(made, [sample([(made, {0: position})], {0: 100})], "", outlook)
    assert (message.eta.seconds, message.eta_min.seconds, message.eta_max.seconds) == (10, 8, 13)
    assert (message.rows_written, message.bytes_written, message.records_set_aside) == (50, 500, 2)
    assert (message.worker_restarts, message.stuck_restarts, message.priority) == (3, 1, 7)
    assert message.event_time.ToDatetime(NOW.tzinfo) == NOW
    assert (message.retention_risk.topic, message.retention_risk.partition) == ("flights", 0)
    assert message.retention_risk.message == message.status_message == "the log runs away"
    [partition] = message.partitions
    assert (partition.range_end_offset, partition.records_set_aside, partition.rows_written) == (90, 2, 50)


def test_what_is_not_known_is_absent() -> None:
    made = run(2, State.REPLAYING)
    never = run_message(made, [sample([(made, {0: at(60)})], {0: 100})], "", Outlook(Forecast(never=True)))
    assert never.never_catches_up
    for field in ("eta", "eta_min", "eta_max", "retention_risk", "event_time", "throttle"):
        assert not never.HasField(field)
    assert not never.partitions[0].HasField("range_end_offset")
    assert "never catches up" in never.status_message


def test_an_eta_of_the_copy_says_that_indexes_are_not_in_it() -> None:
    indexed = run(2, State.REPLAYING, definition=definition(indexes=(Index(("flights",)),)), indexes_built=False)
    samples = [sample([(indexed, {0: at(60)})], {0: 100})]
    assert "not in the ETA" in run_message(indexed, samples, "", Outlook(Forecast(10.0, 8.0, 13.0))).status_message
    built = replace(indexed, indexes_built=True)
    assert run_message(built, samples, "", Outlook(Forecast(10.0, 8.0, 13.0))).status_message == ""


@pytest.mark.parametrize("state", [State.PAUSED, State.STOPPED])
def test_a_run_whose_workers_have_not_ended_yet_says_so(state: State) -> None:
    held = replace(at(60), owner="replica-1:punctuality-v2-0-1")
    made = run(state=state)
    left = run_message(made, [sample([(made, {0: held})], {0: 100})], "", Outlook())
    assert "workers that have not ended yet: 1;" in left.status_message
    gone = run_message(made, [sample([(made, {0: at(60)})], {0: 100})], "", Outlook())
    assert gone.status_message == ""


def test_the_evidence_of_gates_is_told_in_sentences() -> None:
    clauses = ("partition flights/0 is 7 offsets behind version 1", "the run has FAILED (X): The disk is full.")
    [told] = gate_messages([Gate("catch-up", False, clauses)])
    assert list(told.evidence) == [
        "Partition flights/0 is 7 offsets behind version 1.",
        "The run has FAILED (X): The disk is full.",
    ]
