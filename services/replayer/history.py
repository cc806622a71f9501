"""What has been measured: all of the last seconds, without a gap, and of earlier only what a forecast needs. Pure.

While PostgreSQL is away nothing is measured, and anything may have happened meanwhile. So a gap ends the samples: what
is judged by them, such as that a run has been level for a while, begins anew. How fast a run is, and how the starts of
the logs have moved, is remembered over a gap (`forecast.py`, `retention.py`).
"""

from typing import Final

from services.replayer.forecast import UNKNOWN, Forecast, Track
from services.replayer.protocol import TopicPartition
from services.replayer.retention import StartLine
from services.replayer.run import Sample
from turnout.names import VersionId

KEPT_S: Final = 12.0
GAP_S: Final = 1.0  # several times what lies between two samples


class History:
    """`samples`: oldest first, none of which lies further than GAP_S from the next. `starts`: of every partition."""

    def __init__(self) -> None:
        self.samples: tuple[Sample, ...] = ()
        self.starts: dict[TopicPartition, StartLine] = {}
        self._tracks: dict[VersionId, Track] = {}

    def add(self, sample: Sample) -> None:
        """The newest sample; it is all there is when the one before lies too far back."""
        unbroken = self.samples and sample.monotonic_s - self.samples[-1].monotonic_s <= GAP_S
        kept = [one for one in self.samples if sample.monotonic_s - one.monotonic_s <= KEPT_S] if unbroken else []
        self.samples = (*kept, sample)
        self._tracks = {version: self._tracks.get(version) or Track() for version in sample.runs}
        for version, track in self._tracks.items():
            track.add(sample.runs[version], sample)
        self.starts = {tp: self.starts.get(tp) or StartLine() for tp in sample.ends}
        for tp, line in self.starts.items():
            line.add(sample.monotonic_s, sample.ends[tp].start)

    def forecast(self, version: VersionId) -> Forecast:
        """When the run reaches its end, as of the newest sample."""
        track = self._tracks.get(version)
        return UNKNOWN if track is None else track.forecast()
