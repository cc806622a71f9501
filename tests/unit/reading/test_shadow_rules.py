"""When rows of two versions may be compared: two tables of equal code never look different, wherever they stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.reading.shadow_rules import Judgement, LastChange, Seen, Vector, difference, judged, passed

PARTITIONS = (0, 1)


@dataclass(frozen=True)
class Log:
    """Records of two partitions; each is of the key that is looked at, with its value, or of another one (None)."""

    records: tuple[tuple[int | None, ...], tuple[int | None, ...]]

    def mapped(self, at: tuple[int, int]) -> Seen:
        """The row of a map: the newest record of the first partition, with its last change; 0 deletes it."""
        ours = [(offset, value) for offset, value in enumerate(self.records[0][: at[0]]) if value is not None]
        if not ours or ours[-1][1] == 0:
            return Seen(None, vector(at))
        offset, value = ours[-1]
        return Seen({"value": value}, vector(at), LastChange("", 0, offset))

    def summed(self, at: tuple[int, int]) -> Seen:
        """The row of an aggregate: how many there are."""
        count = sum(one is not None for partition in PARTITIONS for one in self.records[partition][: at[partition]])
        return Seen({"count": count} if count else None, vector(at))


def vector(at: tuple[int, int]) -> Vector:
    return {("t", "", partition): at[partition] for partition in PARTITIONS}


records = st.lists(st.none() | st.integers(0, 3), max_size=12).map(tuple)
logs = st.tuples(records, records).map(Log)


@st.composite
def reads(draw: st.DrawFn) -> tuple[Log, tuple[int, int], tuple[int, int], tuple[int, int]]:
    """A log; where the active version stood when it answered, the candidate then, and the active version again."""
    log = draw(logs)
    ends = [st.integers(0, len(log.records[partition])) for partition in PARTITIONS]
    answered, candidate, other = (draw(st.tuples(*ends)) for _ in range(3))
    again = max(answered[0], other[0]), max(answered[1], other[1])
    return log, answered, candidate, again


@given(reads())
def test_a_map_of_equal_code_is_never_found_to_differ_alone(read: Any) -> None:
    log, *places = read
    answered, candidate, again = (log.mapped(at) for at in places)
    answered = Seen(answered.row, answered.at)  # what readers get has no hidden columns
    if judged(answered, candidate, again) is Judgement.COMPARE:
        found = difference(answered.row, candidate.row, again.row)
        assert not found.differs or found.active_differs


@given(reads())
def test_a_count_of_equal_code_is_never_found_to_differ_alone(read: Any) -> None:
    log, *places = read
    answered, candidate, again = (log.summed(at) for at in places)
    if judged(answered, candidate, again) is Judgement.COMPARE:
        found = difference(answered.row, candidate.row, again.row)
        assert not found.differs or found.active_differs


@given(reads())
def test_a_row_whose_last_change_both_have_applied_is_compared_wherever_the_tables_stand(read: Any) -> None:
    log, *places = read
    answered, candidate, again = (log.mapped(at) for at in places)
    changes = {one.change for one in (answered, candidate, again)}
    if len(changes) == 1 and None not in changes:
        assert judged(Seen(answered.row, answered.at), candidate, again) is Judgement.COMPARE


@given(reads())
def test_tables_that_have_passed_one_another_are_compared_or_the_row_has_changed(read: Any) -> None:
    log, *places = read
    for seen in (log.mapped, log.summed):
        answered, candidate, again = (seen(at) for at in places)
        if passed(candidate.at, answered.at) and passed(again.at, candidate.at):
            assert judged(Seen(answered.row, answered.at), candidate, again) is not Judgement.WAIT


@pytest.mark.parametrize(
    ("one", "other", "columns"),
    [
        ({"a": 1, "b": "x"}, {"a": 1, "b": "x"}, ()),
        ({"a": 1, "b": "x"}, {"a": 2, "b": "x"}, ("a",)),
        ({"a": 0.1 + 0.2}, {"a": 0.3}, ()),
        ({"a": 1.0}, {"a": 1.001}, ("a",)),
        ({"a": float("nan")}, {"a": float("nan")}, ()),
        ({"a": None}, {"a": 0}, ("a",)),
        ({"a": 1, "gone": 1}, {"a": 1, "new": 2}, ()),
    ],
)
def test_columns_that_both_have_are_held_against_each_other(
    one: dict[str, Any], other: dict[str, Any], columns: tuple[str, ...]
) -> None:
    found = difference(one, other, one)
    assert (found.columns, found.differs, found.active_differs) == (columns, bool(columns), False)


def test_a_row_that_one_alone_has_differs() -> None:
    lost, new = difference({"a": 1}, None, {"a": 1}), difference(None, {"a": 1}, None)
    assert (lost.differs, lost.only_active, lost.only_candidate) == (True, True, False)
    assert (new.differs, new.only_active, new.only_candidate) == (True, False, True)
    assert not difference(None, None, None).differs


def test_the_last_change_counts_in_its_own_topic() -> None:
    at = {("a", "", 0): 10, ("b", "", 0): 3}
    change = LastChange("b", 0, 5)
    assert judged(Seen({}, at), Seen({}, at, change), Seen({}, at, change)) is Judgement.CHANGED
