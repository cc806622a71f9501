"""When a batch is written, and how a refused one is narrowed down."""

from hypothesis import given, settings
from hypothesis import strategies as st

from services.replayer.engine.batch import (
    AGE_MAX_S,
    BYTES_MAX,
    CHUNK_MAX,
    GATHER_MIN_S,
    POSITIONS_AGE_S,
    RECORDS_MAX,
    ROWS_MAX,
    ROWS_MIN,
    SET_ASIDE_MAX,
    Batch,
    DeadLetter,
    Narrowing,
    Span,
    Tempo,
    due,
    span_of,
)
from services.replayer.protocol import TopicPartition

TP = TopicPartition("t", 0)


def batch(records: int, *, moved: int | None = None, **fields: int) -> Batch:
    made = Batch(0.0, records=records, **fields)  # type: ignore[arg-type]
    made.spans[TP] = Span(100, 100 + (records if moved is None else moved), records)
    return made


def after(write_s: float) -> Tempo:
    """The tempo after a write that took so long."""
    return Tempo(10.0, write_s=write_s)


class TestDue:
    def test_nothing_to_commit_is_never_due(self) -> None:
        assert not due(batch(0), after(0.0), now_s=1e9, behind=False)
        assert not due(Batch(0.0), after(0.0), now_s=1e9, behind=False)

    def test_at_the_end_of_the_log_at_once(self) -> None:
        assert due(batch(1), after(100.0), now_s=0.0, behind=False)

    def test_positions_alone_within_a_second(self) -> None:
        moved = batch(0, moved=5)
        assert not due(moved, after(0.0), now_s=POSITIONS_AGE_S - 0.01, behind=False)
        assert due(moved, after(9.0), now_s=POSITIONS_AGE_S, behind=True)
        assert POSITIONS_AGE_S < 1.0

    def test_behind_it_gathers_as_long_as_a_write_takes(self) -> None:
        assert not due(batch(10, rows=10), after(0.4), now_s=0.39, behind=True)
        assert due(batch(10, rows=10), after(0.4), now_s=0.4, behind=True)
        assert not due(batch(10, rows=10), after(0.0), now_s=GATHER_MIN_S - 0.01, behind=True)

    def test_behind_it_gathers_as_long_as_it_may_where_that_means_writing_less(self) -> None:
        combined = batch(1_000, rows=900)
        assert not due(combined, after(0.0), now_s=AGE_MAX_S - 0.01, behind=True)
        assert due(combined, after(0.0), now_s=AGE_MAX_S, behind=True)
        assert due(combined, after(0.0), now_s=0.0, behind=False)

    def test_limits(self) -> None:
        assert due(batch(10), after(100.0), now_s=AGE_MAX_S, behind=True)
        for full in (batch(RECORDS_MAX), batch(1, rows=ROWS_MAX), batch(1, value_bytes=BYTES_MAX)):
            assert due(full, after(100.0), now_s=0.0, behind=True)
        letters = batch(SET_ASIDE_MAX)
        letters.dead_letters += [DeadLetter("t", 0, i, "", None, None) for i in range(SET_ASIDE_MAX)]
        assert due(letters, after(100.0), now_s=0.0, behind=True)


def test_a_span_begins_where_it_was_first_met() -> None:
    made = Batch(0.0)
    assert span_of(made, TP, 7) is span_of(made, TP, 9)
    assert made.spans[TP].start == 7
    assert not made.moved


class TestTempo:
    def test_grows_while_quick_and_shrinks_when_slow(self) -> None:
        tempo = Tempo(10.0)
        for _ in range(20):
            tempo.took(tempo.chunk, 0.001)
        assert tempo.chunk == CHUNK_MAX
        tempo.took(CHUNK_MAX, 1.0)
        assert tempo.chunk == 500
        assert not tempo.slow
        tempo.took(10, 5.0)
        assert tempo.chunk == 1
        assert tempo.slow

    def test_few_records_say_nothing(self) -> None:
        tempo = Tempo(10.0)
        before = tempo.chunk
        tempo.took(3, 0.0001)
        assert tempo.chunk == before

    def test_slow_writes_make_small_batches_and_quick_ones_big_ones_again(self) -> None:
        tempo = Tempo(10.0, rows_max=ROWS_MAX)
        tempo.wrote(ROWS_MAX, 2.0)
        assert tempo.rows_max == ROWS_MAX // 2
        assert tempo.write_s == 2.0
        for _ in range(30):
            tempo.wrote(tempo.rows_max, 2.0)
        assert tempo.rows_max == ROWS_MIN
        tempo.wrote(tempo.rows_max, 1.0)
        assert tempo.rows_max == ROWS_MIN
        for _ in range(30):
            tempo.wrote(tempo.rows_max, 0.1)
        assert tempo.rows_max == ROWS_MAX

    def test_batches_begin_small_and_double_until_a_write_is_slow(self) -> None:
        tempo = Tempo(10.0)
        for batches in range(1, 7):
            tempo.wrote(tempo.rows_max, 0.1)
            assert tempo.rows_max == ROWS_MIN * 2**batches
        tempo.wrote(tempo.rows_max, 0.1)
        assert tempo.rows_max == ROWS_MAX
        tempo.wrote(tempo.rows_max, 2.0)
        tempo.wrote(tempo.rows_max, 0.1)
        assert tempo.rows_max == ROWS_MAX // 2 * 5 // 4

    def test_writes_that_are_cut_make_smaller_batches_until_one_gets_through(self) -> None:
        tempo = Tempo(10.0, rows_max=ROWS_MAX)
        for cut in range(1, 5):
            tempo.wrote(tempo.rows_max, 60.0, written=False)
            assert tempo.rows_max == ROWS_MAX >> cut

    def test_a_write_that_fails_at_once_says_nothing_of_its_size(self) -> None:
        tempo = Tempo(10.0)
        tempo.wrote(tempo.rows_max, 0.01, written=False)
        assert tempo.rows_max == ROWS_MIN

    def test_small_batches_say_nothing_of_large_ones(self) -> None:
        tempo = Tempo(10.0)
        for _ in range(100):
            tempo.wrote(10, 0.001)
        assert tempo.rows_max == ROWS_MIN


class _Log:
    """A log read the way the flow does, and a table that refuses any batch with a bad record in it."""

    def __init__(
        self,
        bad: dict[TopicPartition, set[int]],
        ends: dict[TopicPartition, int],
        batch_max: int,
        one_by_one: dict[TopicPartition, int] | None = None,
    ) -> None:
        self.bad, self.ends, self.batch_max = bad, ends, batch_max
        self.at = dict.fromkeys(ends, 0)
        self.narrowing = Narrowing(one_by_one)
        self.set_aside: list[tuple[TopicPartition, int]] = []
        self.batches: list[int] = []

    def run(self) -> None:
        while readable := [tp for tp, end in self.ends.items() if self.at[tp] < end]:
            alone = self.narrowing.next(readable)
            left = self.batch_max if alone is None else alone[1]
            spans: dict[TopicPartition, Span] = {}
            for tp in readable if alone is None else [alone[0]]:
                records = min(left, self.ends[tp] - self.at[tp])
                left -= records
                if records:
                    spans[tp] = Span(self.at[tp], self.at[tp] + records, records)
            self.write(spans)

    def write(self, spans: dict[TopicPartition, Span]) -> None:
        records = sum(span.records for span in spans.values())
        self.batches.append(records)
        refused = [
            (tp, offset)
            for tp, span in spans.items()
            for offset in self.bad.get(tp, ())
            if span.start <= offset < span.next_offset
        ]
        if refused and records > 1:
            self.narrowing.refused(spans)
            return
        for tp, offset in refused:
            self.set_aside.append((tp, offset))
            spans[tp].set_aside = 1
        for tp, span in spans.items():
            self.at[tp] = span.next_offset
            self.narrowing.written(tp, span)


LOGS = st.dictionaries(
    st.builds(TopicPartition, st.just("t"), st.integers(0, 3)),
    st.tuples(st.integers(1, 3_000), st.sets(st.integers(0, 2_999), max_size=6)),
    min_size=1,
    max_size=4,
)


class TestNarrowing:
    @settings(max_examples=200)
    @given(logs=LOGS, batch_max=st.integers(1, 2_000))
    def test_finds_exactly_the_bad_records(
        self, logs: dict[TopicPartition, tuple[int, set[int]]], batch_max: int
    ) -> None:
        bad = {tp: {offset for offset in offsets if offset < end} for tp, (end, offsets) in logs.items()}
        log = _Log(bad, {tp: end for tp, (end, _) in logs.items()}, batch_max)
        log.run()
        assert sorted(log.set_aside) == sorted((tp, offset) for tp, offsets in bad.items() for offset in offsets)

    def test_one_bad_record_in_a_full_batch_costs_few_batches(self) -> None:
        log = _Log({TP: {123_456}}, {TP: RECORDS_MAX}, RECORDS_MAX)
        log.run()
        assert len(log.batches) < 60
        assert sum(log.batches) < 4 * RECORDS_MAX

    def test_other_partitions_go_on_once_it_is_found(self) -> None:
        other = TopicPartition("t", 1)
        log = _Log({TP: {5}}, {TP: 1_000, other: 1_000}, 600)
        log.run()
        assert log.at == {TP: 1_000, other: 1_000}
        assert log.set_aside == [(TP, 5)]

    def test_one_by_one_until_a_batch_would_be_over(self) -> None:
        log = _Log({TP: {3}}, {TP: 50}, 1_000, one_by_one={TP: 1_000_000})
        log.run()
        assert set(log.batches) == {1}
        assert log.set_aside == [(TP, 3)]
        narrowing = Narrowing({TP: RECORDS_MAX * 2})
        for offset in range(RECORDS_MAX):
            assert narrowing.next([TP]) == (TP, 1)
            narrowing.written(TP, Span(offset, offset + 1, 1))
        assert narrowing.next([TP]) is None

    def test_one_by_one_until_the_offset_given(self) -> None:
        other = TopicPartition("t", 1)
        narrowing = Narrowing({TP: 8, other: 8}, {(TP, 7): "died"})
        assert (narrowing.deadly(TP, 7), narrowing.deadly(TP, 8), narrowing.deadly(other, 7)) == ("died", None, None)
        narrowing.written(TP, Span(5, 6, 1))
        assert narrowing.alone(TP)
        narrowing.written(TP, Span(6, 8, 1, set_aside=1))
        assert not narrowing.alone(TP)
        assert narrowing.alone(other)

    def test_a_partition_with_nothing_to_read_holds_nothing_up(self) -> None:
        other = TopicPartition("t", 1)
        narrowing = Narrowing({TP: RECORDS_MAX * 2})
        narrowing.refused({TP: Span(0, 100, 100)})
        assert narrowing.next([other]) is None
        assert narrowing.next([other, TP]) == (TP, 1)
