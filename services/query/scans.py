"""The pages of a scan as messages, in the form that the request asks for: rows, columns, or an Arrow stream.

Every message is of a size that any client takes: gRPC's refuse messages above 4 MiB unless told otherwise.
"""

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from core.rpc.server import MESSAGE_BYTES_MAX
from services.query.convert import check_size, columns_of, row_of, scan_head
from turnout.errors import FailedPrecondition, InvalidInput
from turnout.query.v1.query_pb2 import ScanRequest, ScanResponse
from turnout.reading.columns import Table
from turnout.reading.reads import Request, Served
from turnout.reading.table import Values

MESSAGE_BYTES: int = 1024 * 1024
_ROW_BYTES_MAX: Final = MESSAGE_BYTES_MAX - MESSAGE_BYTES  # what is said of the answer has room beside it


class ScanPages:
    """The messages of one scan. The first of them says who answers, also where there are no rows."""

    def __init__(self, form: ScanRequest.Format.ValueType) -> None:
        self._form = form
        self._pages: _Pages | None = None
        self._head: ScanResponse | None = None

    def of(self, request: Request, served: Served, rows: Sequence[Values]) -> Iterator[ScanResponse]:
        """The messages of one page. InvalidInput (INVALID_FORMAT); FailedPrecondition (ARROW_MISSING);
        ResourceExhausted (ANSWER_TOO_LARGE) for a row that fits no message."""
        if self._pages is None:
            self._pages = _pages(self._form, served.table)
            self._head = scan_head(request, served)
        return self._headed(self._pages.of(rows))

    def end(self) -> Iterator[ScanResponse]:
        """What is to be said behind the last page."""
        if self._pages is not None:
            yield from self._headed(self._pages.end())
        if self._head is not None:
            yield self._head

    def _headed(self, messages: Iterator[ScanResponse]) -> Iterator[ScanResponse]:
        for message in messages:
            if self._head is not None:
                message.MergeFrom(self._head)
                self._head = None
            yield message


class _Pages(Protocol):
    """Makes messages of pages."""

    def of(self, rows: Sequence[Values]) -> Iterator[ScanResponse]:
        """The messages of one page; none where it has nothing to say."""

    def end(self) -> Iterator[ScanResponse]:
        """What is to be said behind the last page."""


def _pages(form: ScanRequest.Format.ValueType, table: Table) -> _Pages:
    match form:
        case ScanRequest.FORMAT_UNSPECIFIED | ScanRequest.ROWS:
            return _Rows(table)
        case ScanRequest.COLUMNS:
            return _Columns(table)
        case ScanRequest.ARROW:
            return _Arrow(table)
    raise InvalidInput("INVALID_FORMAT", f"The format {form} is none that this front knows: ask for rows or columns.")


class _Rows:
    def __init__(self, table: Table) -> None:
        self._table = table

    def of(self, rows: Sequence[Values]) -> Iterator[ScanResponse]:
        message, size = ScanResponse(), 0
        for values in rows:
            row = row_of(self._table, values)
            size += row.ByteSize()
            if size > MESSAGE_BYTES and message.rows:
                yield message
                message, size = ScanResponse(), row.ByteSize()
            check_size(size, most=_ROW_BYTES_MAX)
            message.rows.append(row)
        if message.rows:
            yield message

    def end(self) -> Iterator[ScanResponse]:
        return iter(())


class _Columns:
    def __init__(self, table: Table) -> None:
        self._table = table

    def of(self, rows: Sequence[Values]) -> Iterator[ScanResponse]:
        if not rows:
            return
        message = ScanResponse(columns=columns_of(self._table, rows))
        size = message.ByteSize()
        if size <= MESSAGE_BYTES or len(rows) == 1:
            check_size(size, most=_ROW_BYTES_MAX)
            yield message
            return
        half = len(rows) // 2
        yield from self.of(rows[:half])
        yield from self.of(rows[half:])

    def end(self) -> Iterator[ScanResponse]:
        return iter(())


class _Arrow:
    def __init__(self, table: Table) -> None:
        try:
            from services.query.arrow import ArrowStream  # large, and few ask for it
        except ImportError:
            raise FailedPrecondition(
                "ARROW_MISSING",
                "This front cannot write Arrow: install turnout-server[arrow] where it runs, or ask for columns.",
            ) from None
        self._stream = ArrowStream(table)

    def of(self, rows: Sequence[Values]) -> Iterator[ScanResponse]:
        return self._pieces(self._stream.batch(rows))

    def end(self) -> Iterator[ScanResponse]:
        return self._pieces(self._stream.end())

    def _pieces(self, raw: bytes) -> Iterator[ScanResponse]:
        for begin in range(0, len(raw), MESSAGE_BYTES):
            yield ScanResponse(arrow=raw[begin : begin + MESSAGE_BYTES])
