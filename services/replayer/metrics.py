"""Runs as OpenTelemetry metrics: the figures of GetRun, read when somebody collects them and never otherwise.

Where nothing exports (`turnout.otlp`), nobody collects, and all this costs nothing. Collecting happens on a thread of
the exporter; the figures are made on the event loop, once for all instruments. The names are in docs/metrics.md.

Every replica tells of all runs, for each of them knows all: where there are several, take the largest value over
`service.instance.id`, never the sum.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import TimeoutError as TooLateError
from dataclasses import dataclass
from typing import Final

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from turnout.names import parse_run
from turnout.replayer.v1 import run_pb2
from turnout.telemetry import meter

PARTITIONS_MAX: Final = 2000  # of all runs together: more would be more series than a store of metrics likes
_ANSWER_S: Final = 2.0
_FRESH_S: Final = 0.2  # one collection asks every instrument: they all get the same figures

Attributes = dict[str, str | int]
Values = Iterable[tuple[float, Attributes]]
_State = run_pb2.Run.State


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric. counter: it only grows, from the run's start on. values: of one run, with further attributes."""

    name: str
    unit: str
    description: str
    values: Callable[[run_pb2.Run], Values]
    counter: bool = False


def _one(value: Callable[[run_pb2.Run], float]) -> Callable[[run_pb2.Run], Values]:
    return lambda run: [(value(run), {})]


def _seconds(field: str) -> Callable[[run_pb2.Run], Values]:
    def values(run: run_pb2.Run) -> Values:
        return [(getattr(run, field).ToTimedelta().total_seconds(), {})] if run.HasField(field) else []  # type: ignore[arg-type]  # a literal

    return values


def _state(run: run_pb2.Run) -> Values:
    return [(1, {"state": _State.Name(run.state)})]


def _throttle(run: run_pb2.Run) -> Values:
    if not run.HasField("throttle"):
        return []
    return [(run.throttle.records_per_s, {"reason": run_pb2.Throttle.Reason.Name(run.throttle.reason)})]


def _event_time(run: run_pb2.Run) -> Values:
    return [(run.event_time.ToNanoseconds() / 1e9, {})] if run.HasField("event_time") else []


def _crossing(run: run_pb2.Run) -> Values:
    if not run.HasField("retention_risk"):
        return []
    risk = run.retention_risk
    left_s = max(0.0, risk.crossing_time.ToNanoseconds() / 1e9 - time.time())
    return [(left_s, {"topic": risk.topic, "partition": risk.partition})]


RUN: Final = (
    Instrument("turnout.run.state", "1", "1 for the state that the run is in.", _state),
    Instrument("turnout.run.records", "{record}", "Records read.", _one(lambda run: run.records), counter=True),
    Instrument(
        "turnout.run.records_set_aside",
        "{record}",
        "Records set aside as malformed.",
        _one(lambda run: run.records_set_aside),
        counter=True,
    ),
    Instrument(
        "turnout.run.rows_written",
        "{row}",
        "Rows written to the table; one written twice counts twice.",
        _one(lambda run: run.rows_written),
        counter=True,
    ),
    Instrument(
        "turnout.run.bytes_written",
        "By",
        "Bytes of those rows, approximately.",
        _one(lambda run: run.bytes_written),
        counter=True,
    ),
    Instrument(
        "turnout.run.worker_restarts",
        "{restart}",
        "Workers started in the place of dead ones.",
        _one(lambda run: run.worker_restarts),
        counter=True,
    ),
    Instrument(
        "turnout.run.stuck_restarts",
        "{restart}",
        "Of those, workers that were alive and stood still.",
        _one(lambda run: run.stuck_restarts),
        counter=True,
    ),
    Instrument("turnout.run.workers", "{worker}", "Live workers.", _one(lambda run: run.live_workers)),
    Instrument("turnout.run.rate", "{record}/s", "Records read a second.", _one(lambda run: run.records_per_s)),
    Instrument("turnout.run.lag", "{offset}", "Offsets still to read.", _one(lambda run: run.lag)),
    Instrument("turnout.run.progress", "1", "Share of the way to the end, 0 to 1.", _one(lambda run: run.progress)),
    Instrument("turnout.run.eta", "s", "Time until the end is reached; absent when unknown.", _seconds("eta")),
    Instrument("turnout.run.eta_min", "s", "Not sooner than this.", _seconds("eta_min")),
    Instrument("turnout.run.eta_max", "s", "Not later than this; absent when it may be never.", _seconds("eta_max")),
    Instrument(
        "turnout.run.never_catches_up",
        "1",
        "1 while the log grows faster than the run reads.",
        _one(lambda run: int(run.never_catches_up)),
    ),
    Instrument("turnout.run.event_time", "s", "Newest event time applied, seconds since 1970.", _event_time),
    Instrument(
        "turnout.run.queue_position",
        "1",
        "Place in the queue of copies; 0 = none.",
        _one(lambda run: run.queue_position),
    ),
    Instrument(
        "turnout.run.throttle",
        "{record}/s",
        "What the rate is held down to, and why; absent while it is not.",
        _throttle,
    ),
    Instrument(
        "turnout.run.retention_crossing",
        "s",
        "Time until the log's start passes the run's position; absent while it will not.",
        _crossing,
    ),
)


def _of_partitions(value: Callable[[run_pb2.PartitionProgress], float | None]) -> Callable[[run_pb2.Run], Values]:
    def values(run: run_pb2.Run) -> Iterator[tuple[float, Attributes]]:
        for one in run.partitions:
            found = value(one)
            if found is not None:
                yield found, {"topic": one.topic, "partition": one.partition}

    return values


def _partition_event_time(one: run_pb2.PartitionProgress) -> float | None:
    return one.event_time.ToNanoseconds() / 1e9 if one.HasField("event_time") else None


PARTITION: Final = (
    Instrument(
        "turnout.run.partition.position",
        "{offset}",
        "Every record before it is in the table.",
        _of_partitions(lambda one: one.next_offset),
    ),
    Instrument(
        "turnout.run.partition.log_start",
        "{offset}",
        "First offset that the log holds.",
        _of_partitions(lambda one: one.log_start_offset),
    ),
    Instrument(
        "turnout.run.partition.log_end",
        "{offset}",
        "End of the log, read_committed.",
        _of_partitions(lambda one: one.end_offset),
    ),
    Instrument(
        "turnout.run.partition.rate",
        "{record}/s",
        "Records read a second.",
        _of_partitions(lambda one: one.records_per_s),
    ),
    Instrument(
        "turnout.run.partition.event_time",
        "s",
        "Newest event time applied, seconds since 1970.",
        _of_partitions(_partition_event_time),
    ),
    Instrument(
        "turnout.run.partition.rows_written",
        "{row}",
        "Rows written to the table.",
        _of_partitions(lambda one: one.rows_written),
        counter=True,
    ),
    Instrument(
        "turnout.run.partition.records_set_aside",
        "{record}",
        "Records set aside as malformed.",
        _of_partitions(lambda one: one.records_set_aside),
        counter=True,
    ),
)
UNTOLD: Final = "turnout.runs.partitions_untold"
UNTOLD_DESCRIPTION: Final = "Partitions without metrics of their own, for there are too many."


class RunMetrics:
    """Answers collectors from `read`, which gives all runs and is called on the event loop that `start` ran on."""

    def __init__(self, read: Callable[[], Sequence[run_pb2.Run]]) -> None:
        self._read = read
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._runs: Sequence[run_pb2.Run] = ()
        self._read_s = float("-inf")

    def start(self, on: Meter | None = None) -> None:
        """Register the instruments with a meter; unless told, with that of the process."""
        self._loop = asyncio.get_running_loop()
        to = on if on is not None else meter("turnout.replayer")
        for one in RUN:
            self._register(to, one, self._told)
        for one in PARTITION:
            self._register(to, one, self._with_partitions)
        to.create_observable_gauge(UNTOLD, [self._untold], "{partition}", UNTOLD_DESCRIPTION)

    def stop(self) -> None:
        """Answer no more: instruments cannot be taken back."""
        self._loop = None

    def _register(self, to: Meter, one: Instrument, runs: Callable[[], Iterable[run_pb2.Run]]) -> None:
        def observe(_: CallbackOptions) -> Iterator[Observation]:
            for run in runs():
                version = parse_run(run.name)
                own: Attributes = {"job": version.job, "version": version.number}
                for value, more in one.values(run):
                    yield Observation(value, own | more)

        create = to.create_observable_counter if one.counter else to.create_observable_gauge
        create(one.name, [observe], one.unit, one.description)

    def _told(self) -> Sequence[run_pb2.Run]:
        """All runs; none when the loop does not answer in time, for it is busy or has ended."""
        with self._lock:
            if self._loop is None:
                return ()
            if time.monotonic() - self._read_s > _FRESH_S:
                reading = asyncio.run_coroutine_threadsafe(self._on_loop(), self._loop)
                try:
                    self._runs = reading.result(_ANSWER_S)
                except TooLateError:
                    reading.cancel()
                    return ()
                self._read_s = time.monotonic()
            return self._runs

    async def _on_loop(self) -> Sequence[run_pb2.Run]:
        return self._read()

    def _with_partitions(self) -> Iterator[run_pb2.Run]:
        """The first runs whose partitions together are not too many."""
        left = PARTITIONS_MAX
        for run in self._told():
            left -= len(run.partitions)
            if left >= 0:
                yield run

    def _untold(self, _: CallbackOptions) -> Iterator[Observation]:
        runs = self._told()
        told = {run.name for run in self._with_partitions()}
        yield Observation(sum(len(run.partitions) for run in runs if run.name not in told))
