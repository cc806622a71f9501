"""Between the contract's messages and the front's own values."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, cast

from core.rpc.server import MESSAGE_BYTES_MAX
from turnout.column_values import column_of
from turnout.errors import InvalidInput, ResourceExhausted
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


def get_response(request: Request, served: Served, row: Values | None) -> bytes:
    """The answer of Get, encoded. Only its row is new with each read: the rest is kept until the positions change."""
    tail = served.positions.kept(("served", served.resolution), lambda: _get_tail(request.job, served))
    if request.token is not None:
        tail += query_pb2.GetResponse(token=token_after(request, [served])).SerializeToString()  # the last one counts
    if served.exposure_id:
        tail += query_pb2.GetResponse(exposure_id=served.exposure_id).SerializeToString()
    if row is None:
        return tail
    response = query_pb2.GetResponse()
    _row_writer(served.table)(response.row, row)
    return response.SerializeToString() + tail


def _get_tail(job: str, served: Served) -> bytes:
    resolution = served.resolution
    token = token_of(job, resolution.epoch, served.positions.each, group=resolution.group)
    return query_pb2.GetResponse(served=served_version(served), token=token).SerializeToString()


def _row_writer(table: Table) -> Callable[[query_pb2.Row, Sequence[Any]], None]:
    return table.kept("row writer", lambda: row_writer(table.columns))


def batch_response(request: Request, groups: Sequence[Group], keys: int) -> query_pb2.BatchGetResponse:
    """The answer of BatchGet, a result a key. ResourceExhausted (ANSWER_TOO_LARGE) above the size of a message."""
    results = [query_pb2.BatchGetResult() for _ in range(keys)]
    for index, group in enumerate(groups):
        write = _row_writer(group.served.table)
        for place, row in zip(group.places, group.found.rows, strict=True):
            results[place].served_index = index
            if row is not None:
                write(results[place].row, row)
        for place, exposure_id in zip(group.places, group.exposure_ids, strict=False):
            results[place].exposure_id = exposure_id
    return _sized(_batch(request, groups, results=results), keys)


def block_response(request: Request, groups: Sequence[Group], keys: int) -> query_pb2.BatchGetResponse:
    """The answer of BatchGet by column. ResourceExhausted (ANSWER_TOO_LARGE)."""
    blocks = [_block(index, group, keys) for index, group in enumerate(groups)]
    return _sized(_batch(request, groups, blocks=blocks), keys)


def _block(index: int, group: Group, keys: int) -> query_pb2.BatchGetBlock:
    order: Sequence[int | None] = group.found.order
    missing: list[int] = []
    if None in order:
        missing = [at for at, row in enumerate(order) if row is None]
        order = [row for row in order if row is not None]
    columns = group.found.columns
    if len(order) > 1:
        in_order = itemgetter(*cast(Sequence[int], order))
        columns = [in_order(column) for column in columns]
    return query_pb2.BatchGetBlock(
        served_index=index,
        key_indexes=() if len(group.places) == keys else group.places,
        missing=missing,
        columns=_columns(group.served.table, columns) if order else (),
        exposure_ids=group.exposure_ids,
    )


def columns_of(table: Table, rows: Sequence[Values]) -> list[query_pb2.Column]:
    """The rows by column; no column where there is no row."""
    return _columns(table, list(zip(*rows, strict=True))) if rows else []


def _columns(table: Table, columns: Sequence[Sequence[Any]]) -> list[query_pb2.Column]:
    return [column_of(column.kind, values) for column, values in zip(table.columns, columns, strict=True)]


def _batch(request: Request, groups: Sequence[Group], **rows: Any) -> query_pb2.BatchGetResponse:
    served = [group.served for group in groups]
    return query_pb2.BatchGetResponse(
        served=[served_version(one) for one in served],
        token=token_after(request, served),
        exposure_id=served[0].exposure_id if served else "",
        **rows,
    )


def _sized(response: query_pb2.BatchGetResponse, keys: int) -> query_pb2.BatchGetResponse:
    if response.ByteSize() > MESSAGE_BYTES_MAX:
        raise ResourceExhausted(
            "ANSWER_TOO_LARGE",
            f"The rows of these {keys} keys take {response.ByteSize()} bytes, and an answer holds at most "
            f"{MESSAGE_BYTES_MAX}: ask for fewer keys at a time.",
        )
    return response


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
