"""Records -> rows, a fetched chunk at a time, for the three kinds of jobs.

What is gathered here belongs to the batch that is being gathered: `take` hands it over for writing, `begin` forgets it.
A fold's states outlive the batch; they are what the table holds once everything handed over is committed, so they are
forgotten with everything else whenever that is in doubt. As long as nothing was forgotten since a partition's first
record, they are all that it has in the table: a replay from the start asks the table for nothing.
"""

import sys
import time
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from services.replayer.engine.batch import Batch, DeadLetter
from services.replayer.engine.faults import RunFaultError
from services.replayer.engine.identity import identity_of
from services.replayer.engine.leases import Lease
from services.replayer.engine.table import Rows, rows_of_changes
from services.replayer.engine.watchdog import Watchdog
from services.replayer.protocol import TopicPartition
from turnout.job import PartitionConflictError
from turnout.job.compiled import Change, CompiledAggregate, CompiledFold, CompiledJob, CompiledMap, Failure, Waiting
from turnout.job.rows import Message
from turnout.schema import JobDefinition, OnMalformed

T = TypeVar("T")

STATES_BYTES_MAX: Final = 100 << 20  # of a fold's states, kept in memory
_STATE_BYTES: Final = 100  # of a state's place in the dictionary
_SAMPLED: Final = 64  # states whose size is looked at

Fetched = Mapping[TopicPartition, Sequence[Message]]
LoadStates = Callable[[Sequence[Hashable]], Awaitable[dict[Hashable, Change]]]


class Transform(Protocol):
    """A job's function, applied to batches."""

    @property
    def definition(self) -> JobDefinition:
        """The job's."""

    async def collect(self, fetched: Fetched, batch: Batch) -> float:
        """Work the records into what is gathered, and count them in the batch, whose spans exist. Answers how many
        seconds the job's functions took, during which nothing else happened in the process."""

    def pass_over(self, tp: TopicPartition, message: Message, reason: str, batch: Batch) -> None:
        """Count the record and set it aside without looking at it."""

    def take(self) -> Rows:
        """What was gathered, to be written now. Called when nothing taken before is unwritten."""

    def begin(self, held: Mapping[TopicPartition, Lease]) -> None:
        """Forget everything, and go on from what is committed."""


class _Counting:
    """What the kinds share: running the job's functions, counting, event time, malformed records."""

    def __init__(self, job: CompiledJob, watchdog: Watchdog) -> None:
        self.definition = job.definition
        self.watchdog = watchdog
        self.took_s = 0.0

    def watched(
        self, tp: TopicPartition, messages: Sequence[Message], items: Sequence[Any], run: Callable[[Iterator[Any]], T]
    ) -> T:
        """Run one of the job's functions over `items`, one for each message, under the watchdog."""
        began_s = time.monotonic()
        try:
            return run(self.watchdog.watched(tp, messages, items))
        except PartitionConflictError as error:
            raise RunFaultError("KEY_FROM_ANOTHER_PARTITION", f"In {tp.topic}: {error}.", tp) from error
        finally:
            self.watchdog.done()
            self.took_s += time.monotonic() - began_s

    def count(self, tp: TopicPartition, messages: Sequence[Message], event_time_ms: int | None, batch: Batch) -> None:
        """Count the records of one partition into the batch. A stamp in the future counts as now."""
        span = batch.spans[tp]
        span.records += len(messages)
        batch.records += len(messages)
        batch.value_bytes += _value_bytes(messages)
        if event_time_ms is not None:
            newest = min(event_time_ms, time.time_ns() // 1_000_000)
            span.event_time_ms = newest if span.event_time_ms is None else max(span.event_time_ms, newest)
        last = messages[-1]
        span.last = identity_of(last.offset, last.timestamp, last.key, last.value)

    def set_aside(self, failures: Sequence[Failure], batch: Batch) -> None:
        """Apply the malformed-record policy. RunFaultError names the first record, where the policy is to fail."""
        for message, reason in failures:
            tp = TopicPartition(message.topic, message.partition)
            if self.definition.on_malformed is OnMalformed.FAIL:
                raise malformed(tp, message, reason)
            batch.spans[tp].set_aside += 1
            batch.dead_letters.append(dead_letter(tp, message, reason))

    def pass_over(self, tp: TopicPartition, message: Message, reason: str, batch: Batch) -> None:
        """Count the record and set it aside without looking at it."""
        self.count(tp, [message], None, batch)
        self.set_aside([Failure(message, reason)], batch)


def _value_bytes(messages: Sequence[Message]) -> int:
    values = [message.value for message in messages]
    try:
        return sum(map(len, values))  # type: ignore[arg-type]  # a tombstone is what the except is for
    except TypeError:
        return sum(len(value) for value in values if value is not None)


def malformed(tp: TopicPartition, message: Message, reason: str) -> RunFaultError:
    """The fault of a job that fails on malformed records."""
    return RunFaultError(
        "MALFORMED_RECORD",
        f"The record at {tp.topic}, partition {tp.partition}, offset {message.offset} is malformed: {reason}. Mend the "
        f'job and apply it as a new version, or let it set such records aside: on_malformed="set_aside".',
        tp,
        message.offset,
    )


def dead_letter(tp: TopicPartition, message: Message, reason: str) -> DeadLetter:
    """The record as it is set aside. PostgreSQL holds no NUL in a text."""
    printable = reason.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
    return DeadLetter(tp.topic, tp.partition, message.offset, printable, message.key, message.value)


def refuse(definition: JobDefinition, batch: Batch, message: Message, reason: str) -> None:
    """Apply the malformed-record policy to the one record of a batch that PostgreSQL refused."""
    tp = TopicPartition(message.topic, message.partition)
    if definition.on_malformed is OnMalformed.FAIL:
        raise malformed(tp, message, reason)
    batch.spans[tp].set_aside = 1
    batch.dead_letters[:] = [dead_letter(tp, message, reason)]


class KeyedTransform(_Counting):
    """Aggregates and maps: the batch gathers one entry a key."""

    def __init__(self, job: CompiledAggregate | CompiledMap, watchdog: Watchdog) -> None:
        super().__init__(job, watchdog)
        self._collect = job.collect
        self._gathered: dict[Hashable, Any] = {}

    async def collect(self, fetched: Fetched, batch: Batch) -> float:
        failures: list[Failure] = []
        self.took_s = 0.0
        for tp, messages in fetched.items():
            newest = self.watched(tp, messages, messages, partial(self._collect_from, tp, failures))
            self.count(tp, messages, newest, batch)
        self.set_aside(failures, batch)
        batch.rows = len(self._gathered)
        return self.took_s

    def _collect_from(self, tp: TopicPartition, failures: list[Failure], messages: Iterator[Message]) -> int | None:
        return self._collect(tp.topic, tp.partition, messages, self._gathered, failures)

    def take(self) -> Rows:
        gathered, self._gathered = self._gathered, {}
        return rows_of_changes(self.definition, list(gathered.values()))

    def begin(self, held: Mapping[TopicPartition, Lease]) -> None:
        self._gathered = {}


class FoldTransform(_Counting):
    """Folds: states by key, loaded from the table when first met."""

    def __init__(self, job: CompiledFold, watchdog: Watchdog, load: LoadStates) -> None:
        super().__init__(job, watchdog)
        self._job = job
        self._load = load
        self._states: dict[Hashable, Change | None] = {}
        self._changes: dict[Hashable, Change] = {}
        self._complete: frozenset[int] = frozenset()  # partitions all of whose rows are in the states

    async def collect(self, fetched: Fetched, batch: Batch) -> float:
        failures: list[Failure] = []
        self.took_s = 0.0
        waiting: list[tuple[TopicPartition, Waiting]] = []
        for tp, messages in fetched.items():
            one = self.watched(tp, messages, messages, partial(self._collect_from, tp, failures))
            self.count(tp, messages, one.event_time_ms, batch)
            waiting.append((tp, one))
        missing = list(dict.fromkeys(key for _, one in waiting for key, *_ in one.keyed))
        if missing:
            found = await self._load(missing)
            self._states.update((key, found.get(key)) for key in missing)
        for tp, one in waiting:
            messages = [message for _, _, message, _ in one.keyed]
            self.watched(tp, messages, one.keyed, partial(self._step, one, failures))
        self.set_aside(failures, batch)
        batch.rows = len(self._changes)
        return self.took_s

    def _collect_from(self, tp: TopicPartition, failures: list[Failure], messages: Iterator[Message]) -> Waiting:
        complete = tp.partition in self._complete
        return self._job.collect(tp.topic, tp.partition, messages, self._states, self._changes, failures, complete)

    def _step(self, waiting: Waiting, failures: list[Failure], keyed: Iterator[Any]) -> None:
        # The generated loop only iterates `keyed`, so that an iterator, which tells how far it is, does as well.
        self._job.step(waiting._replace(keyed=keyed), self._states, self._changes, failures)  # type: ignore[arg-type]

    def take(self) -> Rows:
        changes, self._changes = self._changes, {}
        if changes and len(self._states) * _state_bytes(list(changes.values())) > STATES_BYTES_MAX:
            # Whatever was taken before is committed; what is taken now is all that the table does not hold yet.
            self._states, self._complete = dict(changes), frozenset()
        return rows_of_changes(self.definition, list(changes.values()))

    def begin(self, held: Mapping[TopicPartition, Lease]) -> None:
        self._states, self._changes = {}, {}
        self._complete = complete_partitions(self.definition, held)


def _state_bytes(changes: Sequence[Change]) -> int:
    """Roughly what one of these takes in memory, from a sample of them."""
    sample = changes[:: max(1, len(changes) // _SAMPLED)]
    sizes = (_STATE_BYTES + sys.getsizeof(change) + sum(map(sys.getsizeof, change)) for change in sample)
    return sum(sizes) // len(sample)


def complete_partitions(definition: JobDefinition, held: Mapping[TopicPartition, Lease]) -> frozenset[int]:
    """Partitions whose rows nobody but the holder of these leases has written or will write: none so far. Those of one
    number hold the same keys, whatever their topic, so all of the job's topics must be there."""
    topics = [source.topic for source in definition.topics]
    return frozenset(
        number
        for number in {tp.partition for tp in held}
        if all((lease := held.get(TopicPartition(topic, number))) and lease.untouched for topic in topics)
    )


def transform_of(job: CompiledJob, watchdog: Watchdog, load: LoadStates) -> Transform:
    """The transform of a job's kind; `load` is used by folds only."""
    if isinstance(job, CompiledFold):
        return FoldTransform(job, watchdog, load)
    return KeyedTransform(job, watchdog)
