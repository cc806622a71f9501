"""Keys by column and as messages are the same keys, and rows by column the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.client.batches import _in_order, parts, put_keys, put_values, reads_of
from turnout.client.values import to_key
from turnout.column_values import column_of
from turnout.errors import InvalidInput, TurnoutError
from turnout.kinds import Kind
from turnout.names import VersionId
from turnout.query.v1 import query_pb2 as pb
from turnout.reading.columns import Column, Table
from turnout.reading.values import ColumnKeys, MessageKeys
from turnout.results import Cause

TYPES = {
    Kind.INT64: "bigint",
    Kind.STRING: "text",
    Kind.BOOL: "boolean",
    Kind.BYTES: "bytea",
    Kind.DATE: "date",
    Kind.TIMESTAMP: "timestamp with time zone",
    Kind.DECIMAL: "numeric",
    Kind.UUID: "uuid",
}
VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.INT64: st.integers(-(2**63), 2**63 - 1),
    Kind.STRING: st.text(),
    Kind.BOOL: st.booleans(),
    Kind.BYTES: st.binary(),
    Kind.DATE: st.dates(),
    Kind.TIMESTAMP: st.datetimes(timezones=st.just(UTC)),
    Kind.DECIMAL: st.decimals(allow_nan=False, allow_infinity=False, places=3),
    Kind.UUID: st.uuids(),
}
KINDS = st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=3)


def table(kinds: Sequence[Kind]) -> Table:
    columns = tuple(Column(f"k{number}", kind, TYPES[kind]) for number, kind in enumerate(kinds))
    return Table(VersionId("j", 1), "j__v1", 1, columns, columns, False, "reader", "owner")


def sent(request: pb.BatchGetRequest, of: Table) -> Any:
    """What a front makes of the keys of a request, or why it refuses them."""
    try:
        if request.key_columns:
            return ColumnKeys(request.key_columns, request.key_column_names).of(of)
        return MessageKeys(request.keys).of(of)
    except TurnoutError as error:
        return error.reason


@given(st.data(), KINDS, KINDS, st.integers(1, 5), st.booleans())
def test_a_front_sees_the_same_keys_by_column(
    data: st.DataObject, kinds: list[Kind], asked_as: list[Kind], count: int, named: bool
) -> None:
    keys = [tuple(data.draw(VALUES[kind]) for kind in asked_as) for _ in range(count)]
    names = [f"k{number}" for number in range(len(asked_as))]
    order = data.draw(st.permutations(range(len(asked_as)))) if named else range(len(asked_as))
    given_keys = [{names[at]: key[at] for at in order} if named else key for key in keys]
    by_column, by_parts = pb.BatchGetRequest(), pb.BatchGetRequest()
    put_keys(by_column, given_keys)
    put_values(by_parts, parts(given_keys[0])[0], [parts(key)[1] for key in given_keys])
    as_messages = pb.BatchGetRequest(keys=[to_key(key) for key in given_keys])
    assert sent(by_column, table(kinds)) == sent(by_parts, table(kinds)) == sent(as_messages, table(kinds))


@pytest.mark.parametrize(
    ("keys", "by_column"),
    [
        ([(1, "a"), (2, "b")], True),
        ([(date(2026, 1, 1), UUID(int=1), b"x", True)], True),
        ([(1,), ("a",)], False),
        ([(1,), (1, 2)], False),
        ([(Decimal(1),)], False),
        ([(datetime(2026, 1, 1, tzinfo=UTC),)], False),
        ([()], False),
        ([], False),
        ([1, 2], True),
        ([[1], [2]], True),
        ([1, (2,)], False),
        ([{"a": 1, "b": 2}, {"a": 3, "b": 4}], True),
        ([{"a": 1, "b": 2}, {"b": 3, "a": 4}], False),
        ([1, 2**63 - 1], True),
        (["a", "a\0b"], False),
    ],
)
def test_keys_go_by_column_where_they_can(keys: list[Any], by_column: bool) -> None:
    request = pb.BatchGetRequest()
    put_keys(request, keys)
    assert bool(request.key_columns) == by_column
    assert len(request.keys) == (0 if by_column else len(keys))


@pytest.mark.parametrize("key", [2**63, (1, object()), {"k": datetime(2026, 1, 1)}])  # noqa: DTZ001 - that is the point
def test_a_key_that_cannot_be_sent_is_refused_alone(key: Any) -> None:
    with pytest.raises(InvalidInput, match=r"column|time zone"):
        parts(key)


def test_a_text_that_is_none_is_refused_alone() -> None:
    with pytest.raises(InvalidInput, match="surrogate"):
        parts("\ud800")


def test_blocks_are_put_together_in_the_order_of_the_keys() -> None:
    served = [
        pb.ServedVersion(
            version=version,
            epoch=4,
            columns=["k", "v"],
            cause=pb.ServedVersion.ROUTED,
            applied_positions=[pb.AppliedPosition(topic="t", partition=0, next_offset=version)],
        )
        for version in (1, 2)
    ]
    blocks = [
        pb.BatchGetBlock(
            served_index=1,
            key_indexes=[0, 3, 4],
            rows=[2, 0, 1],
            columns=[column_of(Kind.INT64, [4, 0]), column_of(Kind.STRING, ["four", None])],
        ),
        pb.BatchGetBlock(
            served_index=0,
            key_indexes=[1, 2],
            rows=[1, 2],
            columns=[column_of(Kind.INT64, [1, 2]), column_of(Kind.STRING, ["one", "two"])],
        ),
    ]
    reads = reads_of(pb.BatchGetResponse(served=served, blocks=blocks), "j", 5, b"")
    assert [(read.version, read.row) for read in reads] == [
        (2, {"k": 0, "v": None}),
        (1, {"k": 1, "v": "one"}),
        (1, {"k": 2, "v": "two"}),
        (2, None),
        (2, {"k": 4, "v": "four"}),
    ]
    assert {read.cause for read in reads} == {Cause.ROUTED}
    assert len({read.token for read in reads}) == 2


def test_a_block_without_places_is_of_all_keys() -> None:
    served = [pb.ServedVersion(version=1, columns=["k"], cause=pb.ServedVersion.PINNED)]
    answer = pb.BatchGetResponse(
        served=served, blocks=[pb.BatchGetBlock(rows=[0, 1, 0], columns=[column_of(Kind.INT64, [7])])], token=b"t"
    )
    reads = reads_of(answer, "j", 3, b"")
    assert [read.row for read in reads] == [None, {"k": 7}, None]
    assert {read.token for read in reads} == {b"t"}


def test_a_block_of_missing_rows_alone_has_no_columns() -> None:
    served = [pb.ServedVersion(version=1, columns=["k"], cause=pb.ServedVersion.PINNED)]
    answer = pb.BatchGetResponse(served=served, blocks=[pb.BatchGetBlock(rows=[0, 0])])
    assert [read.row for read in reads_of(answer, "j", 2, b"")] == [None, None]


def test_keys_that_share_a_row_have_mappings_of_their_own() -> None:
    served = [pb.ServedVersion(version=1, columns=["k"], cause=pb.ServedVersion.PINNED)]
    block = pb.BatchGetBlock(rows=[1, 1], columns=[column_of(Kind.INT64, [7])])
    one, other = reads_of(pb.BatchGetResponse(served=served, blocks=[block]), "j", 2, b"")
    assert one.row == other.row == {"k": 7}
    assert one.row is not other.row


def test_keys_that_share_a_row_share_nothing_in_it() -> None:
    served = [pb.ServedVersion(version=1, columns=["k", "v"], cause=pb.ServedVersion.PINNED)]
    columns = [column_of(Kind.INT64, [7]), column_of(Kind.JSON, ['{"a": [1]}'])]
    block = pb.BatchGetBlock(rows=[1, 0, 1, 1], columns=columns)
    rows: list[Any] = [read.row for read in reads_of(pb.BatchGetResponse(served=served, blocks=[block]), "j", 4, b"")]
    rows[0]["v"]["a"].append(2)
    rows[2]["v"]["b"] = 3
    assert [row and row["v"] for row in rows] == [{"a": [1, 2]}, None, {"a": [1], "b": 3}, {"a": [1]}]


def test_rows_are_not_copied_because_several_are_missing() -> None:
    rows: list[dict[str, object]] = [{"k": 1}, {"k": 2}]
    found = _in_order(rows, [0, 1, 0, 2, 0])
    assert [found[1] is rows[0], found[3] is rows[1]] == [True, True]
    assert found[::2] == [None] * 3
