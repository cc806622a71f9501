"""Tokens: nothing is read from before what was seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.errors import FailedPrecondition, InvalidInput
from turnout.query.v1.query_pb2 import ReadToken
from turnout.reading.positions import Position
from turnout.reading.tokens import (
    behind,
    carried_over,
    group_of,
    merged,
    parse_token,
    token_of,
    token_of_version,
)

Vector = dict[tuple[str, int], int]

VECTORS = st.dictionaries(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 4)), st.integers(0, 9))


def at(vector: Vector, ids: str = "1") -> list[Position]:
    return [Position(topic, f"{topic}{ids}", partition, offset, None) for (topic, partition), offset in vector.items()]


def parsed(raw: bytes) -> ReadToken:
    token = parse_token(raw, "j")
    assert token is not None
    return token


@given(VECTORS, VECTORS)
def test_behind_is_behind_in_some_partition_of_a_topic_that_is_read(seen: Vector, there: Vector) -> None:
    token = parsed(token_of("j", 1, at(seen)))
    read = {topic for topic, _ in there}
    late = any(there.get(place, 0) < offset for place, offset in seen.items() if place[0] in read or not read)
    assert bool(behind(token, at(there))) == late


@given(st.lists(VECTORS, min_size=1, max_size=4))
def test_a_session_of_answers_goes_up_only(answers: list[Vector]) -> None:
    seen: ReadToken | None = None
    highest: Vector = {}
    for epoch, vector in enumerate(answers):
        seen = parsed(token_of("j", epoch, at(vector), seen))
        for place, offset in vector.items():
            highest[place] = max(highest.get(place, 0), offset)
    assert seen is not None
    assert seen.epoch == len(answers) - 1
    assert behind(seen, at(highest)) == ""
    for place, offset in highest.items():
        if offset:
            assert behind(seen, at({**highest, place: offset - 1}))


def test_a_version_without_positions_is_behind_whoever_has_seen_one() -> None:
    assert behind(parsed(token_of("j", 1, at({("a", 0): 7}))), []).startswith("no position of it is recorded")
    assert not behind(parsed(token_of("j", 1, at({("a", 0): 0}))), [])


def test_an_epoch_that_was_seen_stays_seen() -> None:
    assert parsed(token_of("j", 2, [], parsed(token_of("j", 5, [])))).epoch == 5


def test_a_person_is_told_where_it_is_behind() -> None:
    token = parsed(token_of("j", 1, at({("a", 2): 7})))
    assert behind(token, at({("a", 2): 3})) == "a/2 is applied up to 3, and the token has seen 7"


def test_a_topic_that_was_made_anew() -> None:
    token = parsed(token_of("j", 1, at({("a", 0): 7})))
    with pytest.raises(FailedPrecondition) as caught:
        behind(token, at({("a", 0): 9}, ids="2"))
    assert caught.value.reason == "TOKEN_OF_ANOTHER_TOPIC"


def test_an_id_that_is_not_known_is_no_other() -> None:
    token = parsed(token_of("j", 1, at({("a", 0): 7})))
    assert behind(token, [Position("a", "", 0, 7, None)]) == ""
    unknown = parsed(token_of("j", 1, [Position("a", "", 0, 7, None)]))
    assert behind(unknown, at({("a", 0): 7})) == ""


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"\xff\xff", "it is none"),
        (token_of("other", 1, []), "it is of other"),
        (ReadToken(epoch=3).SerializeToString(), "it is of no job"),
    ],
)
def test_what_is_no_token_of_the_job_is_refused(raw: bytes, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        parse_token(raw, "j")


def test_no_token_is_none() -> None:
    assert parse_token(b"", "j") is None


@given(VECTORS, VECTORS, st.integers(0, 9), st.integers(0, 9))
def test_tokens_that_are_merged_have_seen_what_either_has(one: Vector, other: Vector, epoch: int, late: int) -> None:
    both = merged(token_of("j", epoch, at(one)), token_of("j", late, at(other)))
    highest = {place: max(one.get(place, 0), other.get(place, 0)) for place in one | other}
    assert parsed(both).epoch == max(epoch, late)
    assert behind(parsed(both), at(highest)) == ""
    for place, offset in highest.items():
        if offset:
            assert behind(parsed(both), at({**highest, place: offset - 1}))
    assert merged(both, token_of("j", late, at(other))) == both


def test_merging_with_nothing_changes_nothing() -> None:
    token = token_of("j", 3, at({("a", 0): 7}))
    assert merged(token, b"") == merged(b"", token) == token


def test_of_a_topic_made_anew_the_later_token_counts() -> None:
    old, new = token_of("j", 3, at({("a", 0): 700})), token_of("j", 4, at({("a", 0): 7}, ids="2"))
    assert behind(parsed(merged(old, new)), at({("a", 0): 7}, ids="2")) == ""


@given(VECTORS, VECTORS)
def test_a_version_of_a_batch_has_the_token_that_it_would_have_alone(mine: Vector, other: Vector) -> None:
    seen = token_of("j", 2, at({("b", 0): 5}))
    alone = token_of("j", 3, at(mine), parsed(seen))
    whole = token_of("j", 3, [*at(mine), *at(other)], parsed(seen))
    positions = [(topic, partition, offset) for (topic, partition), offset in mine.items()]
    assert token_of_version("j", 3, positions, whole, seen) == alone


@given(VECTORS, st.integers(0, 9), st.integers(0, 9))
def test_a_group_is_carried_over_to_another_job(seen: Vector, own: int, other: int) -> None:
    token = token_of("j", 3, at(seen), group=own)
    carried = parsed(carried_over(token, "j", other))
    assert carried.group == max(own, other)
    carried.group = own
    assert carried == parsed(token), "what was seen of the job's own log stays as it is"
    of_none = carried_over(b"", "j", other)
    assert (group_of(of_none), of_none == b"") == (other, other == 0)


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
def test_the_newest_group_stays(seen: int, answered: int, whole: int) -> None:
    before = token_of("j", 1, [], group=seen)
    assert parsed(token_of("j", 1, [], parsed(before), group=answered)).group == max(seen, answered)
    assert group_of(merged(before, token_of("j", 1, at({("a", 0): 1}), group=answered))) == max(seen, answered)
    assert group_of(token_of_version("j", 1, [], token_of("j", 1, [], group=whole), before)) == max(seen, whole)
