"""Values and times as the contract carries them."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from services.replayer.convert import duration, run_message, timestamp, value_message
from services.replayer.states import State
from tests.unit.replayer.made import at, run, sample
from turnout.query.v1 import query_pb2 as query
from turnout.replayer.v1 import replayer_pb2 as replayer


@pytest.mark.parametrize(
    ("value", "kind", "carried"),
    [
        (True, "bool_value", True),
        (7, "int64_value", 7),
        (0.5, "double_value", 0.5),
        ("x", "string_value", "x"),
        (b"\x00", "bytes_value", b"\x00"),
        (date(1970, 1, 11), "date_days", 10),
        (Decimal("1E+3"), "decimal_value", "1000"),
        (UUID(int=1), "uuid_value", "00000000-0000-0000-0000-000000000001"),
    ],
)
def test_a_value_goes_by_its_type(value: Any, kind: str, carried: Any) -> None:
    message = value_message(value)
    assert message.WhichOneof("kind") == kind
    assert getattr(message, kind) == carried


def test_null_json_and_times() -> None:
    assert value_message(None) == query.Value()
    assert value_message('{"a": 1}', is_json=True).json_value == '{"a": 1}'
    assert value_message(datetime(1970, 1, 1, 0, 0, 1, 500, UTC)).timestamp_value.nanos == 500_000
    assert timestamp(None) is None
    before = timestamp(datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC))
    assert before is not None
    assert (before.seconds, before.nanos) == (-1, 999_999_000)
    assert duration(None) is None
    told = duration(1.5)
    assert told is not None
    assert (told.seconds, told.nanos) == (1, 500_000_000)


@pytest.mark.parametrize("state", list(State))
def test_every_state_has_its_name_in_the_contract(state: State) -> None:
    made = run(2, state, failure_message="why")
    message = run_message(made, [sample([(made, {0: at(60)})], {0: 100})], "waiting", 1)
    assert replayer.Run.State.Name(message.state) == state.value
    assert message.status_message == ("why" if state is State.FAILED else "waiting")
    assert (message.lag, message.progress, message.partitions[0].end_offset) == (40, 0.6, 100)
