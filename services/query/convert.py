"""Between the contract's messages and the front's own values."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from core.rpc.server import MESSAGE_BYTES_MAX
from turnout.column_values import column_of, message_of
from turnout.errors import InvalidInput, ResourceExhausted
from turnout.exposure import CHARACTERS
from turnout.kind_values import timestamp
from turnout.names import parse_job
from turnout.query.v1 import query_pb2
from turnout.reading.columns import Table
from turnout.reading.positions import Position
from turnout.reading.reads import Explanation, Group, Request, Served, token_after
from turnout.reading.routing import Cause
from turnout.reading.table import Values
from turnout.reading.tokens import parse_token, token_of
from turnout.reading.values import ColumnKeys, Keys, MessageKeys, row_writer

_CAUSES = {
    Cause.ROUTED: query_pb2.ServedVersion.ROUTED,
    Cause.PINNED: query_pb2.ServedVersion.PINNED,
    Cause.ACTIVE: query_pb2.ServedVersion.ACTIVE,
    Cause.STAND_IN: query_pb2.ServedVersion.STAND_IN,
    Cause.OVERRIDE: query_pb2.ServedVersion.OVERRIDE,
    Cause.HOLDOUT: query_pb2.ServedVersion.HOLDOUT,
}


def request_of(message: query_pb2.GetRequest | query_pb2.BatchGetRequest | query_pb2.ScanRequest) -> Request:
    """What every read says. InvalidInput for a name or token that is none, or a negative version."""
    job = _job(message.job)
    return Request(job, message.unit, message.version, parse_token(message.token, job))


def keys_of(message: query_pb2.BatchGetRequest) -> Keys:
    """The keys of a batch, in the form in which they came. InvalidInput when they came in both."""
    if not message.key_columns:
        return MessageKeys(message.keys)
    if message.keys:
        raise InvalidInput("KEYS_TWICE", "The request has keys and key_columns: give one of them.")
    return ColumnKeys(message.key_columns, message.key_column_names)


@lru_cache(maxsize=1024)
def _job(name: str) -> str:
    return parse_job(name)


def served_version(served: Served) -> query_pb2.ServedVersion:
    """Who answered."""
    return query_pb2.ServedVersion(
        version=served.resolution.version,
        epoch=served.resolution.epoch,
        columns=served.table.column_names,
        applied_positions=[_position(position) for position in served.positions.each],
        cause=_CAUSES[served.resolution.cause],
        group=served.resolution.group,
    )


# All ids of exposures are of one length, and so is what goes before them in an answer of Get.
_EXPOSURE = query_pb2.GetResponse(exposure_id="-" * CHARACTERS).SerializeToString()[:-CHARACTERS]


def get_response(request: Request, served: Served, row: Values | None) -> bytes:
    """The answer of Get, encoded. Only its row is new with each read: the rest is kept until the positions change.
    ResourceExhausted (ANSWER_TOO_LARGE)."""
    tail = served.positions.kept(("served", served.resolution), lambda: _get_tail(request.job, served))
    if request.token is not None:
        tail += query_pb2.GetResponse(token=token_after(request, [served])).SerializeToString()  # the last one counts
    if served.exposure_id:
        tail += _EXPOSURE + served.exposure_id.encode()
    if row is None:
        return tail
    response = query_pb2.GetResponse()
    _row_writer(served.table)(response.row, row)
    encoded = response.SerializeToString() + tail
    check_size(len(encoded))
    return encoded


def check_size(size: int, keys: int = 1, most: int = MESSAGE_BYTES_MAX) -> None:
    """ResourceExhausted (ANSWER_TOO_LARGE) where the rows of so many keys take more bytes than an answer holds."""
    if size <= most:
        return
    rows, way = f"The rows of these {keys} keys take", "ask for fewer keys at a time"
    if keys == 1:
        rows, way = "The row takes", "a client in direct mode can read it, and SQL"
    raise ResourceExhausted("ANSWER_TOO_LARGE", f"{rows} {size:,} bytes, and an answer holds at most {most:,}: {way}.")


def _get_tail(job: str, served: Served) -> bytes:
    resolution = served.resolution
    token = token_of(job, resolution.epoch, served.positions.each, group=resolution.group)
    return query_pb2.GetResponse(served=served_version(served), token=token).SerializeToString()


def _row_writer(table: Table) -> Callable[[query_pb2.Row, Sequence[Any]], None]:
    return table.kept("row writer", lambda: row_writer(table.columns))


def batch_response(request: Request, groups: Sequence[Group], keys: int) -> bytes:
    """The answer of BatchGet, a result a key, encoded. ResourceExhausted (ANSWER_TOO_LARGE) above a message's size."""
    results = [query_pb2.BatchGetResult() for _ in range(keys)]
    for index, group in enumerate(groups):
        write = _row_writer(group.served.table)
        for place, row in zip(group.places, group.found.rows, strict=True):
            results[place].served_index = index
            if row is not None:
                write(results[place].row, row)
        for place, exposure_id in zip(group.places, group.exposure_ids, strict=False):
            results[place].exposure_id = exposure_id
    return _batch(request, groups, query_pb2.BatchGetResponse(results=results), keys)


def block_response(request: Request, groups: Sequence[Group], keys: int) -> bytes:
    """The answer of BatchGet by column, encoded. ResourceExhausted (ANSWER_TOO_LARGE)."""
    blocks = [_block(index, group, keys) for index, group in enumerate(groups)]
    return _batch(request, groups, query_pb2.BatchGetResponse(blocks=blocks), keys)


def _block(index: int, group: Group, keys: int) -> query_pb2.BatchGetBlock:
    found = group.found
    return query_pb2.BatchGetBlock(
        served_index=index,
        key_indexes=() if len(group.places) == keys else group.places,
        rows=found.order,
        columns=[message_of(one.kind, values) for one, values in zip(found.table.columns, found.columns, strict=True)]
        if any(found.order)
        else (),
        exposure_ids=group.exposure_ids,
    )


def columns_of(table: Table, rows: Sequence[Values]) -> list[query_pb2.Column]:
    """The rows by column; no column where there is no row."""
    if not rows:
        return []
    columns = zip(table.columns, zip(*rows, strict=True), strict=True)
    return [column_of(column.kind, values) for column, values in columns]


def _batch(request: Request, groups: Sequence[Group], rows: query_pb2.BatchGetResponse, keys: int) -> bytes:
    """The rows of an answer and who answered, which is kept until the positions change."""
    served = [group.served for group in groups]
    told = query_pb2.BatchGetResponse(
        token=token_after(request, served), exposure_id=served[0].exposure_id if served else ""
    )
    encoded = b"".join([*map(_batch_head, served), rows.SerializeToString(), told.SerializeToString()])
    check_size(len(encoded), keys)
    return encoded


def _batch_head(served: Served) -> bytes:
    """Who answered, as one of those of an answer of BatchGet."""
    return served.positions.kept(
        ("of a batch", served.resolution),
        lambda: query_pb2.BatchGetResponse(served=[served_version(served)]).SerializeToString(),
    )


def scan_head(request: Request, served: Served) -> query_pb2.ScanResponse:
    """What goes before the rows of a scan: who answers."""
    return query_pb2.ScanResponse(
        served=served_version(served), token=token_after(request, [served]), exposure_id=served.exposure_id
    )


def row_of(table: Table, values: Values) -> query_pb2.Row:
    """One row."""
    row = query_pb2.Row()
    _row_writer(table)(row, values)
    return row


def explain_response(explanation: Explanation, front: str) -> query_pb2.ExplainRouteResponse:
    """The answer of ExplainRoute."""
    return query_pb2.ExplainRouteResponse(
        unit=explanation.unit,
        unit_hash=explanation.hashed,
        version=explanation.resolution.version,
        active_version=explanation.active_version,
        epoch=explanation.resolution.epoch,
        interval_low=explanation.interval.low,
        interval_high=explanation.interval.high,
        acquired_epoch=explanation.interval.acquired_epoch,
        front=front,
        route_age_s=explanation.age_s,
    )


def _position(position: Position) -> query_pb2.AppliedPosition:
    return query_pb2.AppliedPosition(
        topic=position.topic,
        partition=position.partition,
        next_offset=position.next_offset,
        event_time=None if position.event_time is None else timestamp(position.event_time),
    )
