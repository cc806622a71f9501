"""Replicas of the replayer on one database: how long each counts as there, and how they share the work.

Theory of operation. Every replica renews a lease on its own row; whoever's has not expired is live, as long as the
session that renews it is there. Nobody hands work out: each replica computes the same shares from the names of the live
ones, and takes its own. While two of them do not yet agree on who is live, a partition may be in two shares or in none
for a moment; the run leases let one worker at a time write it, and the next look sets it right.

Shares are dealt by weights that depend on the names alone (rendezvous hashing, with a limit on each hand), so that a
replica that comes or goes leaves most of the others' partitions where they are, and the odd ones of many runs do not
all fall to the same replica.
"""

import functools
import hashlib
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, TypeVar

Seat = TypeVar("Seat", str, int)

LEASE_MIN_S: Final = 3.0  # several looks, however short the run leases are


@functools.lru_cache(maxsize=4096)
def deal(salt: str, numbers: tuple[int, ...], seats: tuple[Seat, ...]) -> dict[Seat, tuple[int, ...]]:
    """The numbers of each seat, sorted: every number has one seat, and no seat has two more than another.

    A seat that is added or taken away changes little else. `salt` lets the odd numbers fall elsewhere.
    """
    if not seats:
        return {}
    at_least, odd = divmod(len(numbers), len(seats))
    hands: dict[Seat, list[int]] = {seat: [] for seat in seats}
    waiting = set(numbers)
    for _, number, seat in sorted(((_weight(salt, s, n), n, s) for n in numbers for s in seats), reverse=True):
        hand = hands[seat]
        if number not in waiting or len(hand) > at_least or (len(hand) == at_least and not odd):
            continue
        odd -= len(hand) == at_least
        hand.append(number)
        waiting.discard(number)
    return {seat: tuple(sorted(hand)) for seat, hand in hands.items()}


def lead(what: str, live: Collection[str]) -> str:
    """The replica that does what one alone shall do: the tail of a run, for one. Of many things each has its part."""
    return max(live, key=lambda instance: (_weight(what, instance, 0), instance))


def _weight(salt: str, seat: str | int, number: int) -> int:
    key = f"{salt}\0{seat}\0{number}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")


def owner_name(instance: str, job: str, number: int, slot: int, born: int) -> str:
    """What the `born`-th worker of this replica, in this slot of a run, writes into its run leases."""
    return f"{instance}:{job}-v{number}:{slot}.{born}"


def instance_of(owner: str) -> str:
    """The replica that started a worker."""
    return owner.rsplit(":", 2)[0]


@dataclass(frozen=True, slots=True)
class Holder:
    """A worker that a run's positions name as their owner.

    lasts: its lease has not run out; attended: the replica that started it is live, and looks after it.
    """

    owner: str
    lasts: bool
    attended: bool


def left_over(holders: Collection[Holder], instance: str) -> list[Holder]:
    """Those that nobody looks after, of a run on which this replica has no worker any more: this replica's own, and
    those of a replica that is gone whose lease has run out. Until then it may still work."""
    return [
        holder for holder in holders if instance_of(holder.owner) == instance or not (holder.lasts or holder.attended)
    ]


class ReplicaLease:
    """This replica's lease as it knows it. Times are monotonic seconds, counted from when a renewal was sent: the
    database's own count began later."""

    def __init__(self, length_s: float) -> None:
        self.length_s = max(LEASE_MIN_S, length_s)
        self._renewed_s = -math.inf

    def renewed(self, sent_s: float) -> None:
        """A renewal that was sent then has been stored."""
        self._renewed_s = sent_s

    def due(self, now_s: float) -> bool:
        """Whether to renew it: at a quarter, so that two may be lost."""
        return now_s - self._renewed_s >= self.length_s / 4

    def holds(self, now_s: float) -> bool:
        """Whether the others still count on this replica."""
        return now_s - self._renewed_s < self.length_s


def sharing(instance: str, live: Collection[str], *, holds: bool) -> tuple[str, ...]:
    """Among whom this replica deals the work, sorted; empty when it must leave it to others.

    live: as they were seen last. One whose lease has run out (it was frozen, or PostgreSQL is away) no longer has a
    share in the eyes of the others, so it works on only where it knew of none.
    """
    everybody = {*live, instance}
    if not holds and len(everybody) > 1:
        return ()
    return tuple(sorted(everybody))
