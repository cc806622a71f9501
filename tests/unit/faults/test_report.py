"""What is counted over rounds: faults that were met, recoveries that no other fault fell into, and those too slow."""

from __future__ import annotations

import json

from bench.faults.inject import Done
from bench.faults.plan import LEASE_S, Fault, Kind, RoundPlan
from bench.faults.report import Totals, round_line
from bench.faults.rounds import RoundResult


def done(kind: Kind, at_s: float, note: str = "", way: str = "") -> Done:
    return Done(Fault(kind, at_s, 0.0, 0.5), at_s, note, way=way)


def played(*faults: tuple[Done, float | None], lines: tuple[str, ...] = ()) -> RoundResult:
    plan = RoundPlan(3, tuple(one.fault for one, _ in faults), ())
    return RoundResult(plan, [one for one, _ in faults], [recovered for _, recovered in faults], list(lines), looks=1)


def test_a_recovery_counts_only_where_no_other_fault_fell_into_it() -> None:
    totals = Totals()
    totals.add(played((done(Kind.WORKER_KILLED, 1.0), 2.0), (done(Kind.KAFKA_CUT, 2.5), 1.0)))
    totals.add(played((done(Kind.WORKER_KILLED, 1.0), 0.5), (done(Kind.KAFKA_CUT, 4.0), 1.0)))
    assert totals.counts == {Kind.WORKER_KILLED: 2, Kind.KAFKA_CUT: 2}
    assert totals.recoveries == {Kind.WORKER_KILLED: [0.5], Kind.KAFKA_CUT: [1.0]}


def test_a_fault_that_met_nothing_is_not_counted() -> None:
    totals = Totals()
    totals.add(played((done(Kind.STOPPED_WRITING, 1.0, "no transaction was caught"), 0.1)))
    assert totals.counts == {}
    assert totals.recoveries == {}
    assert "(not met)" in round_line(played((done(Kind.STOPPED_WRITING, 1.0, "no transaction was caught"), None)))


def test_recoveries_by_a_lease_are_judged_and_others_are_not() -> None:
    totals = Totals()
    totals.add(played((done(Kind.FROZEN, 1.0), 2.5 * LEASE_S)))
    totals.add(played((done(Kind.FROZEN, 1.0), 1.5 * LEASE_S)))
    totals.add(played((done(Kind.HALF_OPEN, 1.0), 9 * LEASE_S)))
    said = json.loads(totals.json(7))
    assert said["recoveries_over_two_leases"] == 1
    assert said["recovery_lease_multiples_max"] == 2.5
    assert said["recovery_s_max"] == 9 * LEASE_S


def test_transactions_are_told_apart_by_their_way_into_the_table() -> None:
    totals = Totals()
    totals.add(played((done(Kind.STOPPED_WRITING, 1.0, way="new rows"), None), (done(Kind.ANSWER_LOST, 3.0), None)))
    totals.add(played((done(Kind.ZOMBIE, 1.0, way="merged rows"), None)))
    assert totals.ways == {"new rows": 1, "merged rows": 1}
    assert "1 while merged rows were written, 1 while new rows were written" in totals.table()


def test_differences_are_counted_and_shown() -> None:
    totals = Totals()
    result = played((done(Kind.WORKER_KILLED, 1.0), None), lines=("fold: key 'a' differs",))
    totals.add(result)
    assert totals.differences == 1
    assert "DIFFERENT" in round_line(result)
    assert json.loads(totals.json(1))["rounds"] == 1
