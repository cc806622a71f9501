"""How fast a worker may read: a token bucket over records, changed while it runs. Pure: time is passed in."""

BURST_S = 0.25  # what may be read at once, in seconds of the rate: small, so that progress is even
PORTION_S = 0.02  # what is waited for, in seconds of the rate: to wake for every record would cost more than to read it


class Pace:
    """A worker's share of the run's rate. `per_s` None = unlimited, 0 = hold still."""

    def __init__(self, per_s: float | None, now_s: float) -> None:
        self._per_s = per_s
        self._tokens = 0.0
        self._at_s = now_s

    @property
    def per_s(self) -> float | None:
        """The rate in force."""
        return self._per_s

    def change(self, per_s: float | None, now_s: float) -> None:
        """A new rate from now on; what was saved up under the old one is kept within the new burst."""
        self._refill(now_s)
        self._per_s = per_s
        self._cap()

    def allowed(self, wanted: int, now_s: float) -> int:
        """How many records may be read now, 0 to `wanted`; 0 also when it is less than a portion and not all."""
        if self._per_s is None:
            return wanted
        self._refill(now_s)
        return 0 if self._tokens < min(wanted, self._portion) else min(wanted, int(self._tokens))

    def spend(self, records: int) -> None:
        """Records that were read. More than allowed is a debt that later time pays."""
        if self._per_s is not None:
            self._tokens -= records

    def wait_s(self, now_s: float) -> float:
        """Seconds until a portion may be read, at least one record; infinite while the rate is 0."""
        if self._per_s is None:
            return 0.0
        self._refill(now_s)
        if self._tokens >= self._portion:
            return 0.0
        return (self._portion - self._tokens) / self._per_s if self._per_s > 0 else float("inf")

    @property
    def _portion(self) -> float:
        return max(1.0, (self._per_s or 0.0) * PORTION_S)

    def _refill(self, now_s: float) -> None:
        if self._per_s is not None:
            self._tokens += max(0.0, now_s - self._at_s) * self._per_s
            self._cap()
        self._at_s = max(self._at_s, now_s)

    def _cap(self) -> None:
        if self._per_s is not None:
            # Two whole records at least, or the fractions saved up at a low rate would be lost.
            burst = max(2.0, self._per_s * BURST_S) if self._per_s > 0 else 0.0
            self._tokens = min(self._tokens, burst)
