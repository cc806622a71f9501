"""Which of several equal targets a call goes to. Pure: time is passed in, in seconds of a monotonic clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

REST_S = 1.0
REST_S_MAX = 30.0


class Places:
    """Targets in the order in which they are liked.

    The first is asked for everything, so that one caller sees one front's routes, until a call to it fails; then it
    rests, for longer with every further failure, and the next one stands in. Once it has rested it is asked again.
    """

    def __init__(self, targets: Sequence[str]) -> None:
        if not targets:
            raise ValueError("there is no target")
        self._targets = tuple(dict.fromkeys(targets))
        self._failures = dict.fromkeys(self._targets, 0)
        self._rests_until_s = dict.fromkeys(self._targets, float("-inf"))

    def __len__(self) -> int:
        return len(self._targets)

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def first(self, now_s: float) -> str:
        """Whom to ask: the first that does not rest, else the one that has to rest the least."""
        return self._best(self._targets, now_s)

    def other(self, than: str, now_s: float) -> str:
        """Whom to ask when that one has failed; the same one where there is no other."""
        return self._best([one for one in self._targets if one != than] or [than], now_s)

    def answered(self, target: str) -> None:
        """It is there: it need not rest."""
        if self._failures[target]:
            self._failures[target] = 0
            self._rests_until_s[target] = float("-inf")

    def failed(self, target: str, now_s: float) -> None:
        """It is not there. A failure while it rests is of a call that began before, and counts for nothing."""
        if now_s >= self._rests_until_s[target]:
            self._rests_until_s[target] = now_s + min(REST_S * 2.0 ** self._failures[target], REST_S_MAX)
            self._failures[target] += 1

    def _best(self, targets: Sequence[str], now_s: float) -> str:
        return min(targets, key=lambda one: max(now_s, self._rests_until_s[one]))
