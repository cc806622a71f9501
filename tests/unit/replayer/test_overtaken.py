"""Which queued runs may begin later because the log has lost their first records."""

from services.replayer.overtaken import lost, overtaken
from services.replayer.run import LogEnds, Sample
from services.replayer.states import State
from tests.unit.replayer.made import NOW, at, run, tp
from turnout.log_range import LogRange, PartitionOffset

ENDS = {tp(0): LogEnds(10, 100, 0.0), tp(1): LogEnds(0, 100, 0.0)}


def test_a_run_that_has_read_nothing_begins_where_the_log_does() -> None:
    assert lost(run(), {tp(0): at(5, start=5), tp(1): at(0)}, ENDS) == {tp(0): ENDS[tp(0)]}
    assert lost(run(), {tp(0): at(10, start=10), tp(2): at(0)}, ENDS) == {}


def test_a_run_that_has_begun_is_left_alone() -> None:
    assert lost(run(), {tp(0): at(5, start=5), tp(1): at(1)}, ENDS) == {}


def test_an_offset_that_the_version_names_does_not_move() -> None:
    named = run(log_range=LogRange(start_offsets=(PartitionOffset("flights", 0, 5),)))
    ends = {tp(0): LogEnds(10, 100, 0.0), tp(1): LogEnds(10, 100, 0.0)}
    assert lost(named, {tp(0): at(5, start=5), tp(1): at(0)}, ends) == {tp(1): ends[tp(1)]}


def test_a_bounded_range_begins_no_later_than_it_ends() -> None:
    assert lost(run(), {tp(0): at(5, start=5, until=7)}, ENDS) == {tp(0): LogEnds(7, 7, 0.0)}
    assert lost(run(), {tp(0): at(5, start=5, until=20)}, ENDS) == {tp(0): LogEnds(10, 20, 0.0)}
    assert lost(run(), {tp(0): at(7, start=7, until=7)}, ENDS) == {}  # there is nothing to lose


def test_only_queued_runs_move() -> None:
    runs = [run(number, state) for number, state in enumerate(State, 1)]
    positions = {one.version: {tp(0): at(0)} for one in runs}
    found = overtaken(Sample(0.0, NOW, {one.version: one for one in runs}, positions, ENDS))
    assert [one.state for one in found] == [State.QUEUED]
