"""What a front makes of reads within an experiment: ids for its answers, and what it has to tell the switcher. Pure.

An answer's exposure is in its id, signed; of all exposures only the first of a unit to a version is told, so that units
are counted whether or not an outcome comes, and of what went wrong only the first of each kind. Telling twice changes
nothing, so that what has been told is remembered in two generations of bounded size, and forgotten with the older one.

What is not told yet is bounded, too: while the switcher is away for longer than that lasts, it is dropped and counted,
whichever arm it is of.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import Final

from turnout.exposure import LEFT_OUT_MAX, Exposure, Signer, identity
from turnout.routing import Route

REMEMBERED_MAX: Final = 200_000
"""Observations of each of the two generations: some 30 MB together."""
UNTOLD_MAX: Final = 100_000
"""Observations that wait to be told."""


class Seen(Enum):
    """What a front sees of an answer within an experiment."""

    EXPOSED = "EXPOSED"
    FAILURE = "FAILURE"
    NOT_FOUND = "NOT_FOUND"
    SLOW = "SLOW"


@dataclass(frozen=True, slots=True)
class Observation:
    """What is told: the exposure, and what was seen of it."""

    exposure: Exposure
    seen: Seen


class Exposures:
    """The exposures of one front."""

    def __init__(self, *, remembered_max: int = REMEMBERED_MAX, untold_max: int = UNTOLD_MAX) -> None:
        self.lost = 0
        """Observations that were dropped."""
        self.left_out: dict[int, int] = {}
        """Reads, by the number of the experiment that did not count them because of their unit."""
        self._remembered_max = remembered_max
        self._untold_max = untold_max
        self._signer: Signer | None = None
        self._told: set[tuple[int, int, int, str]] = set()
        self._told_before: set[tuple[int, int, int, str]] = set()
        self._untold: deque[Observation] = deque()

    def use_keys(self, keys: Mapping[int, bytes]) -> None:
        """Sign with the last of these keys from now on."""
        if keys:
            self._signer = Signer(*list(keys.items())[-1])

    def of(self, route: Route, version: int, unit: str, time_s: float) -> Exposure:
        """The exposure of a unit to a version by the route, which has an experiment, at a time (since 1970)."""
        assert route.experiment is not None, "without an experiment nothing is exposed"
        who = identity(route.experiment.name, unit)
        return Exposure(route.experiment.number, route.epoch, version, route.weight(version), int(time_s), who)

    def answered(self, route: Route, exposure: Exposure, *, found: bool, took_s: float) -> str:
        """An answer is given: note what was seen of it. The exposure's id, "" while there is no key to sign with."""
        assert route.experiment is not None
        self._note(exposure, Seen.EXPOSED)
        if not found:
            self._note(exposure, Seen.NOT_FOUND)
        if route.experiment.slow_us and took_s * 1e6 > route.experiment.slow_us:
            self._note(exposure, Seen.SLOW)
        return "" if self._signer is None else self._signer.id_of(exposure)

    def unanswered(self, exposure: Exposure, *, to_blame: bool) -> None:
        """No answer could be given; to_blame: it was the version's failure."""
        self._note(exposure, Seen.EXPOSED)
        if to_blame:
            self._note(exposure, Seen.FAILURE)

    def leave_out(self, experiment: int, reads: int = 1) -> None:
        """Reads are not counted, as they brought no unit of the kind that the experiment of this number counts by."""
        if experiment not in self.left_out and len(self.left_out) >= LEFT_OUT_MAX:
            del self.left_out[min(self.left_out)]
        self.left_out[experiment] = self.left_out.get(experiment, 0) + reads

    @property
    def untold(self) -> int:
        """Observations that wait to be told."""
        return len(self._untold)

    def next(self, count: int) -> Sequence[Observation]:
        """The oldest observations that are to be told; they stay until `told`."""
        return list(islice(self._untold, count))

    def told(self, count: int) -> None:
        """So many of the oldest have been stored."""
        for _ in range(count):
            self._untold.popleft()

    def _note(self, exposure: Exposure, seen: Seen) -> None:
        experiment, _, version, _, _, unit = exposure
        known = experiment, unit, version, seen._value_  # for every read: `value` takes longer than all the rest
        if known in self._told or known in self._told_before:
            return
        if len(self._untold) >= self._untold_max:
            self.lost += 1  # not remembered: it is told when it is seen again and there is room
            return
        if len(self._told) >= self._remembered_max:
            self._told_before, self._told = self._told, set()
        self._told.add(known)
        self._untold.append(Observation(exposure, seen))
