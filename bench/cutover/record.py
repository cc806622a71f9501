"""What a reader process tells of each read, and what it holds to be right."""

from collections.abc import Mapping
from typing import Final

from turnout.results import Read

RECORD: Final = "=dddiii"  # due, begun and answered, in seconds of the machine's clock; epoch, version, result
RIGHT, WRONG, FAILED = 0, 1, 2
FACTORS: Final = {1: 1, 2: 2}  # of the versions: what a record counts for


def right(slot: int, read: Read, factors: Mapping[int, int] = FACTORS) -> bool:
    """Whether the row of a slot is what its version makes of the log before the applied position: FACTOR times that."""
    position = next((one.next_offset for one in read.applied_positions if one.partition == slot), None)
    return position is not None and read.row is not None and read.row["total"] == factors[read.version] * position
