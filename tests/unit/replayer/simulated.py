"""A replay as its samples show it: workers that commit batch after batch, seeded, in no time.

`Replay` has batches of one length, at whatever rate is given. `BatchedReplay` has those that the engine makes, by its
own rules: small ones first, and each gathered while the one before it is written.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from services.replayer.engine.batch import Batch, Span, Tempo, due
from services.replayer.run import LogEnds, Position, Run, Sample
from services.replayer.states import State
from tests.unit.replayer.made import NOW, run, tp

EVERY_S = 0.25


@dataclass
class Hand:
    """One worker: its partitions' lengths at the start, and how fast it reads at a time and a share of its way."""

    lengths: list[int]
    rate: Callable[[float, float], float]  # (seconds, share done) -> records a second
    arriving: float = 0.0  # records a second that each partition gets


@dataclass
class Replay:
    """A simulated run. `noise`: standard deviation of a batch's time; a `stall` every so often is a checkpoint."""

    hands: Sequence[Hand]
    seed: int = 0
    batch_s: float = 0.7
    noise: float = 0.1
    stall_every_s: float = 0.0
    stall_s: float = 0.0
    run: Run = field(default_factory=lambda: run(2, State.REPLAYING))

    def samples(self, until_s: float = 1e9) -> Iterator[tuple[Sample, bool]]:
        """Four a second until every partition is at its end, then no more; whether the run was there."""
        rng = random.Random(self.seed)
        workers = [_Worker(hand, number, self, rng) for number, hand in enumerate(self.hands)]
        s = 0.0
        while s < until_s:
            for worker in workers:
                worker.advance(s)
            positions, ends = {}, {}
            partition = 0
            for worker in workers:
                for at, length in zip(worker.committed, worker.lengths(s), strict=True):
                    positions[tp(partition)] = Position(0, at, None, at, 0, worker.owner)
                    ends[tp(partition)] = LogEnds(0, length, s)
                    partition += 1
            there = all(worker.there(s) for worker in workers)
            yield (
                Sample(
                    s, NOW + timedelta(seconds=s), {self.run.version: self.run}, {self.run.version: positions}, ends
                ),
                there,
            )
            if there:
                return
            s += EVERY_S


class _Worker:
    def __init__(self, hand: Hand, number: int, replay: Replay, rng: random.Random) -> None:
        self.hand, self.owner, self._replay, self._rng = hand, f"replica:{number}", replay, rng
        self.committed = [0] * len(hand.lengths)
        self._next_s = 1.5 + rng.random()  # to load the job
        self._stall_s = replay.stall_every_s * (0.5 + rng.random())

    def lengths(self, s: float) -> list[int]:
        return [int(length + self.hand.arriving * s) for length in self.hand.lengths]

    def there(self, s: float) -> bool:
        """At the end of each partition, but for what came within the last two seconds."""
        lacking = (length - at for length, at in zip(self.lengths(s), self.committed, strict=True))
        return all(one <= 2 * self.hand.arriving for one in lacking)

    def advance(self, now_s: float) -> None:
        """Commit the batches that are over by now."""
        while self._next_s <= now_s:
            lengths = self.lengths(self._next_s)
            left = [length - at for length, at in zip(lengths, self.committed, strict=True)]
            whole = sum(lengths)
            rate = self.hand.rate(self._next_s, sum(self.committed) / max(1, whole))
            batch = max(1, int(rate * self._replay.batch_s))
            open_ones = [i for i, n in enumerate(left) if n > 0]
            while batch > 0 and open_ones:  # evenly, and what an ended one leaves goes to the others
                share = max(1, batch // len(open_ones))
                for i in list(open_ones):
                    taken = min(share, left[i], batch)
                    self.committed[i] += taken
                    left[i] -= taken
                    batch -= taken
                    if not left[i]:
                        open_ones.remove(i)
                    if not batch:
                        break
            took_s = self._replay.batch_s * self._rng.lognormvariate(0, self._replay.noise)
            if self._replay.stall_every_s and self._next_s >= self._stall_s:
                took_s += self._replay.stall_s
                self._stall_s = self._next_s + self._replay.stall_every_s * (0.5 + self._rng.random())
            self._next_s += took_s


# --- as the engine makes batches ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Costs:
    """Of a job. read_per_s: records decoded and transformed a second, by one worker. keys: how many its records have,
    which makes the rows of a batch; None = each its own. write_per_s: rows written a second."""

    read_per_s: float
    write_per_s: float
    keys: int | None = None

    def rows(self, records: int) -> int:
        if self.keys is None:
            return records
        return int(self.keys * -math.expm1(-records / self.keys))


@dataclass
class BatchedReplay:
    """Two workers with a partition each, seeded. `phase_s`: of the samples."""

    costs: Costs
    seed: int = 0
    length: int = 2_500_000
    phase_s: float = 0.0
    run: Run = field(default_factory=lambda: run(2, State.REPLAYING))

    def samples(self, until_s: float = 1e9) -> Iterator[tuple[Sample, bool]]:
        """Four a second until both partitions are at their ends, then no more; whether the run was there."""
        rng = random.Random(self.seed)
        workers = [_commits(self.costs, self.length, rng) for _ in range(2)]
        s = self.phase_s
        while s < until_s:
            positions, ends = {}, {}
            for number, commits in enumerate(workers):
                past = bisect_right(commits, (s, self.length))
                at = commits[past - 1][1] if past else 0
                positions[tp(number)] = Position(0, at, None, at, 0, f"replica:{number}" if s >= _LOADED_S else "")
                ends[tp(number)] = LogEnds(0, self.length, s)
            there = all(position.next_offset == self.length for position in positions.values())
            at_s = NOW + timedelta(seconds=s)
            yield Sample(s, at_s, {self.run.version: self.run}, {self.run.version: positions}, ends), there
            if there:
                return
            s += EVERY_S


_LOADED_S = 1.0
_NOISE = 0.1
_LEASE_S = 10.0


def _commits(costs: Costs, length: int, rng: random.Random) -> list[tuple[float, int]]:
    """When a worker has committed how far."""
    tempo, now_s = Tempo(_LEASE_S), _LOADED_S + 0.3 * rng.random()
    commits: list[tuple[float, int]] = []
    read, batch, written_s = 0, Batch(now_s), 0.0
    while read < length or batch.records:
        records = min(tempo.chunk, length - read)
        took_s = 0.0005 + records / costs.read_per_s * rng.lognormvariate(0, _NOISE)
        now_s, read = now_s + took_s, read + records
        tempo.took(records, took_s)
        batch.records += records
        batch.rows = costs.rows(batch.records)
        batch.spans = {tp(0): Span(0, read)}
        if due(batch, tempo, now_s=now_s, behind=read < length):
            now_s = max(now_s, written_s)  # one write at a time
            took_s = (0.01 + batch.rows / costs.write_per_s) * rng.lognormvariate(0, _NOISE)
            tempo.wrote(batch.rows, took_s)
            written_s = now_s + took_s
            commits.append((written_s, read))
            batch = Batch(now_s)
    return commits
