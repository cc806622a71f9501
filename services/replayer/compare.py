"""The SQL that compares the tables of two versions, and how its answer is read. Pure: definitions in, text out.

Both tables are joined on the key. Compared are the columns, stored and derived, that both have and that are not of the
key; hidden columns and hidden rows do not count. Values differ when `is distinct from` says so; columns whose types
differ are compared as text; numbers with a fraction in binary count as equal when they differ by no more than a
billionth of the larger one, because their sums depend on the order of the records.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from core.domain.errors import FailedPrecondition, InvalidInput
from services.replayer import ddl
from services.replayer.run import Positions, Run
from turnout.kinds import kind_of
from turnout.schema import JobDefinition
from turnout.sql import DELETED_COLUMN, quoted, serving

FLOAT_TOLERANCE = "1e-9"
SAMPLES_DEFAULT = 10
SAMPLES_MAX = 1000

_NUMERIC = frozenset({"bigint", "integer", "smallint", "numeric", "double precision", "real"})
_BINARY = frozenset({"double precision", "real"})


@dataclass(frozen=True, slots=True)
class Compared:
    """A column that both tables have, with its PostgreSQL type in each."""

    name: str
    old_type: str
    new_type: str

    @property
    def numeric(self) -> bool:
        """Whether a difference of two values is a number."""
        return self.old_type in _NUMERIC and self.new_type in _NUMERIC

    @property
    def differs(self) -> str:
        """SQL: whether the values in the joined rows o and n differ."""
        old, new = f"o.{quoted(self.name)}", f"n.{quoted(self.name)}"
        if self.numeric and (self.old_type in _BINARY or self.new_type in _BINARY):
            old, new = f"{old}::float8", f"{new}::float8"
            distance = f"abs({new} - {old})"
            within = f"{distance} <= {FLOAT_TOLERANCE} * greatest(abs({old}), abs({new})) and {distance} < 'infinity'"
            return f"({old} is distinct from {new} and not coalesce({within}, false))"
        if self.old_type != self.new_type and not self.numeric:
            return f"({old}::text is distinct from {new}::text)"
        return f"({old} is distinct from {new})"

    @property
    def distance(self) -> str:
        """SQL: new - old of a numeric column; null where either is null. NUMERIC, unless one is binary."""
        kind = "float8" if self.old_type in _BINARY or self.new_type in _BINARY else "numeric"
        return f"(n.{quoted(self.name)}::{kind} - o.{quoted(self.name)}::{kind})"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is compared with what, and the statements for it.

    totals: one row with rows_old, rows_new, only_old, only_new, changed, and for column number i: differing_i,
    largest_i, total_i. samples: rows key_0.., side (-1 only old, 1 only new, 0 both), for column i: old_i, new_i,
    differs_i; ordered by key; parameter: how many. `key` holds the key's columns in order, with their PostgreSQL types.
    """

    key: Mapping[str, str]
    columns: tuple[Compared, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    totals: str
    samples: str


def plan(old: Run, new: Run, old_types: Mapping[str, str], new_types: Mapping[str, str]) -> Plan:
    """How to compare. InvalidInput for two jobs; FailedPrecondition (TABLE_MISSING, KEYS_DIFFER)."""
    _check_comparable(old, new)
    before, after = ddl.visible_columns(old.definition), ddl.visible_columns(new.definition)
    key = old.definition.key
    columns = tuple(
        Compared(name, old_types[name], new_types[name]) for name in before if name in after and name not in key
    )
    joined = _joined(old, new, key)
    return Plan(
        key={name: old_types[name] for name in key},
        columns=columns,
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        totals=_totals(columns, key, joined),
        samples=_samples(columns, key, joined),
    )


def exact(old: Positions, new: Positions) -> bool:
    """Whether both tables are made of the same records: equal starts and equal positions in the same partitions."""
    return bool(old) and {tp: (p.start_offset, p.next_offset) for tp, p in old.items()} == {
        tp: (p.start_offset, p.next_offset) for tp, p in new.items()
    }


def _check_comparable(old: Run, new: Run) -> None:
    if old.version.job != new.version.job:
        raise InvalidInput("DIFFERENT_JOBS", f"{old.version} and {new.version} are versions of different jobs.")
    for run in (old, new):
        if run.drop_time is not None:
            raise FailedPrecondition("TABLE_MISSING", f"The table of {run.version} was dropped: nothing to compare.")
    if _key_types(old.definition) != _key_types(new.definition):
        raise FailedPrecondition(
            "KEYS_DIFFER",
            f"The rows of {old.version} have the key ({', '.join(old.definition.key)}), those of {new.version} "
            f"({', '.join(new.definition.key)}): rows can be matched by equal keys of equal types only.",
        )


def _key_types(definition: JobDefinition) -> dict[str, str]:
    return {name: definition.column(name).type.postgres for name in definition.key}


def _joined(old: Run, new: Run, key: tuple[str, ...]) -> str:
    on = " and ".join(f"o.{quoted(name)} = n.{quoted(name)}" for name in key)
    return f"{_rows(old)} as o full join {_rows(new)} as n on {on}"


def _rows(run: Run) -> str:
    table = serving(run.table)
    if not ddl.has_tombstones(run.definition):
        return table
    return f"(select * from {table} where not {DELETED_COLUMN})"  # noqa: S608  # quoted


def _totals(columns: tuple[Compared, ...], key: tuple[str, ...], joined: str) -> str:
    old, new = _present("o", key), _present("n", key)
    both = f"{old} and {new}"
    parts = [
        f"count(*) filter (where {old}) as rows_old",
        f"count(*) filter (where {new}) as rows_new",
        f"count(*) filter (where not ({new})) as only_old",
        f"count(*) filter (where not ({old})) as only_new",
        f"count(*) filter (where {both} and ({_any(columns)})) as changed",
    ]
    for number, column in enumerate(columns):
        parts.append(f"count(*) filter (where {both} and {column.differs}) as differing_{number}")
        if column.numeric:
            parts.append(f"max(abs({column.distance})) filter (where {both})::float8 as largest_{number}")
            parts.append(f"sum({column.distance}) filter (where {both})::float8 as total_{number}")
    return f"select {', '.join(parts)} from {joined}"  # noqa: S608  # quoted


def _samples(columns: tuple[Compared, ...], key: tuple[str, ...], joined: str) -> str:
    old, new = _present("o", key), _present("n", key)
    keys = [f"coalesce(o.{quoted(name)}, n.{quoted(name)})" for name in key]
    parts = [f"{one} as key_{number}" for number, one in enumerate(keys)]
    parts.append(f"case when not ({new}) then -1 when not ({old}) then 1 else 0 end as side")
    for number, column in enumerate(columns):
        name = quoted(column.name)
        parts += [
            f"o.{name}{_cast(column.old_type)} as old_{number}",
            f"n.{name}{_cast(column.new_type)} as new_{number}",
            f"{column.differs} as differs_{number}",
        ]
    where = f"not ({old}) or not ({new}) or {_any(columns)}"
    return f"select {', '.join(parts)} from {joined} where {where} order by {', '.join(keys)} limit $1"  # noqa: S608  # quoted


def _cast(postgres: str) -> str:
    return "::text" if kind_of(postgres).selected_as_text else ""


def _present(side: str, key: tuple[str, ...]) -> str:
    """A key is never null, so its first column tells whether the row is there."""
    return f"{side}.{quoted(key[0])} is not null"


def _any(columns: tuple[Compared, ...]) -> str:
    return " or ".join(column.differs for column in columns) or "false"
