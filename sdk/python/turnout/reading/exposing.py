"""The exposures of one read: noted when its units are resolved, told when it is answered or has failed.

A read that an experiment does not count because of its unit is noted and told in the same way, once it is answered.
"""

import time
from collections.abc import Sequence
from typing import Final

from turnout.errors import FailedPrecondition, ResourceExhausted, Unavailable
from turnout.exposure import Exposure
from turnout.reading.exposures import Exposures
from turnout.reading.routing import Resolution, Resolver
from turnout.routing import Route, Units

_FAILURES: Final = (FailedPrecondition, ResourceExhausted, Unavailable)
"""What a version may be to blame for. A key that is none, or a job without a route, is the caller's own."""


class Exposing:
    """Of one read, which may be resolved again: the last resolution counts."""

    __slots__ = ("_began_s", "_exposed", "_exposures", "_left_out", "_reading", "_route")

    def __init__(self, exposures: Exposures) -> None:
        self._exposures = exposures
        self._began_s = time.monotonic()
        self._route: Route | None = None
        self._exposed: dict[int, Exposure] = {}  # by place in the read
        self._left_out: dict[int, int] = {}  # reads by the number of the experiment
        self._reading = 0

    def resolved(self, resolver: Resolver, resolution: Resolution, unit: str, units: Units, place: int = 0) -> None:
        """The unit of a read, or of the key at that place of it, is resolved."""
        if resolver.counts(resolution, units):
            assert resolver.route is not None, "an experiment stands on a route"
            self._route = resolver.route
            self._exposed[place] = self._exposures.of(resolver.route, resolution.version, unit, time.time())
        elif number := resolver.leaves_out(unit, units):
            self._left_out[number] = self._left_out.get(number, 0) + 1

    def anew(self) -> None:
        """The read is resolved again."""
        self._exposed.clear()
        self._left_out.clear()

    def reading(self, version: int) -> None:
        """The version is read now: what fails from here on is its failure, and no other's of the same batch."""
        self._reading = version

    def answered(self, found: bool, place: int = 0) -> str:
        """Id of the exposure of the unit, or of that at a place; "" where no experiment counts it."""
        if self._left_out:
            self._leave_out()
        exposure = self._exposed.get(place)
        if exposure is None or self._route is None:
            return ""
        took_s = time.monotonic() - self._began_s
        return self._exposures.answered(self._route, exposure, found=found, took_s=took_s)

    def answered_each(self, places: Sequence[int], rows: Sequence[int]) -> Sequence[str]:
        """Ids of the exposures at the places; none where no experiment counts them. rows: of each, 0 = it has none."""
        if self._left_out:
            self._leave_out()
        if not self._exposed:
            return ()
        return [self.answered(row > 0, place) for place, row in zip(places, rows, strict=True)]

    def _leave_out(self) -> None:
        for number, reads in self._left_out.items():
            self._exposures.leave_out(number, reads)
        self._left_out.clear()

    def __enter__(self) -> None:
        """Around everything between resolution and answer: what fails there is told of the version."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, _FAILURES):
            for exposure in self._exposed.values():
                # Units of other versions in the same batch count as exposed all the same: which of them are left
                # without an answer depends on who shares their batch, not on chance.
                self._exposures.unanswered(exposure, to_blame=exposure.version == self._reading)
