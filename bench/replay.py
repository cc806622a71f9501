"""`python -m bench replay`: how fast a replay is, beside a hand-written loop, Flink and Quix Streams, in one run.

The same topic, tables and PostgreSQL for all; every side is measured by what is committed in PostgreSQL.
"""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench import measure
from bench import peers as other_engines
from bench.arguments import at_least_one
from bench.goals import Goal, at_most, status
from bench.measure import Measured
from bench.stack import Stack, running
from bench.workload import MODES, PARTITIONS, say, topic_of

FLUSHES: Final = (20_000, 200_000)  # the hand loop gets the better one
LONG_RECORDS: Final = 5_000_000
PEERS: Final = {  # field of the answer: peer, its mode, the mode of ours
    "append_vs_flink": ("flink", "append", "append"),
    "append_vs_flink_udf": ("flink", "append-udf", "append"),
    "aggregate_vs_flink": ("flink", "aggregate", "aggregate"),
    "append_vs_quix": ("quix", "append", "append"),
}
GOALS: Final = {
    "append_vs_hand_loop": Goal(0.85),
    "aggregate_vs_hand_loop": Goal(0.85),
    "fold_vs_hand_loop": Goal(0.7),
    "append_vs_flink": Goal(4),
    "append_vs_flink_udf": Goal(6),
    "aggregate_vs_flink": Goal(10),
    "append_vs_quix": Goal(12),
    "two_workers_vs_one": Goal(1.5),
    "rss_mib_per_worker_max": at_most(250),
    "eta_error_worst": at_most(0.2),
}
OUR_GUARANTEE: Final = "exactly once"

Side = tuple[str, str, int]  # "ours" or "hand", mode, workers


@dataclass
class Results:
    """Everything that was measured."""

    records: int
    measured: dict[Side, list[Measured]] = field(default_factory=dict)
    flush: dict[str, int] = field(default_factory=dict)
    peers: dict[str, other_engines.PeerResult] = field(default_factory=dict)  # by the field of the answer
    absent: dict[str, str] = field(default_factory=dict)  # why a peer is missing, by the field of the answer

    def of(self, side: str, mode: str, workers: int) -> Measured:
        return measure.median(self.measured[side, mode, workers])


async def _hand_and_ours(stack: Stack, topic: str, given: argparse.Namespace, results: Results) -> None:
    """Both sides in turn, so that whatever else the machine does meets both."""
    for mode in given.modes:
        tried = {
            flush: await measure.hand_loop(stack, mode, topic, given.records, max(given.workers), flush)
            for flush in FLUSHES
        }
        results.flush[mode] = max(tried, key=lambda flush: tried[flush].steady_per_s)
        rates = ", ".join(f"{one.steady_per_s:,.0f}/s in writes of {flush:,}" for flush, one in tried.items())
        say(f"hand loop, {mode}: {rates}")
    for number in range(1, given.repeat + 1):
        for mode in given.modes:
            for workers in given.workers:
                flush = results.flush[mode]
                pair = {
                    "hand": await measure.hand_loop(stack, mode, topic, given.records, workers, flush),
                    "ours": await measure.ours(stack, mode, topic, given.records, workers),
                }
                for side, one in pair.items():
                    results.measured.setdefault((side, mode, workers), []).append(one)
                rates = ", ".join(f"{side} {one.steady_per_s:,.0f}/s" for side, one in pair.items())
                say(f"round {number} of {given.repeat}, {mode}, {workers} workers: {rates}; {pair['ours'].eta_worst}")


async def _peers(stack: Stack, topic: str, given: argparse.Namespace, results: Results) -> None:
    for name, (peer, mode, ours) in PEERS.items():
        if ours not in given.modes:
            continue
        say(f"{peer}, {mode} ...")
        try:
            rounds = [await _peer(stack, topic, given.records, peer, mode) for _ in range(given.repeat)]
        except Exception as error:
            results.absent[name] = str(error) or type(error).__name__
            say(f"{peer}, {mode} is left out: {results.absent[name]}")
        else:
            results.peers[name] = sorted(rounds, key=lambda one: one.steady_per_s)[len(rounds) // 2]


async def _peer(stack: Stack, topic: str, records: int, peer: str, mode: str) -> other_engines.PeerResult:
    await measure.quiet(stack)
    one = await asyncio.to_thread(
        other_engines.measure,
        peer,
        mode,
        kafka=stack.kafka,
        postgres=stack.postgres,
        topic=topic,
        records=records,
        partitions=PARTITIONS,
    )
    say(f"{peer}, {mode}: {one.steady_per_s:,.0f}/s")
    return one


async def _long(stack: Stack, given: argparse.Namespace, results: Results) -> None:
    """Five times as much: is the memory flat, does the forecast hold, is the rate the same?"""
    records = given.long_records
    topic = await asyncio.to_thread(topic_of, stack.kafka, records)
    for mode in given.modes:
        one = await measure.ours(stack, mode, topic, records, max(given.workers))
        say(
            f"{mode} of {records:,} records: {one.steady_per_s:,.0f}/s, {one.rss_mib:.0f} MiB a worker; {one.eta_worst}"
        )
        results.measured.setdefault(("long", mode, max(given.workers)), []).append(one)


# --- what came of it --------------------------------------------------------------------------------------------------


def ratio(ours: float, other: float) -> float | None:
    """Ours to theirs, to two digits after the point; None if theirs is not known."""
    return round(ours / other, 2) if other > 0 else None


def summary(results: Results, given: argparse.Namespace) -> dict[str, Any]:
    """The answer, as it is printed last. None = not measured."""
    most = max(given.workers)
    answer: dict[str, Any] = {}
    for mode in MODES:
        known = mode in given.modes
        ours, hand = (results.of(side, mode, most) if known else None for side in ("ours", "hand"))
        answer[f"{mode}_vs_hand_loop"] = ours and hand and ratio(ours.steady_per_s, hand.steady_per_s)
        answer[f"{mode}_vs_hand_loop_with_start"] = ours and hand and ratio(ours.per_s, hand.per_s)
    for name, (_, _, mode) in PEERS.items():
        peer = results.peers.get(name)
        answer[name] = peer and ratio(results.of("ours", mode, most).steady_per_s, peer.steady_per_s)
        answer[f"{name}_with_start"] = peer and ratio(results.of("ours", mode, most).per_s, peer.per_s)
    gains = {
        mode: ratio(results.of("ours", mode, 2).steady_per_s, results.of("ours", mode, 1).steady_per_s)
        for mode in given.modes
        if {1, 2} <= set(given.workers)
    }
    answer["two_workers_vs_one"] = min((gain for gain in gains.values() if gain), default=None)
    answer["two_workers_vs_one_by_mode"] = gains
    answer.update(_memory(results, most))
    forecast = [
        one
        for (side, *_), all_of in results.measured.items()
        for one in all_of
        if side == ("long" if given.linearity else "ours")
    ]
    errors = [error for one in forecast for error in one.eta_errors]
    answer["eta_error_worst"] = round(max(errors), 3) if errors else None
    answer["eta_known_from"] = round(max((one.eta_known_from for one in forecast), default=1.0), 2)
    first = given.modes[0]
    answer["records_per_s"] = round(results.of("ours", first, most).steady_per_s)
    return answer


def _memory(results: Results, workers: int) -> dict[str, Any]:
    peaks: dict[str, dict[str, float]] = {}
    for (side, mode, count), all_of in results.measured.items():
        if side != "hand" and count == workers:
            peaks.setdefault(side, {})[mode] = round(measure.median(all_of).rss_mib)
    everything = [measure.median(all_of).rss_mib for (side, *_), all_of in results.measured.items() if side != "hand"]
    return {
        "rss_mib_per_worker_max": round(max(everything)),
        "rss_mib_by_mode": peaks.get("ours"),
        "rss_mib_by_mode_long": peaks.get("long"),
        "long_vs_short_per_s": {
            mode: ratio(results.of("long", mode, workers).steady_per_s, results.of("ours", mode, workers).steady_per_s)
            for mode in peaks.get("long", {})
        },
    }


def show(results: Results, given: argparse.Namespace, answer: dict[str, Any]) -> None:
    """The tables for a person."""
    console = Console(width=160)
    rates = Table(title=f"Replay of {results.records:,} records, medians of {given.repeat}, in records a second")
    for name in ("job", "workers", "hand loop", "ours", "ratio", "hand with start", "ours with start", "ratio ", "MiB"):
        rates.add_column(name, justify="left" if name == "job" else "right")
    for mode in given.modes:
        for workers in given.workers:
            hand, ours = results.of("hand", mode, workers), results.of("ours", mode, workers)
            rates.add_row(
                mode,
                str(workers),
                f"{hand.steady_per_s:,.0f}",
                f"{ours.steady_per_s:,.0f}",
                f"{ours.steady_per_s / hand.steady_per_s:.2f}",
                f"{hand.per_s:,.0f}",
                f"{ours.per_s:,.0f}",
                f"{ours.per_s / hand.per_s:.2f}",
                f"{ours.rss_mib:.0f}",
            )
    console.print(rates)
    others = Table(title="Beside others")
    for name in ("what", "who", "version", "guarantee", "settings", "rec/s", "with start", "ours to it", "to be"):
        others.add_column(name, overflow="fold")
    for name, peer in results.peers.items():
        rates_of = (f"{peer.steady_per_s:,.0f}", f"{peer.per_s:,.0f}", f"{answer[name]}", f"{GOALS[name]}")
        others.add_row(peer.mode, peer.peer, peer.version, peer.guarantee, peer.settings, *rates_of)
    for name, why in results.absent.items():
        others.add_row(PEERS[name][1], PEERS[name][0], "", "", f"not measured: {why}", "", "", "", "")
    flushes = ", ".join(f"{mode} {flush:,}" for mode, flush in results.flush.items())
    others.add_row("all", "hand loop", "", OUR_GUARANTEE, f"records a write: {flushes}", "", "", "above", "")
    others.add_row("all", "Turnout", "", OUR_GUARANTEE, f"{max(given.workers)} workers, defaults", "", "", "1", "")
    console.print(others)


# --- the command ------------------------------------------------------------------------------------------------------


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench replay", description=__doc__)
    parser.add_argument("--records", type=at_least_one, default=1_000_000, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--repeat", type=int, default=3, metavar="N", help="rounds, of which medians count (default: 3)"
    )
    parser.add_argument("--modes", default=",".join(MODES), help="default: %(default)s")
    parser.add_argument("--workers", default="1,2", help="how many workers each side gets (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one round of 200,000 records, without peers")
    parser.add_argument("--skip-peers", action="store_true", help="leave Flink and Quix Streams out")
    parser.add_argument("--linearity", action="store_true", help="also replay --long-records, ours alone")
    parser.add_argument(
        "--long-records", type=at_least_one, default=LONG_RECORDS, metavar="N", help="default: %(default)s"
    )
    parser.add_argument("--data-dir", type=Path, help="keep topics here for the next time (default: a temporary one)")
    given = parser.parse_args(arguments)
    given.modes = [mode for mode in given.modes.split(",") if mode]
    given.workers = sorted({int(count) for count in given.workers.split(",")})
    if unknown := set(given.modes) - set(MODES):
        parser.error(f"unknown mode {', '.join(sorted(unknown))}: the modes are {', '.join(MODES)}")
    if given.repeat < 1 or given.records < 1 or not given.modes:
        parser.error("--repeat and --records begin at 1, and one mode at least is needed")
    if given.quick:
        given.records, given.repeat, given.skip_peers = 200_000, 1, True
    return given


async def _run(given: argparse.Namespace) -> dict[str, Any]:
    results = Results(given.records)
    async with running(given.data_dir) as stack:
        topic = await asyncio.to_thread(topic_of, stack.kafka, given.records)
        await _hand_and_ours(stack, topic, given, results)
        if given.linearity:
            await _long(stack, given, results)
        if not given.skip_peers:
            await _peers(stack, topic, given, results)
    answer = summary(results, given)
    show(results, given, answer)
    return answer


def main(arguments: Sequence[str]) -> int:
    """Measure, and print the answer as one JSON object in the last line. Exit status 0 when all goals are reached."""
    given = _arguments(arguments)
    began_s = time.monotonic()
    answer = asyncio.run(_run(given))
    say(f"{time.monotonic() - began_s:.0f} s in all, on {os.cpu_count()} cores")
    code = status(answer, GOALS)
    print(json.dumps(answer))
    return code
