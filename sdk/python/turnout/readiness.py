"""Whether and to what a rollback would return, as the client tells it; units as in `turnout.results`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Staleness:
    """How far a table is behind another one. event_time: in the partition that is furthest behind."""

    offsets: int
    event_time: timedelta


@dataclass(frozen=True, slots=True)
class RowsDiffering:
    """Keys whose rows differ, or that only one of two versions has, and their share (0 to 1) of all keys of both.

    comparison: the id of the comparison that told it, which has samples of the rows; None from an older switcher.
    """

    keys: int
    share: float
    compare_time: datetime | None
    comparison: str | None


@dataclass(frozen=True, slots=True)
class RollbackReadiness:
    """What a rollback would do now.

    possible: whether roll_back would be accepted. problems: why it would not, or what readers would miss. warnings:
    what else it would bring about, such as the end of an experiment. version, weights: what readers would return to;
    None and empty where there is nothing. staleness: of that version's table against the active one's, None while it is
    not known. lag: offsets its run has still to read. rows_differing: by the last stored comparison, if there is one.
    fresh_until: its run cannot go on later, for the log will lose what it has not read; None = not in sight.
    """

    job: str
    possible: bool
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    version: int | None
    weights: Mapping[int, int]
    staleness: Staleness | None
    lag: int
    rows_differing: RowsDiffering | None
    protected_until: datetime | None
    fresh_until: datetime | None
