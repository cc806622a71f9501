"""A shadow, and what is told of it: frozen values, in the conventions of `turnout.results`."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Shadow:
    """A candidate that fronts read beside the active version, and its share of the reads, in basis points from 1."""

    version: int
    share: int


class ShadowVerdict(enum.StrEnum):
    """What is said of a candidate."""

    NOT_SHOWN = "NOT_SHOWN"  # it is not shown to differ more often than the active version from itself
    DIFFERS = "DIFFERS"  # it does


@dataclass(frozen=True, slots=True)
class ShadowCounts:
    """Sampled reads by what became of them. The first that is compared of a key counts, once a front and epoch.

    compared: of them the candidate had an `equal` row, or differed; the active version, read again, differed from
    itself in `active_differs`. Reads in which one of the two differed alone are what a verdict rests on. only_active,
    only_candidate: only that version had a row. columns: rows that differ by column. left_out: reads that were not
    compared, by reason.
    """

    compared: int = 0
    equal: int = 0
    only_candidate_differs: int = 0
    only_active_differs: int = 0
    active_differs: int = 0
    only_active: int = 0
    only_candidate: int = 0
    columns: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """What was compared of a candidate with the active version that it was last beside.

    share: of the reads that are sampled, in basis points; None = the shadow has been stopped. compared_share: compared
    reads of those sampled; None where none was. e_value: evidence, which speaks from `threshold` on.
    """

    job: str
    version: int
    active_version: int
    share: int | None
    counts: ShadowCounts
    compared_share: float | None
    e_value: float
    threshold: float
    verdict: ShadowVerdict
    sentence: str
    update_time: datetime | None
