"""How fresh a front's routes are, as OpenTelemetry metrics. Read when somebody collects them, and never otherwise.

Collecting happens on a thread of the exporter; each figure is one look at the front. The names are in docs/metrics.md.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from turnout.reading.freshness import Freshness
from turnout.reading.front import Front
from turnout.telemetry import meter

AGE: Final = "turnout.front.route_age"
FRESHNESS: Final = "turnout.front.freshness"
REVISION: Final = "turnout.front.revision"

_UNKNOWN = "unknown"
_NAMES = {Freshness.FRESH: "fresh", Freshness.ACTIVE_ONLY: "active_only", Freshness.STALE: "stale"}


class FrontMetrics:
    """Tells of one front from `start` to `stop`.

    attributes: of every figure, where a process may have several fronts.
    """

    def __init__(self, front: Front, attributes: Mapping[str, str] | None = None) -> None:
        self._front: Front | None = front
        self._attributes = dict(attributes or {})

    def start(self, on: Meter | None = None) -> None:
        """Register the instruments with a meter; unless told, with that of the process."""
        to = on if on is not None else meter("turnout.query")
        to.create_observable_gauge(
            AGE,
            [self._age],
            "s",
            "Time since the sending of the newest heartbeat that the switcher has acknowledged.",
        )
        to.create_observable_gauge(FRESHNESS, [self._freshness], "1", "1 for what the age of the routes allows.")
        to.create_observable_gauge(
            REVISION, [self._revision], "1", "Revision of the route watch that the front serves."
        )

    def stop(self) -> None:
        """Answer no more: instruments cannot be taken back."""
        self._front = None

    def _age(self, _: CallbackOptions) -> Iterator[Observation]:
        if self._front is not None and (age_s := self._front.age_s) is not None:
            yield Observation(age_s, self._attributes)

    def _freshness(self, _: CallbackOptions) -> Iterator[Observation]:
        if self._front is not None:
            freshness = self._front.freshness
            state = _UNKNOWN if freshness is None else _NAMES[freshness]
            yield Observation(1, {**self._attributes, "state": state})

    def _revision(self, _: CallbackOptions) -> Iterator[Observation]:
        if self._front is not None:
            yield Observation(self._front.table.revision, self._attributes)
