"""What is printed. Pure."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, field

from bench.faults.plan import LEASE_S, Kind
from bench.faults.rounds import RoundResult

# After these the lease has to run out first: all has moved on within two lease times, or the lease did not do its work.
_BY_LEASE = (Kind.STOPPED, Kind.STOPPED_WRITING, Kind.FROZEN, Kind.ZOMBIE, Kind.TAKEN_OVER)
_LEASES_MAX = 2.0


def round_line(result: RoundResult) -> str:
    """One line for a round."""
    plan = result.plan
    way = "replay" if plan.replays else "tail"
    faults = ", ".join(done.fault.kind.value + (" (not met)" if _not_met(done.note) else "") for done in result.done)
    verdict = "equal" if not result.lines else "DIFFERENT"
    return (
        f"round {plan.number:>3}  {way:<6}  {result.took_s:5.1f} s, caught up in {result.caught_up_s:4.1f} s, "
        f"{result.records:>7,} records applied, {result.set_aside:>4} set aside, {result.looks} looks: {verdict}"
        f"  [{faults}]"
    )


def _not_met(note: str) -> bool:
    return note.startswith("no ")


@dataclass(slots=True)
class Totals:
    """Sums over rounds. recoveries: by kind of fault, in seconds, of those that no other fault fell into."""

    rounds: int = 0
    differences: int = 0
    looks: int = 0
    records: int = 0
    set_aside: int = 0
    took_s: float = 0.0
    counts: dict[Kind, int] = field(default_factory=dict)
    ways: dict[str, int] = field(default_factory=dict)  # into the table, of transactions that a fault struck
    recoveries: dict[Kind, list[float]] = field(default_factory=dict)

    def add(self, result: RoundResult) -> None:
        """One more round."""
        self.rounds += 1
        self.differences += len(result.lines)
        self.looks += result.looks
        self.records += result.records
        self.set_aside += result.set_aside
        spans = [
            (done, done.effective_s, done.effective_s + recovered)
            for done, recovered in zip(result.done, result.recoveries, strict=False)
            if recovered is not None and not _not_met(done.note)
        ]
        for done in result.done:
            if not _not_met(done.note):
                self.counts[done.fault.kind] = self.counts.get(done.fault.kind, 0) + 1
            if done.way:
                self.ways[done.way] = self.ways.get(done.way, 0) + 1
        for done, since_s, until_s in spans:
            alone = not any(
                other is not done and begin_s <= until_s and end_s >= since_s for other, begin_s, end_s in spans
            )
            if alone:
                self.recoveries.setdefault(done.fault.kind, []).append(until_s - since_s)

    @property
    def slow_recoveries(self) -> int:
        """Recoveries by a lease that took more than two of them."""
        return sum(time > _LEASES_MAX * LEASE_S for kind in _BY_LEASE for time in self.recoveries.get(kind, []))

    @property
    def faults(self) -> int:
        return sum(self.counts.values())

    def table(self) -> str:
        """Faults by kind, and how soon every partition moved on afterwards."""
        lines = [f"\n{'fault':<50} {'times':>5} {'alone':>5} {'recovery: median':>17} {'longest':>8} {'in leases':>10}"]
        for kind in Kind:
            times = self.recoveries.get(kind, [])
            figures = ""
            if times:
                longest = max(times)
                figures = f" {statistics.median(times):>15.1f} s {longest:>6.1f} s {longest / LEASE_S:>10.1f}"
            lines.append(f"{kind.value:<50} {self.counts.get(kind, 0):>5} {len(times):>5}{figures}")
        struck = ", ".join(f"{count} while {way} were written" for way, count in sorted(self.ways.items())) or "none"
        lines.append(
            f"A lease lasts {LEASE_S:g} s. Recovery is measured where no other fault fell into it ('alone').\n"
            f"Transactions struck in their middle: {struck}.\n"
        )
        return "\n".join(lines)

    def json(self, seed: int) -> str:
        """The last line."""
        by_lease = [time for kind in _BY_LEASE for time in self.recoveries.get(kind, [])]
        times = [time for times in self.recoveries.values() for time in times]
        return json.dumps(
            {
                "seed": seed,
                "rounds": self.rounds,
                "differences": self.differences,
                "comparisons": self.looks,
                "faults": self.faults,
                "records": self.records,
                "records_set_aside": self.set_aside,
                "recovery_lease_multiples_max": round(max(by_lease) / LEASE_S, 2) if by_lease else None,
                "recoveries_over_two_leases": self.slow_recoveries,
                "transactions_struck": self.ways,
                "recovery_s_max": round(max(times), 1) if times else None,
                "seconds": round(self.took_s, 1),
            }
        )
