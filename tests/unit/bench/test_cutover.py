"""What the cutover benchmark holds to be wrong: a measurement that finds no fault must be able to."""

from collections import Counter

import numpy as np

from bench.cutover.reader import CLIENTS, spread
from bench.cutover.readings import failed, p99_ms, within, wrong
from bench.cutover.record import FAILED, RIGHT, WRONG, right
from bench.cutover.stage import FRONTS
from turnout.results import AppliedPosition, Cause, Read

KIND = [("due", "f8"), ("begun", "f8"), ("answered", "f8"), ("epoch", "i4"), ("version", "i4"), ("result", "i4")]
ACTIVE = {1: 1, 2: 2, 3: 1}
ADOPTED = [(10.0, 2), (20.0, 3)]


def reads(*rows: tuple[float, float, float, int, int, int]) -> "np.ndarray[object, object]":  # type: ignore[type-var]
    return np.array(list(rows), dtype=KIND)


def test_an_answer_by_the_epoch_of_its_time_is_right() -> None:
    told = reads((5, 5, 6, 1, 1, RIGHT), (9, 9, 11, 1, 1, RIGHT), (11, 11, 12, 2, 2, RIGHT), (19, 19, 21, 3, 1, RIGHT))
    assert wrong(told, ACTIVE, ADOPTED) == (0, [])


def test_every_kind_of_wrong_answer_is_counted_once() -> None:
    told = reads(
        (5, 5, 6, 1, 1, WRONG),  # not what its version makes of the log
        (5, 5, 6, 1, 2, RIGHT),  # not the version of its epoch
        (5, 5, 6, 9, 1, RIGHT),  # an epoch that was never committed
        (11, 11, 12, 1, 1, RIGHT),  # by an epoch that no front was to serve any more
        (11, 11, 12, 1, 2, WRONG),  # all of it
        (11, 11, 12, 0, 0, FAILED),  # no answer at all
    )
    count, words = wrong(told, ACTIVE, ADOPTED)
    assert (count, len(words), failed(told)) == (5, 3, 1)


def test_reads_count_from_when_they_were_due_in_the_spans() -> None:
    told = reads((1, 4, 5, 1, 1, RIGHT), (7, 7, 7.5, 1, 1, RIGHT))
    assert list(within(told, [(0, 2), (8, 9)])["due"]) == [1]
    assert p99_ms(told[:1]) == 4000


def test_a_row_is_held_against_the_position_of_its_partition() -> None:
    positions = (AppliedPosition("t", 0, 7, None), AppliedPosition("t", 1, 5, None))
    assert right(1, Read({"slot": 1, "total": 10}, 2, 4, positions, Cause.ROUTED))
    assert not right(1, Read({"slot": 1, "total": 10}, 1, 4, positions, Cause.ROUTED))
    assert not right(0, Read({"slot": 0, "total": 10}, 2, 4, positions, Cause.ROUTED))
    assert not right(2, Read(None, 2, 4, positions, Cause.ROUTED))


def test_the_clients_spread_evenly_over_the_fronts() -> None:
    fronts = [f"127.0.0.1:{port}" for port in range(1, FRONTS + 1)]
    liked = Counter(client._connections._places["query"].first(0.0) for client in spread(fronts))
    assert liked == dict.fromkeys(fronts, CLIENTS // FRONTS)
