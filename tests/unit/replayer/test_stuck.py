"""Alive but stuck: what adds up to it, and everything that only looks like it."""

from __future__ import annotations

from services.replayer.protocol import PartitionState
from services.replayer.stuck import STANDS_MIN_S, Standstill, allowed_s, excuses, is_stuck, write_allowed_s


def state(partition: int, offset: int, end: int = 1000) -> PartitionState:
    return PartitionState(
        topic="flights",
        partition=partition,
        next_offset=offset,
        end_offset=end,
        log_start=0,
        event_time_ms=None,
        records=offset,
        set_aside=0,
        at_end=offset >= end,
    )


def told(*messages: tuple[float, list[PartitionState]]) -> Standstill:
    made = Standstill()
    for at_s, states in messages:
        made.told(states, at_s)
    return made


def test_standing_still_with_records_ahead_adds_up() -> None:
    assert told(*[(n / 4, [state(0, 7), state(1, 8)]) for n in range(41)]).lasts_s() == 10.0


def test_a_move_begins_it_anew() -> None:
    messages = [(n / 4, [state(0, 7)]) for n in range(41)]
    assert told(*messages, (10.25, [state(0, 8)])).lasts_s() == 0.0
    assert told(*messages, (10.25, [state(0, 8)]), (10.5, [state(0, 8)])).lasts_s() == 0.25


def test_at_the_end_nobody_is_stuck() -> None:
    assert told(*[(n / 4, [state(0, 1000), state(1, 1000)]) for n in range(41)]).lasts_s() == 0.0


def test_records_that_come_begin_it() -> None:
    idle = [(n / 4, [state(0, 1000)]) for n in range(400)]
    assert told(*idle, (100.0, [state(0, 1000, 1001)])).lasts_s() == 0.25


def test_a_partition_waits_its_turn_while_another_is_on_its_way() -> None:
    messages = [(n / 4, [state(0, 7), state(1, 8 + n)]) for n in range(400)]
    assert told(*messages).lasts_s() == 0.0
    over = [(100 + n / 4, [state(0, 7), state(1, 1000)]) for n in range(5)]
    assert told(*messages, *over).lasts_s() == 1.25  # since the other one has come to its end, and no longer


def test_a_tail_that_keeps_up_does_not_speak_for_a_partition_that_does_not() -> None:
    assert told(*[(n / 4, [state(0, 7), state(1, 1000 + n, 1000 + n)]) for n in range(121)]).lasts_s() == 30.0


def test_a_busy_tail_that_is_often_a_little_behind_does_not_speak_for_it_either() -> None:
    messages = []
    for n in range(4001):
        offset = 1000 + 1250 * n
        behind = 400 if n % 10 == 3 else 0  # level in nine messages of ten, and it moves in all of them
        messages.append((n / 4, [state(0, 7), state(1, offset, offset + behind)]))
    assert told(*messages).lasts_s() > 990.0


def test_a_tail_that_is_mostly_behind_and_never_for_long_does_not_either() -> None:
    messages = []
    for n in range(401):
        offset = 1000 + 1250 * n
        messages.append((n / 4, [state(0, 7), state(1, offset, offset + (0 if n % 10 == 0 else 400))]))
    assert told(*messages).lasts_s() > 90.0


def test_each_partition_has_a_count_of_its_own() -> None:
    messages = [(n / 4, [state(0, 7), state(1, 8 + n // 40), state(2, 1000)]) for n in range(100)]
    assert told(*messages).lasts_s() == 4.75  # 1 moves every 10 s, the last time in message 80, and is on its way
    messages = [(n / 4, [state(0, 7), state(1, 8 if n > 200 else 1000)]) for n in range(300)]
    assert told(*messages).lasts_s() == 74.75  # that one more stands still takes nothing back


def test_time_in_which_it_said_nothing_does_not_count() -> None:
    """Its event loop is in the job's function, which has a watchdog of its own."""
    assert told((0.0, [state(0, 7)]), (500.0, [state(0, 7)])).lasts_s() == 1.0


def test_what_it_waits_for_is_excused() -> None:
    made = told(*[(n / 4, [state(0, 7)]) for n in range(41)])
    made.excused()
    assert made.lasts_s() == 0.0
    made.told([state(0, 7)], 20.0)
    made.told([state(0, 7)], 20.25)
    assert made.lasts_s() == 0.25


def test_what_is_there_is_waited_for_only_so_long() -> None:
    made = Standstill()  # holds nothing yet, and never will
    for n in range(41):
        made.waits(n / 4)
    assert made.lasts_s() == 10.0
    made.told([state(0, 7)], 10.25)
    made.told([state(0, 7)], 10.5)
    made.waits(10.75)
    assert made.lasts_s() == 0.5  # connected again with a position, which is new, and from then on still
    made.told([state(0, 7)], 11.0)
    assert made.lasts_s() == 0.75
    made.told([state(0, 9)], 11.25)
    assert made.lasts_s() == 0.0
    made.waits(11.5)
    made.told([state(0, 1000)], 11.75)
    assert made.lasts_s() == 0.0


def test_kafka_and_postgresql_are_away_where_the_replayer_says_so_too() -> None:
    for away in (False, True):
        assert excuses("KAFKA_UNAVAILABLE", kafka_away=away, postgres_away=not away) is away
        assert excuses("POSTGRES_UNAVAILABLE", kafka_away=not away, postgres_away=away) is away
        assert excuses("LEASE_HELD", kafka_away=away, postgres_away=away)


def test_a_partition_just_taken_over_has_not_stood_still() -> None:
    assert told((0.0, [state(0, 7)]), (0.25, [state(0, 7), state(1, 3)])).lasts_s() == 0.0
    assert told((0.0, []), (0.25, [])).lasts_s() == 0.0


def test_how_long_is_allowed() -> None:
    assert allowed_s(1.0, None, 4) == STANDS_MIN_S
    assert allowed_s(20.0, None, 4) == 60.0
    assert allowed_s(1.0, 0.05, 2) == 120.0  # a record every 20 s, for two partitions
    assert allowed_s(1.0, 1e6, 2) == STANDS_MIN_S
    assert allowed_s(1.0, 0.0, 2) == STANDS_MIN_S  # where it is excused anyway


def test_a_commit_is_given_its_time_and_no_more() -> None:
    assert not is_stuck(30.0, 30.0, 10.0, writes=False)
    assert is_stuck(30.1, 30.0, 10.0, writes=False)
    assert not is_stuck(30.1, 30.0, 10.0, writes=True)
    assert is_stuck(30.1 + write_allowed_s(10.0), 30.0, 10.0, writes=True)
