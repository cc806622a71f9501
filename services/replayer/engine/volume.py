"""How much a batch sends to the table, and which share of it each partition is told to have sent. Pure.

Approximate on purpose: nothing here is done for every record. A row of an aggregate is made of records of several
partitions anyway.
"""

from collections.abc import Sequence
from typing import Any, Final

_SAMPLED: Final = 64  # rows of a batch that are looked at
_ROW_BYTES: Final = 28  # a row's header and its place on the page
_VALUE_BYTES: Final = 8  # of a value that is neither text nor bytes


def bytes_of(rows: Sequence[Sequence[Any]], columns: int) -> int:
    """Roughly the bytes of the first `columns` values of these rows in the table, from a sample of them."""
    sample = rows[:: max(1, len(rows) // _SAMPLED)]
    if not sample:
        return 0
    sampled = sum(
        _ROW_BYTES + sum(len(value) if isinstance(value, str | bytes) else _VALUE_BYTES for value in row[:columns])
        for row in sample
    )
    return sampled * len(rows) // len(sample)


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """The total in whole parts by weight, whose sum is the total; nothing where all weights are 0."""
    whole = sum(weights)
    parts, given, seen = [], 0, 0
    for weight in weights:
        seen += weight
        upto = total * seen // whole if whole else 0
        parts.append(upto - given)
        given = upto
    return parts
