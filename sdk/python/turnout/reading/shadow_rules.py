"""When the rows of two versions that were read one after the other may be compared, and how they differ. Pure.

Two tables that follow the log on their own hardly ever stand at the same positions. So the active version is read again
after the candidate, and the three reads are held against each other:

- Where tables keep each row's last change (maps and folds do, hidden), the rows are of the same records when the last
  change of either lies before both positions. A row that either has changed by a record after the answer is left out.
- Else, where the candidate has passed what the answer reflected and the active version has passed the candidate: a row
  that is the same before and after was the same in between, at the candidate's positions. Where it is not, that is the
  noise: the active version differs from itself, which counts against the candidate's differences.

Neither can make equal code look different by what is still to be applied.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

Row = Mapping[str, Any]
"""Values by the names of the columns that readers see."""
Vector = Mapping[tuple[str, str, int], int]
"""The next offset by topic, its id and partition."""

_TOLERANCE = 1e-9  # of sums in binary, whose order is free; that of a stored comparison


@dataclass(frozen=True, slots=True)
class LastChange:
    """The record that last changed a row. topic: "" = the only one that the table is made of."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A row (None = there is none) at the positions of its table, and its last change where the table keeps that."""

    row: Row | None
    at: Vector
    change: LastChange | None = None


class Judgement(Enum):
    """What becomes of three reads of a key."""

    COMPARE = "COMPARE"
    WAIT = "WAIT"
    """A table has to pass the other one first: read both again."""
    CHANGED = "CHANGED"
    """The row has changed since it was answered: it is compared when it is read again."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How a compared row differs. differs: the candidate's from the answered one; active_differs: that one from itself,
    read again. columns: those of both versions whose values differ."""

    differs: bool
    active_differs: bool
    only_active: bool = False
    only_candidate: bool = False
    columns: tuple[str, ...] = ()


def judged(answered: Seen, candidate: Seen, again: Seen) -> Judgement:
    """Whether an answer can be compared with what the candidate had, and the active version had after that."""
    changes = [one.change for one in (candidate, again) if one.change is not None]
    if not all(_within(one, answered.at) for one in changes):
        return Judgement.CHANGED
    if len(changes) == 2 and all(_within(one, candidate.at) for one in changes):
        return Judgement.COMPARE
    if passed(candidate.at, answered.at) and passed(again.at, candidate.at):
        return Judgement.COMPARE
    return Judgement.WAIT


def passed(later: Vector, earlier: Vector) -> bool:
    """Whether every partition has come as far as it was earlier."""
    return all(later.get(partition, -1) >= offset for partition, offset in earlier.items())


def difference(answered: Row | None, candidate: Row | None, again: Row | None) -> Difference:
    """How rows of the same records differ."""
    columns = _columns(answered, candidate)
    only_active = answered is not None and candidate is None
    only_candidate = answered is None and candidate is not None
    return Difference(
        differs=only_active or only_candidate or bool(columns),
        active_differs=(answered is None) != (again is None) or bool(_columns(answered, again)),
        only_active=only_active,
        only_candidate=only_candidate,
        columns=columns,
    )


def _within(change: LastChange, at: Vector) -> bool:
    return any(
        change.offset < offset
        for (topic, _, partition), offset in at.items()
        if partition == change.partition and change.topic in ("", topic)
    )


def _columns(one: Row | None, other: Row | None) -> tuple[str, ...]:
    if one is None or other is None:
        return ()
    return tuple(name for name in one if name in other and not _equal(one[name], other[name]))


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_TOLERANCE) or (one != one and other != other)
    return bool(one == other)
