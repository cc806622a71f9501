"""The measurements of the last seconds without a gap: what "all the time" can be said of. Pure.

While PostgreSQL is away nothing is measured, and anything may have happened meanwhile. So a gap ends the history: what
is judged by it, such as that a run has been level for a while, begins anew.
"""

from collections import deque
from typing import Final

from services.replayer.run import Sample

KEPT_S: Final = 12.0
GAP_S: Final = 1.0  # several times what lies between two samples


class History:
    """Samples, oldest first, none of which lies further than GAP_S from the next."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque()

    @property
    def samples(self) -> tuple[Sample, ...]:
        return tuple(self._samples)

    def add(self, sample: Sample) -> None:
        """The newest sample; it is all there is when the one before lies too far back."""
        if self._samples and sample.monotonic_s - self._samples[-1].monotonic_s > GAP_S:
            self._samples.clear()
        self._samples.append(sample)
        while sample.monotonic_s - self._samples[0].monotonic_s > KEPT_S:
            self._samples.popleft()
