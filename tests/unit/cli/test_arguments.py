"""Texts on the command line, as values."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.cli import arguments
from turnout.cli.commands.parameters import gates
from turnout.cli.exits import CommandError, ExitCode
from turnout.cli.quantities import percent
from turnout.log_range import LogRange, PartitionOffset
from turnout.schema import ColumnType


@given(st.integers(1, 10**9 - 1), st.booleans())
def test_a_version_with_or_without_v(number: int, marked: bool) -> None:
    assert arguments.version_number(f"v{number}" if marked else str(number)) == number


@pytest.mark.parametrize("text", ["", "v", "v0", "0", "-1", "V2", "v2 ", "2.0", "vv2", "v٣", "1000000000"])
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(CommandError, match="write v2 or 2") as caught:
        arguments.version_number(text)
    assert caught.value.code is ExitCode.USAGE


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("123", 123), ("5B", 5), ("10GB", 10**10), ("1.5 TB", 15 * 10**11), ("0.1kb", 100), ("7mB", 7 * 10**6)],
)
def test_a_size_in_bytes(text: str, count: int) -> None:
    assert arguments.byte_count(text) == count


@pytest.mark.parametrize("text", ["", "GB", "-1", "1GiB", "1 000", "1e9", "10G", "٣", "9999999TB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(CommandError) as caught:
        arguments.byte_count(text)
    assert caught.value.code is ExitCode.USAGE


@pytest.mark.parametrize(
    ("start", "end", "made"),
    [
        (None, None, None),
        ("earliest", None, None),
        ("2026-03-01T12:00:00Z", None, LogRange(start_time=datetime(2026, 3, 1, 12, tzinfo=UTC))),
        ("2026-03-01 13:00+01:00", None, LogRange(start_time=datetime(2026, 3, 1, 12, tzinfo=UTC))),
        ("earliest", "a.b_c-d/0=7", LogRange(end_offsets=(PartitionOffset("a.b_c-d", 0, 7),))),
        (
            "a/1=5, a/0=120",
            "2026-03-01T00:00Z",
            LogRange(
                start_offsets=(PartitionOffset("a", 0, 120), PartitionOffset("a", 1, 5)),
                end_time=datetime(2026, 3, 1, tzinfo=UTC),
            ),
        ),
    ],
)
def test_a_range_of_the_log(start: str | None, end: str | None, made: LogRange | None) -> None:
    assert arguments.log_range(start, end) == made


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        ("erliest", None, "--from 'erliest' is not earliest, a time such as 2026-03-01T12:00:00Z, or offsets"),
        (None, "earliest", "--until 'earliest' is not a time such as .* A range begins at earliest"),
        (None, "now", "--until 'now' is not a time such as"),
        ("", None, "--from '' is not earliest"),
        ("2026-03-01T12:00:00", None, "has no zone: write 2026-03-01T12:00:00Z for UTC"),
        ("2026-03-01", None, "has no zone"),
        ("2026-13-01T00:00Z", None, "is not earliest, a time such as"),
        ("1969-03-01T00:00Z", None, "makes no sense: .* before 1970"),
        ("flights=5", None, "--from: 'flights=5' is not an offset of a partition: write topic/partition=offset"),
        ("flights/0=", None, "is not an offset of a partition"),
        ("flights/0=-1", None, "is not an offset of a partition"),
        ("flights/x=1", None, "is not an offset of a partition"),
        ("flights/0=1,", None, "--from: '' is not an offset of a partition"),
        ("flights/0=1;flights/1=2", None, "with commas between several"),
        ("flights/0=1,flights/0=2", None, "names flights/0 twice"),
        ("flights/0=9", "flights/0=8", "ends at offset 8, before it begins, 9"),
        ("2026-03-02T00:00Z", "2026-03-01T00:00Z", "ends at 2026-03-01 00:00:00 UTC, before it begins"),
    ],
)
def test_what_is_no_range(start: str | None, end: str | None, said: str) -> None:
    with pytest.raises(CommandError, match=said) as caught:
        arguments.log_range(start, end)
    assert caught.value.code is ExitCode.USAGE


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=5))
def test_shares_that_sum_to_all_are_taken_exactly(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), 10_000]
    shares = {number: high - low for number, (low, high) in enumerate(pairwise(edges), 1)}
    texts = [f"v{number}={share // 100}.{share % 100:02}" for number, share in shares.items()]
    assert arguments.weights(texts) == shares


@given(st.dictionaries(st.integers(1, 9), st.integers(0, 10_000), min_size=1))
def test_other_shares_are_refused_with_their_sum(shares: dict[int, int]) -> None:
    total = sum(shares.values())
    texts = [f"v{number}={share / 100:.2f}" for number, share in shares.items()]
    if total == 10_000:
        assert arguments.weights(texts) == shares
    else:
        with pytest.raises(CommandError) as caught:
            arguments.weights(texts)
        assert caught.value.message.startswith(f"The shares sum to {percent(total)}, not to 100 %:")


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["v1"], "is not a share"),
        (["v1=90", "1=10"], "given twice"),
        (["v1=99.999", "v2=0.001"], "^v1=99.999: '99.999' is too fine: shares go by 0.01%.$"),
        (["v1=-1", "v2=101"], "^v1=-1: '-1' is no share: write per cent, such as 10%.$"),
        (["v1=101"], "^v1=101: '101' is too much: a share is at most 100%.$"),
        (["v1="], "'' is no share"),
        (["x=100"], "is not a version"),
        (["v1=٩٠", "v2=10"], "is no share"),
    ],
)
def test_what_is_no_share(texts: list[str], said: str) -> None:
    with pytest.raises(CommandError, match=said):
        arguments.weights(texts)


def test_shares_below_one_percent_need_no_sign_since_parts_of_one_never_sum_to_100() -> None:
    assert arguments.weights(["v1=99.5", "v2=0.5"]) == {1: 9_950, 2: 50}
    with pytest.raises(CommandError, match=r"sum to 1 %, not to 100 %"):
        arguments.weights(["v1=0.5", "v2=0.5"])


def test_a_percent_sign_is_taken() -> None:
    assert arguments.weights(["v1=99.75%", "v2=0.25%"]) == {1: 9_975, 2: 25}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("15m", 900),
        ("24h", 86_400),
        ("7d", 604_800),
        ("500ms", 0.5),
        ("1w", 604_800),
        ("1h30m", 5400),
        ("0s", 0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert arguments.duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "h", "2", "-1s", "1 hour", "1h30", "99999d", "1e3s", "1:30"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(CommandError):
        arguments.duration(text)


def test_orders() -> None:
    assert arguments.order_by(["a", "b:desc", "c:asc"]) == [("a", False), ("b", True), ("c", False)]
    for wrong in ("", ":desc", "a:down"):
        with pytest.raises(CommandError, match="is not an order"):
            arguments.order_by([wrong])


def test_key_columns() -> None:
    assert arguments.key_columns(["carrier=UA", "note=a=b", "empty="]) == {"carrier": "UA", "note": "a=b", "empty": ""}
    for wrong in (["carrier"], ["=UA"], ["carrier=UA", "carrier=AA"]):
        with pytest.raises(CommandError):
            arguments.key_columns(wrong)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (ColumnType.INT64, "-42", -42),
        (ColumnType.STRING, "42", "42"),
        (ColumnType.ENUM, "late", "late"),
        (ColumnType.BOOL, "true", True),
        (ColumnType.BOOL, "false", False),
        (ColumnType.DATE, "2013-01-31", date(2013, 1, 31)),
        (ColumnType.TIMESTAMP, "2013-01-31T12:00:00Z", datetime(2013, 1, 31, 12, tzinfo=UTC)),
        (ColumnType.TIMESTAMP, "2013-01-31 12:00", datetime(2013, 1, 31, 12, tzinfo=UTC)),
        (ColumnType.DECIMAL, "1.50", Decimal("1.50")),
        (ColumnType.BYTES, "00ff", b"\x00\xff"),
        (ColumnType.UUID, "123e4567-e89b-12d3-a456-426614174000", UUID("123e4567-e89b-12d3-a456-426614174000")),
    ],
)
def test_key_values_take_the_type_of_their_column(kind: ColumnType, text: str, value: object) -> None:
    assert arguments.key_value("k", kind, text) == value


@pytest.mark.parametrize(
    "kind",
    [
        ColumnType.INT64,
        ColumnType.BOOL,
        ColumnType.DATE,
        ColumnType.TIMESTAMP,
        ColumnType.DECIMAL,
        ColumnType.BYTES,
        ColumnType.UUID,
    ],
)
def test_a_key_value_of_another_type_is_refused_with_an_example(kind: ColumnType) -> None:
    with pytest.raises(CommandError, match=rf"k is of type {kind.value}: 'zz' is none; write ."):
        arguments.key_value("k", kind, "zz")


def test_gates_are_named_one_by_one_or_with_commas_and_typos_are_mended() -> None:
    assert gates(["catch-up,schema", "coverage"]) == ["catch-up", "schema", "coverage"]
    assert gates(None) == []
    with pytest.raises(CommandError, match="no gate 'catchup'; did you mean catch-up"):
        gates(["catchup"])
