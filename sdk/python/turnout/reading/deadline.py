"""Until when a read may take."""

import time

from turnout.reading.limits import READ_S_MAX


class Deadline:
    """Until when a call may take. Every wait of the call is given what is left."""

    __slots__ = ("_at_s",)

    def __init__(self, remaining_s: float) -> None:
        self._at_s = time.monotonic() + min(remaining_s, READ_S_MAX)

    @property
    def left_s(self) -> float:
        """Seconds left; never less than a moment, so that what is over ends as a timeout."""
        return max(0.001, self._at_s - time.monotonic())
