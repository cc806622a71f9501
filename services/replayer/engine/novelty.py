"""Whether a batch is worth copying straight into the table, as if none of its keys were there yet. Pure.

If that is so it saves half of the work; if it is not, the table's primary key refuses the batch, what was copied of it
is dead weight until the next vacuum, and it is merged after all. So the way that last went well is taken, and after a
refusal the other one for twice as many batches as the time before. A replay into an empty table begins with new keys.
"""

from dataclasses import dataclass
from typing import Final

MERGES_MAX: Final = 64  # in a row, before new keys are tried again


@dataclass(slots=True)
class Novelty:
    """What the batches of one table have been like."""

    _merges: int = 0  # to come, before new keys are tried again
    _next: int = 1  # merges after the next refusal

    def expected(self) -> bool:
        """Whether to take all keys of the next batch for new. To be asked once a batch."""
        if self._merges == 0:
            return True
        self._merges -= 1
        return False

    def confirmed(self) -> None:
        """They were."""
        self._next = 1

    def refuted(self) -> None:
        """One at least was not."""
        self._merges = self._next
        self._next = min(MERGES_MAX, 2 * self._next)
