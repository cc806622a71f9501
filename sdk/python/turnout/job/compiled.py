"""What an engine runs: a job, compiled into functions that take a batch at a time.

Theory of operation. `Job.compile()` generates one Python function per job in which decoding, the user's function,
checking the types of its columns, and combining rows of one key are a single loop (`codegen.py`). The engine gives it
the messages of **one partition, in offset order**; it never sees Kafka or PostgreSQL. User functions are pure: called
twice with equal arguments they return equal rows, so an engine may run any range of records again.

Shapes, the same for all three kinds:

- *message*: anything with the attributes of `Message`; aiokafka's ConsumerRecord as it is.
- *columns*: a tuple or list of values in the order of `definition.columns`, each of exactly this Python type (or None
  where nullable), ready for asyncpg: int, float, bool, str, bytes, date, datetime (aware, UTC), Decimal, UUID; ENUM
  and JSON as str. Each value has been checked, NUL in a text and an int beyond 64 bits included: whether a record is
  malformed must not depend on which others its batch combines it with. What shows in the table only has not: an
  oversized index key, a sum beyond 64 bits, a derived column that cannot be computed.
- *key*: where the table has one key column, its bare value; otherwise a tuple of values. Hashable; keys of one job sort
  among themselves, the same on every worker (sort before writing, or two workers deadlock).
- *change* (map, fold): one flat tuple `(*columns, offset, partition, deleted, event_time_ms, topic)`; index the last
  five with OFFSET, PARTITION, DELETED, EVENT_TIME_MS, TOPIC (negative). In this order what most tables store stands
  first, and a change is written as it is. `deleted` is a bool; the columns of a deletion are None except the key and,
  if the definition has one, order_by.
- *event time*: int milliseconds since 1970, from the field the topic's source names, else Kafka's timestamp. Each
  batch function returns the newest of its batch, None if there is none. Not clamped.
- *failures*: a list to which a `Failure(message, reason)` is appended for each record that could not be decoded, whose
  function raised, or whose row has a value of the wrong type. Such a record has changed nothing. The engine applies the
  malformed-record policy; the reason does not name topic, partition, offset.

All three raise PartitionConflictError as described there; it fails the run whatever the policy is. After it, or after
any other exception out of a batch function, the dictionaries given are to be thrown away.

Aggregate: `collect(topic, partition, messages, groups, failures)` merges the batch into `groups`: key -> columns list,
each list the merge of all records so far. Merge a group into the table by the rules in `turnout.schema`; `merge(into,
columns)` is the same rule in Python, in place. Groups may gather any number of batches of any partitions.

Map: `collect(topic, partition, messages, changes, failures)` leaves in `changes`: key -> change the one change that
wins by the definition's rule among those collected. Against the table the same rule holds, by hidden columns:
- keyed_by_partition, keep LAST: the newer change replaces or deletes the row; its partition must equal the row's.
- keyed_by_partition, keep FIRST: the row stays if there is one; its partition must equal the change's.
- order_by, keep LAST: the change applies if (order_by, topic, partition, offset) is greater than the row's *or hidden
  tombstone's*; a deletion becomes a hidden tombstone until every partition's event time has passed its event_time_ms.
- order_by, keep FIRST: the change applies if (order_by, topic, partition, offset) is smaller than the row's.
Text compares by code point (COLLATE "C"). Changes may gather any number of batches of any partitions.

Fold: two steps, so that the engine loads many states with one query in between. `states` is the cache: key -> the last
change, or None if the table has no such row.
1. `collect(topic, partition, messages, states, changes, failures, complete)` -> Waiting: folds each record whose key is
   in `states`, and lists the others in `waiting.keyed`. (Only the order within a key matters, and all of a key's
   records of one batch go the same way.) `complete`: every row that this partition has in the table is in `states`, so
   that a key which is not there has none: its record is folded at once.
2. Load the keys of `waiting.keyed` into `states`: a row as a change with its columns and hidden partition (the other
   hidden values are not read), a key without a row as None.
3. `step(waiting, states, changes, failures)` folds them.
Both put each new change into `states` and into `changes`: write `changes` and empty it at each flush; keep `states` as
long as the connection and the fence hold, at most. A deleted key stands there as a change with deleted = True, and
reads as no state. Records whose key is None belong to no row and are passed over.

Garbage collection: the caches hold many small tuples and no cycles; a worker is faster with `gc.disable()`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from turnout.job.rows import Message, Row
from turnout.schema import JobDefinition

Columns: TypeAlias = tuple[Any, ...]
Change: TypeAlias = tuple[Any, ...]

OFFSET, PARTITION, DELETED, EVENT_TIME_MS, TOPIC = -5, -4, -3, -2, -1
HIDDEN = 5  # how many values follow the columns in a change


class Failure(NamedTuple):
    """A malformed record, and why it is one."""

    message: Message
    reason: str


class Waiting(NamedTuple):
    """The records of a fold's batch whose state is not loaded: `keyed` holds (key, record, message, event_time_ms).
    `event_time_ms` is the newest of the whole batch."""

    topic: str
    partition: int
    keyed: list[tuple[Hashable, Any, Message, int]]
    event_time_ms: int | None


@dataclass(frozen=True, slots=True)
class CompiledAggregate:
    """An aggregate's functions; see the module's text for the shapes."""

    definition: JobDefinition
    collect: Callable[[str, int, Iterable[Message], dict[Hashable, list[Any]], list[Failure]], int | None]
    merge: Callable[[list[Any], Columns | list[Any]], None]
    to_row: Callable[[Columns | list[Any]], Row]


@dataclass(frozen=True, slots=True)
class CompiledMap:
    """A map's functions; see the module's text for the shapes."""

    definition: JobDefinition
    collect: Callable[[str, int, Iterable[Message], dict[Hashable, Change], list[Failure]], int | None]
    to_row: Callable[[Columns], Row]


@dataclass(frozen=True, slots=True)
class CompiledFold:
    """A fold's functions; see the module's text for the shapes."""

    definition: JobDefinition
    collect: Callable[
        [str, int, Iterable[Message], dict[Hashable, Change | None], dict[Hashable, Change], list[Failure], bool],
        Waiting,
    ]
    step: Callable[[Waiting, dict[Hashable, Change | None], dict[Hashable, Change], list[Failure]], None]
    to_row: Callable[[Columns], Row]


CompiledJob: TypeAlias = CompiledAggregate | CompiledMap | CompiledFold
