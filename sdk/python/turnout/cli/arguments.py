"""Texts on the command line, as values. Each function raises a CommandError (USAGE) that shows a valid text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import TypeVar
from uuid import UUID

from turnout import durations, shares
from turnout.cli.exits import usage
from turnout.cli.quantities import percent
from turnout.cli.suggestions import did_you_mean
from turnout.durations import DurationError
from turnout.log_range import LogRange, LogRangeError, PartitionOffset
from turnout.schema import ColumnType
from turnout.shares import WHOLE, ShareError, Sign

C = TypeVar("C", bound=StrEnum)

COUNT_MAX = 10**9
"""Most of anything that is counted or limited by a number: more means nothing, and not all of it can be sent."""
PARTITIONS_MAX = 10_000
"""Most partitions of a topic that `turnout produce` creates."""
_VERSION = re.compile(r"v?([1-9][0-9]{0,8})", re.ASCII)
_OFFSET = re.compile(r"(?P<topic>[A-Za-z0-9._-]{1,249})/(?P<partition>[0-9]{1,10})=(?P<offset>[0-9]{1,19})", re.ASCII)
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kKmMgGtT]?[bB])?", re.ASCII)
_UNIT_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_BYTES_MAX = 10**18


def version_number(text: str) -> int:
    """`v2` or `2` -> 2."""
    match = _VERSION.fullmatch(text)
    if match is None:
        raise usage(f"{text!r} is not a version: write v2 or 2.")
    return int(match[1])


def versions_of_jobs(texts: Sequence[str]) -> dict[str, int]:
    """`JOB v2`, or `JOB=v2 OTHER=v3` -> {"JOB": 2, "OTHER": 3}."""
    if not any("=" in text for text in texts):
        if len(texts) != 2:
            raise usage(f"Write a job and its version, or several as JOB=vN: got {' '.join(texts)!r}.")
        return {texts[0]: version_number(texts[1])}
    found: dict[str, int] = {}
    for text in texts:
        job, separator, version = text.partition("=")
        if not separator or not job:
            raise usage(f"{text!r} is not a job with its version: write JOB=vN for each of several jobs.")
        if job in found:
            raise usage(f"{job} is given twice: name each job once.")
        found[job] = version_number(version)
    return found


def weights(texts: Sequence[str]) -> dict[int, int]:
    """`v1=90 v2=10`, in percent -> {1: 9000, 2: 1000}, in basis points, which sum to 10000.

    A share below one percent needs no sign here: parts of one would not sum to 100.
    """
    arms: dict[int, int] = {}
    for text in texts:
        name, separator, share = text.partition("=")
        if not separator:
            raise usage(f"{text!r} is not a share: write a version and its percent, such as v2=10 or v2=0.25.")
        version = version_number(name)
        if version in arms:
            raise usage(f"v{version} is given twice: name each version once.")
        arms[version] = basis_points(share, text, Sign.NOWHERE)
    total = sum(arms.values())
    if total != WHOLE:
        given = " + ".join(percent(share) for share in arms.values())
        raise usage(f"The shares sum to {percent(total)}, not to 100 %: {given}.")
    return arms


def basis_points(text: str, where: str, sign: Sign = Sign.BELOW_ONE) -> int:
    """`5`, `12.5%`, `0.5%` -> 500, 1250, 50. where: the option, or the argument that it is a part of."""
    try:
        return shares.basis_points(text, sign)
    except ShareError as error:
        raise usage(f"{where}: {error}") from None


def share(text: str, option: str) -> float:
    """A PERCENT as a part of one."""
    return basis_points(text, option) / WHOLE


def duration(text: str) -> timedelta:
    """`30s`, `15m`, `1h30m`, `7d`, `500ms`."""
    try:
        return durations.parse(text)
    except DurationError as error:
        raise usage(str(error)) from None


def choice(kind: type[C], text: str, option: str) -> C:
    """The value of a kind of choices that is called so: `epsilon-greedy` -> BanditRule.EPSILON_GREEDY."""
    known = {one.value.lower().replace("_", "-"): one for one in kind}
    if text.lower() not in known:
        raise usage(f"{option} {text!r} is none of {', '.join(known)}{did_you_mean(text, known)}")
    return known[text.lower()]


def byte_count(text: str) -> int:
    """`10GB`, `500 MB`, `1.5TB`, in decimal units, or plain bytes."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise usage(f"{text!r} is not a size: write a number and B, kB, MB, GB or TB, such as 500MB or 1.5TB.")
    count = int(Decimal(match[1]) * _UNIT_BYTES[(match[2] or "b").lower()])
    if count > _BYTES_MAX:
        raise usage(f"{text!r} is more than a thousand petabytes.")
    return count


def log_range(start: str | None, end: str | None) -> LogRange | None:
    """The texts of --from and --until -> the range; None = all of the log."""
    begins, ends = _range_end("--from", start), _range_end("--until", end)
    try:
        found = LogRange(
            start_time=begins if isinstance(begins, datetime) else None,
            start_offsets=begins if isinstance(begins, tuple) else (),
            end_time=ends if isinstance(ends, datetime) else None,
            end_offsets=ends if isinstance(ends, tuple) else (),
        )
    except LogRangeError as error:
        raise usage(f"The range of the log makes no sense: {error}.") from None
    return None if found.whole else found


def _range_end(option: str, text: str | None) -> datetime | tuple[PartitionOffset, ...] | None:
    """A time, offsets, or None where the range is open."""
    if text is None or (option == "--from" and text == "earliest"):
        return None
    return _offsets(option, text) if "=" in text else _time(option, text)


def _offsets(option: str, text: str) -> tuple[PartitionOffset, ...]:
    """`flights/0=120,flights/1=118`"""
    found = []
    for one in text.split(","):
        match = _OFFSET.fullmatch(one.strip())
        if match is None:
            raise usage(
                f"{option}: {one.strip()!r} is not an offset of a partition: write topic/partition=offset with commas "
                f"between several, such as flights/0=120,flights/1=118."
            )
        found.append(PartitionOffset(match["topic"], int(match["partition"]), int(match["offset"])))
    return tuple(found)


def _time(option: str, text: str) -> datetime:
    choices = ("earliest, " if option == "--from" else "") + "a time such as 2026-03-01T12:00:00Z, or offsets such as"
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        hint = " A range begins at earliest and does not end there." if text == "earliest" else ""
        raise usage(f"{option} {text!r} is not {choices} flights/0=120,flights/1=118.{hint}") from None
    if time.tzinfo is None:
        raise usage(f"{option} {text!r} has no zone: write {time.isoformat()}Z for UTC, or an offset such as +01:00.")
    return time


def order_by(texts: Iterable[str]) -> list[tuple[str, bool]]:
    """`col`, `col:asc` or `col:desc` -> (column, descending)."""
    orders = []
    for text in texts:
        column, _, direction = text.partition(":")
        if not column or direction not in ("", "asc", "desc"):
            raise usage(f"{text!r} is not an order: write column, column:asc or column:desc.")
        orders.append((column, direction == "desc"))
    return orders


def key_columns(texts: Iterable[str]) -> dict[str, str]:
    """`carrier=UA month=2013-01-01` -> the texts by column."""
    values: dict[str, str] = {}
    for text in texts:
        column, separator, value = text.partition("=")
        if not separator or not column:
            raise usage(f"--key {text!r} is not column=value, such as --key carrier=UA.")
        if column in values:
            raise usage(f"--key names the column {column!r} twice.")
        values[column] = value
    return values


KeyValue = int | bool | str | bytes | date | datetime | Decimal | UUID
_BOOLS = {"true": True, "false": False}
_EXAMPLES = {
    ColumnType.INT64: "42",
    ColumnType.BOOL: "true or false",
    ColumnType.DATE: "2013-01-31",
    ColumnType.DECIMAL: "1.50",
    ColumnType.TIMESTAMP: "2013-01-31T12:00:00Z",
    ColumnType.BYTES: "hexadecimal digits such as 00ff",
    ColumnType.UUID: "123e4567-e89b-12d3-a456-426614174000",
}


def key_value(column: str, kind: ColumnType, text: str) -> KeyValue:
    """The text as a value of a key column."""
    try:
        return _typed(kind, text)
    except (ValueError, KeyError, InvalidOperation):
        raise usage(f"{column} is of type {kind.value}: {text!r} is none; write {_EXAMPLES[kind]}.") from None


def _typed(kind: ColumnType, text: str) -> KeyValue:
    if kind is ColumnType.INT64:
        return int(text)
    if kind is ColumnType.BOOL:
        return _BOOLS[text]
    if kind is ColumnType.DATE:
        return date.fromisoformat(text)
    if kind is ColumnType.TIMESTAMP:
        time = datetime.fromisoformat(text)
        return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    if kind is ColumnType.DECIMAL:
        return Decimal(text)
    if kind is ColumnType.UUID:
        return UUID(text)
    if kind is ColumnType.BYTES:
        return bytes.fromhex(text)
    return text
