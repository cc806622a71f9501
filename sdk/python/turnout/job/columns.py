"""From a row type to columns: which Python type maps to which column, and which values a column takes."""

from __future__ import annotations

import enum
import math
import re
import types
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints
from uuid import UUID

import msgspec

from turnout.job.errors import JobDefinitionError
from turnout.job.rows import Approximate, Row
from turnout.schema import Column, ColumnType, Merge, SchemaError, check_column_name

COLUMN_TYPES = {
    int: ColumnType.INT64,
    float: ColumnType.FLOAT64,
    bool: ColumnType.BOOL,
    str: ColumnType.STRING,
    bytes: ColumnType.BYTES,
    date: ColumnType.DATE,
    datetime: ColumnType.TIMESTAMP,
    Decimal: ColumnType.DECIMAL,
    UUID: ColumnType.UUID,
    list: ColumnType.JSON,
    dict: ColumnType.JSON,
}
MAPPED_TYPES = "int, float, bool, str, bytes, date, datetime, Decimal, UUID, an Enum, list, dict"

INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1

# PostgreSQL's numeric ends near 10 ** 131072. This is far beyond any measure, and keeps exact sums small.
DECIMAL_EXPONENT_MAX = 1000


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a row type: its column, its Python class (without `| None`), and its whole type for decoding JSON."""

    column: Column
    python: type
    annotation: Any


def fields_of(row_type: type[Row]) -> tuple[Field, ...]:
    """The fields of a row type in order. JobDefinitionError for a type that maps to no column."""
    try:
        hints = get_type_hints(row_type, include_extras=True)
    except Exception as error:
        raise JobDefinitionError(
            f"the types of {row_type.__name__} cannot be read: {error}",
            "define or import each type that a field names, at the top level of the file",
            subject=row_type.__name__,
        ) from error
    return tuple(_field(row_type, name, hints[name]) for name in row_type.__struct_fields__)


def _field(row_type: type[Row], name: str, hint: Any) -> Field:
    def refuse(reason: str, remedy: str) -> JobDefinitionError:
        return JobDefinitionError(
            f"field {name!r} of {row_type.__name__} {reason}", remedy, subject=row_type.__name__, field=name
        )

    try:
        check_column_name(name)
    except SchemaError as error:
        raise refuse(f"is no column: {error}", "rename the field") from None
    marks: tuple[Any, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *rest = get_args(hint)
        marks = tuple(rest)
    merges = [mark for mark in marks if isinstance(mark, Merge)]
    if len(merges) > 1:
        raise refuse("merges in two ways", "give it one of Key, Sum, Min, Max, LastBy")
    base, nullable = _without_none(hint)
    if get_origin(base) is Annotated and any(isinstance(mark, Merge) for mark in get_args(base)[1:]):
        raise refuse("has its `| None` outside", "write it inside the brackets, for example Sum[int | None]")
    python = get_origin(base) or base
    kind = COLUMN_TYPES.get(python) if isinstance(python, type) else None
    enum_values: tuple[str, ...] = ()
    if isinstance(python, type) and issubclass(python, enum.Enum):
        kind, enum_values = ColumnType.ENUM, tuple(enum_texts(python).values())
    if kind is None:
        raise refuse(
            f"has the type {_type_text(hint)}, which maps to no column",
            f"use one of {MAPPED_TYPES}, each also with `| None`",
        )
    if kind is ColumnType.JSON:
        try:
            msgspec.json.Decoder(base)
        except TypeError as error:
            raise refuse(
                f"has the type {_type_text(hint)}, which JSON cannot hold: {error}",
                "use lists and dicts of plain types",
            ) from None
    merge = merges[0] if merges else Merge.NONE
    column = Column(name, kind, nullable, merge, enum_values=enum_values, approximate=Approximate in marks)
    return Field(column, python, base)


def _without_none(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) in (Union, types.UnionType):
        members = get_args(hint)
        kept = tuple(member for member in members if member is not types.NoneType)
        if len(kept) == 1:
            return kept[0], len(kept) < len(members)
    return hint, False


def _type_text(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


def enum_texts(python: type[enum.Enum]) -> dict[enum.Enum, str]:
    """The text stored for each member: its value where all values are texts, else its name."""
    by_value = all(isinstance(member.value, str) for member in python)
    return {member: str(member.value) if by_value else member.name for member in python}


# --- values: exactly the type of the column, or an error --------------------------------------------------------------

Check = Callable[[Any], Any]

_NUL_IN_JSON = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # the escape, not a backslash before "u0000"


def needs_check(field: Field, value: str) -> str:
    """The Python condition, over the expression `value`, under which `check_of(field)` has to look at a value.

    Also what only PostgreSQL would refuse is looked for here, record by record: there, after rows of one key were
    combined, it would depend on the batch whether a value is still to be seen."""
    kind, merges = field.column.type, field.column.merge not in (Merge.NONE, Merge.KEY)
    if kind in (ColumnType.DECIMAL, ColumnType.ENUM, ColumnType.JSON):
        condition = "True"
    elif kind is ColumnType.TIMESTAMP:
        condition = f"type({value}) is not datetime or {value}.tzinfo is not UTC"
    elif kind is ColumnType.FLOAT64 and merges:
        condition = f"type({value}) is not float or {value} - {value} != 0.0"  # not a number, or infinite
    elif kind is ColumnType.INT64:
        condition = f"type({value}) is not int or not {INT64_MIN} <= {value} <= {INT64_MAX}"
    elif kind is ColumnType.STRING:
        condition = f"type({value}) is not str or '\\0' in {value}"
    else:
        condition = f"type({value}) is not {field.python.__name__}"
    if field.column.nullable:
        return f"{value} is not None" if condition == "True" else f"{value} is not None and ({condition})"
    return condition


def check_of(field: Field) -> Check:
    """The function that returns a value as the column holds it. ValueError, naming the column, if it cannot."""
    column = field.column
    convert = _enum(field.python) if column.type is ColumnType.ENUM else _CONVERT[column.type]
    finite = column.type is ColumnType.FLOAT64 and column.merge not in (Merge.NONE, Merge.KEY)

    def check(value: Any) -> Any:
        if value is None:
            raise ValueError(f"column {column.name!r}: None, but the field is not optional")
        try:
            converted = convert(value)
        except _Refused as refused:
            raise ValueError(f"column {column.name!r}: {refused}") from None
        if finite and not math.isfinite(converted):
            raise ValueError(f"column {column.name!r}: {value!r} does not merge: filter it, or store None")
        return converted

    return check


class _Refused(Exception):
    pass


def _expected(what: str, value: object) -> _Refused:
    return _Refused(f"expected {what}, got {_shown(value)} ({type(value).__name__})")


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


def _int(value: Any) -> int:
    if not isinstance(value, int):
        raise _expected("int", value)
    if not INT64_MIN <= value <= INT64_MAX:
        raise _Refused(f"{_shown(value)} does not fit into 64 bits (int64)")
    return int(value)


def _float(value: Any) -> float:
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            pass
    raise _expected("float", value)


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise _expected("bool", value)


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise _expected("str", value)
    if "\0" in value:
        raise _Refused(f"the text {_shown(value)} holds NUL (0x00), which PostgreSQL does not store")
    return str.__str__(value)


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise _expected("bytes", value)


def _date(value: Any) -> date:
    if isinstance(value, datetime):
        raise _expected("date (use .date())", value)
    if isinstance(value, date):
        return date(value.year, value.month, value.day)
    raise _expected("date", value)


def _timestamp(value: Any) -> datetime:
    if not isinstance(value, datetime):
        raise _expected("datetime", value)
    if value.utcoffset() is None:
        raise _Refused(
            f"the datetime {value.isoformat()} has no time zone: give it one, for example value.replace(tzinfo=UTC)"
        )
    return value.astimezone(UTC)


def _decimal(value: Any) -> Decimal:
    if isinstance(value, int):
        value = Decimal(int(value))
    if not isinstance(value, Decimal):
        raise _expected("Decimal", value)
    if not value.is_finite():
        raise _Refused(f"{value} is not a finite number")
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)
    if exponent < -DECIMAL_EXPONENT_MAX or value.adjusted() > DECIMAL_EXPONENT_MAX:
        raise _Refused(f"a Decimal has at most {DECIMAL_EXPONENT_MAX} digits before and after the point")
    return value


def _uuid(value: Any) -> UUID:
    if isinstance(value, UUID):
        return UUID(int=value.int)
    raise _expected("UUID", value)


def _json(value: Any) -> str:
    if not isinstance(value, list | dict):
        raise _expected("list or dict", value)
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError) as error:
        raise _Refused(f"JSON cannot hold it: {error}") from None
    if _NUL_IN_JSON.search(text):
        raise _Refused(f"a text within {_shown(value)} holds NUL (0x00), which PostgreSQL does not store")
    return text


def _enum(python: type[enum.Enum]) -> Check:
    texts = enum_texts(python)
    names = {member.name: text for member, text in texts.items()}

    def convert(value: Any) -> str:
        if type(value) is not python or not isinstance(value, enum.Enum):
            raise _expected(f"a member of {python.__name__}", value)
        return names[value.name]

    return convert


_CONVERT: dict[ColumnType, Check] = {
    ColumnType.INT64: _int,
    ColumnType.FLOAT64: _float,
    ColumnType.BOOL: _bool,
    ColumnType.STRING: _str,
    ColumnType.BYTES: _bytes,
    ColumnType.DATE: _date,
    ColumnType.TIMESTAMP: _timestamp,
    ColumnType.DECIMAL: _decimal,
    ColumnType.UUID: _uuid,
    ColumnType.JSON: _json,
}


def restore_of(field: Field) -> Check | None:
    """The function from a stored value back to the field's, None if they are the same."""
    if field.column.type is ColumnType.ENUM:
        return {text: member for member, text in enum_texts(field.python).items()}.__getitem__
    if field.column.type is ColumnType.JSON:
        return msgspec.json.Decoder(field.annotation).decode
    return None
