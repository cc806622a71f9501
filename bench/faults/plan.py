"""What happens in a round, drawn from the seed: which faults, when, and how long each lasts. Pure.

A round's plan follows from the seed and the round's number alone. Rounds come in episodes: the first round of an
episode replays a fresh topic into fresh tables, the others tail it. To play round 17 again its episode is played from
its beginning up to round 17.
"""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass
from typing import Final

ROUNDS_PER_EPISODE: Final = 4
LEASE_S: Final = 2.0
FEED_S: Final = 3.5  # records are produced for so long in each round
FAULTS_FROM_S: Final = 0.3
FAULTS_UNTIL_S: Final = 2.8


class Kind(enum.Enum):
    """A fault. The value is what the table at the end calls it."""

    WORKER_KILLED = "worker killed"
    REPLAYER_KILLED = "replayer killed"
    POSTGRES_KILLED = "PostgreSQL killed"
    KAFKA_KILLED = "Kafka killed"
    STOPPED = "worker stopped past its lease"
    STOPPED_WRITING = "worker stopped inside a transaction"
    FROZEN = "worker frozen for good"
    ZOMBIE = "worker woken after its replayer was killed"
    TAKEN_OVER = "one of two replayers killed"
    ANSWER_LOST = "answer to a commit lost, connection reset"
    HALF_OPEN = "answer to a commit lost, connection half-open"
    POSTGRES_CUT = "connections to PostgreSQL reset"
    POSTGRES_SILENT = "network to PostgreSQL silent"
    KAFKA_CUT = "connections to Kafka reset"
    KAFKA_SILENT = "network to Kafka silent"
    WIDENED = "topic widened from 4 to 6 partitions"
    DEADLY = "record that kills its worker"


# Weight of each kind among a round's quick faults; those left out have chances of their own below.
_QUICK: Final = {
    Kind.WORKER_KILLED: 6,
    Kind.ANSWER_LOST: 4,
    Kind.STOPPED: 2,
    Kind.STOPPED_WRITING: 3,
    Kind.POSTGRES_CUT: 2,
    Kind.POSTGRES_SILENT: 2,
    Kind.KAFKA_CUT: 2,
    Kind.KAFKA_SILENT: 2,
}
# At most one of these in a round, with this chance each: they take seconds, or need the round for themselves.
_SLOW: Final = {
    Kind.REPLAYER_KILLED: 0.25,
    Kind.POSTGRES_KILLED: 0.25,
    Kind.KAFKA_KILLED: 0.15,
    Kind.FROZEN: 0.08,
    Kind.ZOMBIE: 0.08,
    Kind.TAKEN_OVER: 0.25,
    Kind.HALF_OPEN: 0.05,
    Kind.DEADLY: 0.08,
}
_ALONE: Final = 0.3  # of the rounds have one fault only, whose recovery can be measured
_LASTS_S: Final = {
    Kind.STOPPED: (1.1 * LEASE_S, 1.4 * LEASE_S),
    Kind.STOPPED_WRITING: (1.1 * LEASE_S, 1.4 * LEASE_S),
    Kind.FROZEN: (2.5 * LEASE_S, 2.5 * LEASE_S),
    Kind.REPLAYER_KILLED: (0.0, 1.0),
    Kind.TAKEN_OVER: (1.5 * LEASE_S, 2.0 * LEASE_S),
    Kind.POSTGRES_KILLED: (0.0, 1.0),
    Kind.KAFKA_KILLED: (0.0, 0.5),
    Kind.POSTGRES_CUT: (0.0, 1.0),
    Kind.KAFKA_CUT: (0.0, 1.0),
    Kind.POSTGRES_SILENT: (0.3, 2.5),
    Kind.KAFKA_SILENT: (0.3, 2.5),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """at_s: after the round's begin. lasts_s: until it is mended. pick: in [0, 1), chooses the worker among those
    that there are."""

    kind: Kind
    at_s: float
    lasts_s: float
    pick: float

    def __str__(self) -> str:
        return f"{self.at_s:.2f} s {self.kind.value}" + (f" for {self.lasts_s:.1f} s" if self.lasts_s else "")


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """looks_at_s: when the tables are also compared while all of this goes on."""

    number: int
    faults: tuple[Fault, ...]
    looks_at_s: tuple[float, ...]

    @property
    def episode(self) -> int:
        return self.number // ROUNDS_PER_EPISODE

    @property
    def replicas(self) -> int:
        """How many replayers share the runs: two in every other episode."""
        return 1 + self.episode % 2

    @property
    def replays(self) -> bool:
        """Whether the round begins with fresh tables; otherwise they are tailed."""
        return self.number % ROUNDS_PER_EPISODE == 0


def plan(seed: int, number: int) -> RoundPlan:
    """The plan of a round; rounds are counted from 0."""
    chance = random.Random(f"turnout faults {seed} {number}")
    two = number // ROUNDS_PER_EPISODE % 2 == 1
    slow = {kind: share for kind, share in _SLOW.items() if two or kind is not Kind.TAKEN_OVER}
    if chance.random() < _ALONE:
        kinds = [chance.choice([*_QUICK, *slow])]
    else:
        kinds = chance.choices(list(_QUICK), list(_QUICK.values()), k=chance.choice((1, 2, 2, 3)))
        drawn = [kind for kind, share in slow.items() if chance.random() < share]
        if drawn:
            kinds.append(chance.choice(drawn))
    if number % ROUNDS_PER_EPISODE and number % ROUNDS_PER_EPISODE == _widening_round(seed, number):
        kinds.append(Kind.WIDENED)
    faults = sorted((_fault(kind, chance) for kind in kinds), key=lambda fault: fault.at_s)
    looks = tuple(sorted(chance.uniform(0.5, FEED_S + 1.0) for _ in range(2)))
    return RoundPlan(number, tuple(faults), looks)


def _widening_round(seed: int, number: int) -> int:
    """In which round of its episode the topic is widened; 0 = never."""
    return random.Random(f"turnout widening {seed} {number // ROUNDS_PER_EPISODE}").choice((0, 1, 2, 3))


def _fault(kind: Kind, chance: random.Random) -> Fault:
    shortest, longest = _LASTS_S.get(kind, (0.0, 0.0))
    at_s = chance.uniform(FAULTS_FROM_S, FAULTS_UNTIL_S)
    return Fault(kind, round(at_s, 3), round(chance.uniform(shortest, longest), 3), chance.random())


def first_of_episode(number: int) -> int:
    """The round from which round `number` has to be played."""
    return number - number % ROUNDS_PER_EPISODE
