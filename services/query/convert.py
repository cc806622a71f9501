"""Between the contract's messages and the front's own values."""

from collections.abc import Iterator, Sequence

from core.domain.errors import ResourceExhausted
from core.domain.names import parse_job
from core.rpc.server import MESSAGE_BYTES_MAX
from turnout.kind_values import timestamp
from turnout.query.v1 import query_pb2
from turnout.reading.reads import Explanation, Request, Served
from turnout.reading.routing import Cause
from turnout.reading.table import Page, Position, Values
from turnout.reading.values import row_writer

_CAUSES = {
    Cause.ROUTED: query_pb2.ServedVersion.ROUTED,
    Cause.PINNED: query_pb2.ServedVersion.PINNED,
    Cause.ACTIVE: query_pb2.ServedVersion.ACTIVE,
}

_SCAN_MESSAGE_BYTES = 1024 * 1024  # gRPC's clients refuse messages above 4 MiB unless told otherwise


def request_of(message: query_pb2.GetRequest | query_pb2.BatchGetRequest | query_pb2.ScanRequest) -> Request:
    """What every read says. InvalidInput for a name that is none, or a negative version."""
    return Request(parse_job(message.job), message.unit, message.version)


def served_version(served: Served) -> query_pb2.ServedVersion:
    """Who answered."""
    return query_pb2.ServedVersion(
        version=served.resolution.version,
        epoch=served.resolution.epoch,
        columns=served.table.column_names,
        applied_positions=[_position(position) for position in served.positions],
        cause=_CAUSES[served.resolution.cause],
    )


def get_response(served: Served, row: Values | None) -> query_pb2.GetResponse:
    """The answer of Get."""
    write = row_writer(served.table.columns)
    return query_pb2.GetResponse(row=None if row is None else write(row), served=served_version(served))


def batch_response(
    served: Sequence[Served], results: Sequence[tuple[int, Values | None]]
) -> query_pb2.BatchGetResponse:
    """The answer of BatchGet. ResourceExhausted (ANSWER_TOO_LARGE) above the size of a message."""
    writers = [row_writer(one.table.columns) for one in served]
    response = query_pb2.BatchGetResponse(
        served=[served_version(one) for one in served],
        results=[
            query_pb2.BatchGetResult(row=None if row is None else writers[index](row), served_index=index)
            for index, row in results
        ],
    )
    if response.ByteSize() > MESSAGE_BYTES_MAX:
        raise ResourceExhausted(
            "ANSWER_TOO_LARGE",
            f"The rows of these {len(results)} keys take {response.ByteSize()} bytes, and an answer holds at most "
            f"{MESSAGE_BYTES_MAX}: ask for fewer keys at a time.",
        )
    return response


def scan_responses(served: Served, page: Page, *, first: bool) -> Iterator[query_pb2.ScanResponse]:
    """A page of Scan in messages of a size that any client takes; only the very first tells who answered."""
    write = row_writer(served.table.columns)
    message = query_pb2.ScanResponse(served=served_version(served) if first else None)
    size = 0
    for values in page.rows:
        row = write(values)
        size += row.ByteSize()
        if size > _SCAN_MESSAGE_BYTES and message.rows:
            yield message
            message, size = query_pb2.ScanResponse(), row.ByteSize()
        message.rows.append(row)
    yield message


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
