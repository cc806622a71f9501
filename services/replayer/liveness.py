"""When a worker process that is still there counts as gone: it does nothing, and would keep its partitions for ever.

Theory of operation. A worker says something at least every BEAT_S, from a thread of its own: while it waits for Kafka
or PostgreSQL, while a write takes long, while the job's function works on a record or its module is imported. So
silence has few causes. A process that was frozen runs no more and is given the length of a lease, after which others
may take its partitions anyway. One that runs and is silent computes inside a single call that lets no other thread in,
such as a regular expression that backtracks: the job's function is allowed its time limit. One that has never spoken
is being loaded, which a busy machine makes long.

Only what was listened to counts as silence: a supervisor that was itself held up has heard nothing of workers that
spoke all along, and reads it first.

The other way round the same: a worker whose supervisor was frozen, and says nothing for a lease, ends in order. Others
count on its partitions by then, and nobody could tell it that its run is to pause.
"""

from typing import Final

BEAT_S: Final = 0.5  # a worker that has nothing else to say says Alive
LOOK_S: Final = 0.25  # how often the supervisor looks
LOOK_MAX_S: Final = 1.0  # more than that between two looks: the supervisor was held up, and the rest does not count
SILENCE_MIN_S: Final = 3.0  # several beats, however short the lease
START_WITHIN_S: Final = 60.0


def silence_allowed_s(lease_s: float, transform_limit_s: float, *, spoke: bool, running: bool) -> float:
    """How long a worker may be silent. spoke: it has said something before; running: the system says that it runs."""
    allowed_s = max(SILENCE_MIN_S, lease_s)
    if running:
        allowed_s += transform_limit_s
    return allowed_s if spoke else max(START_WITHIN_S, allowed_s)


def left_alone_after_s(lease_s: float) -> float:
    """How long a supervisor that has spoken before may be silent."""
    return max(SILENCE_MIN_S, lease_s)


class Silence:
    """How long the other side has been silent. Times are monotonic seconds."""

    def __init__(self, now_s: float) -> None:
        self.spoke = False
        self.lasts_s = 0.0
        self._looked_s = now_s

    def broken(self) -> None:
        """The other side said something."""
        self.spoke = True
        self.lasts_s = 0.0

    def look(self, now_s: float) -> float:
        """Listened until now without a break: how long the silence lasts."""
        self.lasts_s += min(max(0.0, now_s - self._looked_s), LOOK_MAX_S)
        self._looked_s = now_s
        return self.lasts_s
