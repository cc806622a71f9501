"""Tokens of answers: what a reader has seen of the log, so that nothing that it reads later is from before. Pure.

A token holds the newest epoch and the highest position of each partition that its reader has seen. A version satisfies
it when its positions are nowhere behind. Only partitions of topics that the version reads count: a version that reads
other topics has nothing to say about those. One without any positions has not shown that it has come anywhere.

It also holds the newest *group* that its reader has seen: routes of several jobs that were committed in one step. That
is carried over to the reads of other jobs, whose routes must then be from after that step, too.
"""

from collections.abc import Iterable, Sequence
from itertools import zip_longest

from google.protobuf.message import DecodeError

from turnout.errors import FailedPrecondition, InvalidInput
from turnout.query.v1.query_pb2 import ReadToken
from turnout.reading.positions import Position

PARTITION_MAX = 100_000  # a token with a partition above it is nobody's


def token_of(
    job: str, epoch: int, positions: Sequence[Position], seen: ReadToken | None = None, *, group: int = 0
) -> bytes:
    """The token of an answer at those positions, by a route of that epoch and group. seen: that of the request, which
    it goes on from."""
    token = ReadToken(job=job, epoch=epoch, group=group)
    if seen is not None:
        token.epoch, token.group = max(epoch, seen.epoch), max(group, seen.group)
    topics: dict[str, ReadToken.TopicPositions] = {}
    for one in seen.topics if seen is not None else ():
        topics[one.topic] = token.topics.add()
        topics[one.topic].CopyFrom(one)
    for position in positions:
        told = topics.get(position.topic)
        if told is None:
            told = topics[position.topic] = token.topics.add(topic=position.topic)
        told.topic_id = position.topic_id or told.topic_id
        missing = position.partition + 1 - len(told.next_offsets)
        if missing > 0:
            told.next_offsets.extend([0] * missing)
        told.next_offsets[position.partition] = max(told.next_offsets[position.partition], position.next_offset)
    return token.SerializeToString(deterministic=True)


def merged(one: bytes, other: bytes) -> bytes:
    """The token of a reader who has seen what both tokens tell; both are of one job, or empty.

    Of a topic that was made anew between the two, what `other` tells.
    """
    if not one or not other or one == other:
        return other or one
    token, late = ReadToken.FromString(one), ReadToken.FromString(other)
    token.epoch, token.group = max(token.epoch, late.epoch), max(token.group, late.group)
    topics = {told.topic: told for told in token.topics}
    for told in late.topics:
        known = topics.get(told.topic)
        if known is None:
            token.topics.add().CopyFrom(told)
        elif told.topic_id and known.topic_id and told.topic_id != known.topic_id:
            known.CopyFrom(told)
        else:
            known.topic_id = told.topic_id or known.topic_id
            offsets = [max(pair) for pair in zip_longest(known.next_offsets, told.next_offsets, fillvalue=0)]
            known.next_offsets[:] = offsets
    return token.SerializeToString(deterministic=True)


def token_of_version(
    job: str, epoch: int, positions: Iterable[tuple[str, int, int]], answer: bytes, seen: bytes
) -> bytes:
    """The token of what one version answered in a batch of several; positions: (topic, partition, next offset).

    answer: the token of the whole batch, which knows the topics' ids. seen: that of the request.
    """
    whole = ReadToken.FromString(answer)
    ids = {told.topic: told.topic_id for told in whole.topics}
    each = [Position(topic, ids.get(topic, ""), partition, offset, None) for topic, partition, offset in positions]
    return token_of(job, epoch, each, ReadToken.FromString(seen) if seen else None, group=whole.group)


def group_of(token: bytes) -> int:
    """The newest group of routes that the token has seen; 0 = none."""
    return ReadToken.FromString(token).group


def carried_over(token: bytes, job: str, group: int) -> bytes:
    """The token of a job, empty for none, which now has seen a group as well."""
    if not group or group_of(token) >= group:
        return token
    seen = ReadToken.FromString(token)
    seen.job, seen.group = job, group
    return seen.SerializeToString(deterministic=True)


def parse_token(raw: bytes, job: str) -> ReadToken | None:
    """The token of a request for a read of that job; None without one. InvalidInput (INVALID_TOKEN)."""
    if not raw:
        return None
    try:
        token = ReadToken.FromString(raw)
    except DecodeError:
        raise _invalid("it is none: send what an answer carried, as it is") from None
    if token.job != job:
        raise _invalid(f"it is of {token.job or 'no job'}: bring to each job the token of its own answers")
    if any(len(one.next_offsets) > PARTITION_MAX for one in token.topics):
        raise _invalid("it names more partitions than a topic has")
    return token


def behind(token: ReadToken, positions: Sequence[Position]) -> str:
    """Where the positions are behind the token, for a person; empty when they are nowhere.

    FailedPrecondition (TOKEN_OF_ANOTHER_TOPIC) when a topic was made anew since: its offsets count other records.
    """
    if not positions and any(any(told.next_offsets) for told in token.topics):
        return "no position of it is recorded, and the token has seen some"
    where = {(one.topic, one.partition): one.next_offset for one in positions}
    ids = {one.topic: one.topic_id for one in positions}
    for told in token.topics:
        if told.topic not in ids:
            continue
        if told.topic_id and ids[told.topic] and told.topic_id != ids[told.topic]:
            raise FailedPrecondition(
                "TOKEN_OF_ANOTHER_TOPIC",
                f"The token is of a topic {told.topic} that was deleted and made anew since, so its positions mean "
                f"other records: read without a token, and take that of the answer from then on.",
                metadata={"topic": told.topic},
            )
        for partition, wanted in enumerate(told.next_offsets):
            there = where.get((told.topic, partition), 0)
            if there < wanted:
                return f"{told.topic}/{partition} is applied up to {there}, and the token has seen {wanted}"
    return ""


def _invalid(what: str) -> InvalidInput:
    return InvalidInput("INVALID_TOKEN", f"The token cannot be used: {what}.")
