"""Why a record is malformed, in words for the person who has to mend it."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from turnout.job.rows import Delete, Message, Row

REASON_CHARACTERS_MAX = 500
_OURS = str(Path(__file__).resolve().parent.parent)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class TombstoneError(ValueError):
    """A Kafka tombstone whose record key names no row."""

    def __init__(self, record_key: bytes | None, why: object) -> None:
        super().__init__(f"the record key {record_key!r} of a Kafka tombstone names no row: {why}")


def explain(error: Exception, message: Message) -> str:
    """The reason for a `Failure`: what the decoder, the function or the check of a column said, and where."""
    text = str(error)
    where = _line_of_job(error)
    if isinstance(error, TombstoneError):
        reason = text
    elif message.value is None:
        reason = "the record has no value (a Kafka tombstone), and this job has no rule for one"
    elif where:
        reason = f"{type(error).__name__}: {text} ({where})" if text else f"{type(error).__name__} ({where})"
    elif isinstance(error, ValueError | msgspec.MsgspecError):
        reason = text
    else:
        reason = f"{type(error).__name__}: {text}"
    return reason if len(reason) <= REASON_CHARACTERS_MAX else reason[: REASON_CHARACTERS_MAX - 3] + "..."


def _line_of_job(error: Exception) -> str:
    """The innermost line of the user's code on the way to the error, "" if it was not raised there."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(("<turnout ", _OURS)):
            return f"{Path(frame.filename).name} line {frame.lineno}"
    return ""


def items_of(returned: Any, row_type: type[Row]) -> Iterable[Any]:
    """What a function returned, as an iterable of rows."""
    if isinstance(returned, Row | Delete | str | bytes | dict) or not isinstance(returned, Iterable):
        raise unexpected(returned, row_type)
    return returned


def unexpected(returned: Any, row_type: type[Row]) -> TypeError:
    """The error for a value that is no row of the job."""
    shown = repr(returned)
    return TypeError(
        f"the function returned {shown if len(shown) <= 80 else shown[:77] + '...'}; expected {row_type.__name__}"
    )


def moved(returned: object, key: object) -> ValueError:
    """The error for a fold that returned a row of another key."""
    return ValueError(f"the function returned the row with key {returned!r} for the key {key!r}")


def epoch_ms(time: datetime) -> int:
    """Milliseconds since 1970, rounded down. ValueError for a time without a zone."""
    if time.utcoffset() is None:
        raise ValueError(f"the event time {time.isoformat()} has no time zone")
    return (time - _EPOCH) // _MILLISECOND
