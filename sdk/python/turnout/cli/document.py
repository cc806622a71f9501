"""Results of the client as plain values for JSON.

Names are those of the results. Times are RFC 3339 text; a duration is a number of seconds under its name with `_s`
appended; bytes are base64; Decimal and UUID are text; NaN and infinities are null, as JSON has none.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping
from datetime import timedelta

import msgspec

from turnout.results import Read


def document(value: object) -> object:
    """The value, down to what JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            name: inner
            for field in dataclasses.fields(value)
            for name, inner in [_named(field.name, getattr(value, field.name), str(field.type))]
        }
    if isinstance(value, Read):
        return {name: document(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(name): document(inner) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        return [document(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, timedelta):
        return value.total_seconds()
    return msgspec.to_builtins(value)


def _named(name: str, value: object, declared: str) -> tuple[str, object]:
    return (f"{name}_s" if "timedelta" in declared else name), document(value)
