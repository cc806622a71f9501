"""The SQL that compares the tables of two versions, and how its answer is read. Pure: definitions in, text out.

Both tables are joined on the key, or on the columns that the contract projects them onto. Compared are the columns,
stored and derived, that both have and that are not of the key; hidden columns and hidden rows do not count. Values
differ when `is distinct from` says so; columns whose types differ are compared as text; numbers count as equal within
the contract's tolerance, and those with a fraction in binary in any case when they differ by no more than a billionth
of the larger one, because their sums depend on the order of the records.

A large table is compared in ranges of its key: what a statement says holds for the rows behind one key and up to
another one. Keys travel as text by column, which PostgreSQL reads as it wrote it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from services.replayer import ddl
from services.replayer.run import Positions, Run
from turnout.contract import NUMERIC, WITHOUT_ORDER, Contract, How, Pair, Projection, Tolerance
from turnout.errors import FailedPrecondition, InvalidInput
from turnout.kinds import kind_of
from turnout.schema import JobDefinition
from turnout.sql import DELETED_COLUMN, literal, quoted, serving

FLOAT_TOLERANCE = 1e-9
SAMPLES_DEFAULT = 10
SAMPLES_MAX = 1000

_BINARY = frozenset({"double precision", "real"})
_SUMS = {
    "bigint": "numeric",
    "integer": "bigint",
    "smallint": "bigint",
    "numeric": "numeric",
    "double precision": "double precision",
    "real": "real",
}

Key = tuple[str, ...]  # a key as text, by column


@dataclass(frozen=True, slots=True)
class Compared:
    """A column that both tables have, with its PostgreSQL type in each. absolute, relative: what counts as equal."""

    name: str
    old_type: str
    new_type: str
    absolute: float = 0.0
    relative: float = 0.0

    @property
    def numeric(self) -> bool:
        """Whether a difference of two values is a number."""
        return self.old_type in NUMERIC and self.new_type in NUMERIC

    @property
    def _binary(self) -> bool:
        return self.old_type in _BINARY or self.new_type in _BINARY

    @property
    def _common(self) -> str:
        return "float8" if self._binary else "numeric"

    @property
    def differs(self) -> str:
        """SQL: whether the values in the joined rows o and n differ."""
        old, new = f"o.{quoted(self.name)}", f"n.{quoted(self.name)}"
        relative = max(self.relative, FLOAT_TOLERANCE) if self._binary else self.relative
        if self.numeric and (relative or self.absolute):
            old, new = f"{old}::{self._common}", f"{new}::{self._common}"
            distance = f"abs({new} - {old})"
            allowed = f"greatest({self.absolute!r}, {relative!r} * greatest(abs({old}), abs({new})))"
            within = f"{distance} <= {allowed} and {distance} < 'infinity'::{self._common}"
            return f"({old} is distinct from {new} and not coalesce({within}, false))"
        if self.old_type != self.new_type and not self.numeric:
            return f"({old}::text is distinct from {new}::text)"
        return f"({old} is distinct from {new})"

    @property
    def distance(self) -> str:
        """SQL: new - old of a numeric column; null where either is null. NUMERIC, unless one is binary."""
        return f"(n.{quoted(self.name)}::{self._common} - o.{quoted(self.name)}::{self._common})"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is compared with what.

    key: the columns that rows are matched by, in order, with their PostgreSQL types. relations: SQL of the rows of the
    old and of the new table, by the names of `key` and `columns`. projected: the key is not that of the tables, which
    are compared in one range then.
    """

    key: Mapping[str, str]
    columns: tuple[Compared, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    relations: tuple[str, str]
    projected: bool

    def totals(self, after: Key | None, last: Key | None) -> str:
        """One row with rows_old, rows_new, only_old, only_new, changed, and for column number i: differing_i,
        largest_i, total_i."""
        old, new = self._present("o"), self._present("n")
        both = f"{old} and {new}"
        parts = [
            f"count(*) filter (where {old}) as rows_old",
            f"count(*) filter (where {new}) as rows_new",
            f"count(*) filter (where not ({new})) as only_old",
            f"count(*) filter (where not ({old})) as only_new",
            f"count(*) filter (where {both} and ({self._any})) as changed",
        ]
        for number, column in enumerate(self.columns):
            parts.append(f"count(*) filter (where {both} and {column.differs}) as differing_{number}")
            if column.numeric:
                parts.append(f"max(abs({column.distance})) filter (where {both})::float8 as largest_{number}")
                parts.append(f"sum({column.distance}) filter (where {both})::float8 as total_{number}")
        return f"select {', '.join(parts)} from {self._joined(after, last)}"  # noqa: S608  # quoted

    def samples(self, after: Key | None, last: Key | None) -> str:
        """Rows key_0.., side (-1 only old, 1 only new, 0 both), for column i: old_i, new_i, differs_i; ordered by key.
        Parameter: how many."""
        old, new = self._present("o"), self._present("n")
        keys = [f"coalesce(o.{quoted(name)}, n.{quoted(name)})" for name in self.key]
        parts = [f"{one} as key_{number}" for number, one in enumerate(keys)]
        parts.append(f"case when not ({new}) then -1 when not ({old}) then 1 else 0 end as side")
        for number, column in enumerate(self.columns):
            name = quoted(column.name)
            parts += [
                f"o.{name}{_cast(column.old_type)} as old_{number}",
                f"n.{name}{_cast(column.new_type)} as new_{number}",
                f"{column.differs} as differs_{number}",
            ]
        where = f"not ({old}) or not ({new}) or {self._any}"
        joined = self._joined(after, last)
        return f"select {', '.join(parts)} from {joined} where {where} order by {', '.join(keys)} limit $1"  # noqa: S608  # quoted

    def last_key(self, after: Key | None) -> str:
        """One row: the key, as text by column, that ends a range which begins behind `after`, so that neither table
        has more rows in it than the parameter says; no row = the range goes to the end."""
        names = ", ".join(quoted(name) for name in self.key)
        each = [
            f"(select {names} from {rows} as t{self._where('t', after, None)} order by {names} offset $1 - 1 limit 1)"  # noqa: S608  # quoted
            for rows in self.relations
        ]
        texts = ", ".join(f"{quoted(name)}::text" for name in self.key)
        return f"select {texts} from ({' union all '.join(each)}) as ends order by {names} limit 1"  # noqa: S608  # quoted

    def _joined(self, after: Key | None, last: Key | None) -> str:
        on = " and ".join(f"o.{quoted(name)} = n.{quoted(name)}" for name in self.key)
        old, new = (
            f"(select * from {rows} as t{self._where('t', after, last)})"  # noqa: S608  # quoted
            for rows in self.relations
        )
        return f"{old} as o full join {new} as n on {on}"

    def _where(self, side: str, after: Key | None, last: Key | None) -> str:
        limits = [(">", after), ("<=", last)]
        parts = [self._beyond(side, sign, key) for sign, key in limits if key is not None]
        return f" where {' and '.join(parts)}" if parts else ""

    def _beyond(self, side: str, sign: str, key: Key) -> str:
        names = ", ".join(f"{side}.{quoted(name)}" for name in self.key)
        values = ", ".join(f"{literal(text)}::{kind}" for text, kind in zip(key, self.key.values(), strict=True))
        return f"({names}) {sign} ({values})"

    def _present(self, side: str) -> str:
        """A key is never null, so its first column tells whether the row is there."""
        return f"{side}.{quoted(next(iter(self.key)))} is not null"

    @property
    def _any(self) -> str:
        return " or ".join(column.differs for column in self.columns) or "false"

    def encode(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> "Plan":
        """What `encode` wrote."""
        known = json.loads(text)
        return cls(
            key=known["key"],
            columns=tuple(Compared(**one) for one in known["columns"]),
            added=tuple(known["added"]),
            removed=tuple(known["removed"]),
            relations=(known["relations"][0], known["relations"][1]),
            projected=known["projected"],
        )


def plan(
    old: Run,
    new: Run,
    old_types: Mapping[str, str],
    new_types: Mapping[str, str],
    contract: Contract | None = None,
) -> Plan:
    """How to compare. InvalidInput for two jobs, or a contract that does not fit (INVALID_CONTRACT); FailedPrecondition
    (TABLE_MISSING, KEYS_DIFFER)."""
    _check_comparable(old, new)
    before, after = ddl.visible_columns(old.definition), ddl.visible_columns(new.definition)
    projection = contract.projection if contract is not None else None
    if projection is not None:
        _check_projection(projection, old, new, old_types, new_types)
        key = {pair.new: new_types[pair.new] for pair in projection.key}
        compared = [_projected(one.column, one.how, old_types, new_types) for one in projection.measures]
    else:
        _check_keys(old, new)
        key = {name: old_types[name] for name in old.definition.key}
        common = [name for name in before if name in after and name not in key]
        compared = [Compared(name, old_types[name], new_types[name]) for name in common]
    columns = tuple(_with_tolerance(one, contract) for one in compared)
    _check_contract(contract, columns)
    return Plan(
        key=key,
        columns=columns,
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        relations=(_rows(old, projection, "old"), _rows(new, projection, "new")),
        projected=projection is not None,
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


def _check_keys(old: Run, new: Run) -> None:
    if _key_types(old.definition) != _key_types(new.definition):
        raise FailedPrecondition(
            "KEYS_DIFFER",
            f"The rows of {old.version} have the key ({', '.join(old.definition.key)}), those of {new.version} "
            f"({', '.join(new.definition.key)}): rows are matched by equal keys of equal types. Give a contract with a "
            f"projection: the columns to match by, and how the others are brought together.",
        )


def _key_types(definition: JobDefinition) -> dict[str, str]:
    return {name: definition.column(name).type.postgres for name in definition.key}


# --- the contract ---------------------------------------------------------------------------------------------------


def _check_projection(
    projection: Projection, old: Run, new: Run, old_types: Mapping[str, str], new_types: Mapping[str, str]
) -> None:
    pairs = [*projection.key, *(one.column for one in projection.measures)]
    for name, run, types in [(p.old, old, old_types) for p in pairs] + [(p.new, new, new_types) for p in pairs]:
        if name not in types or name not in ddl.visible_columns(run.definition):
            raise _unfit(f"{run.version} has no column {name}")
    for pair in projection.key:
        if old_types[pair.old] != new_types[pair.new]:
            renamed = "" if pair.old == pair.new else f"{pair.new} is "
            raise _unfit(
                f"{pair.old} is {old_types[pair.old]} in {old.label} and {renamed}{new_types[pair.new]} in {new.label}"
            )
        for name, run in ((pair.old, old), (pair.new, new)):
            stored = {column.name: column for column in run.definition.columns}
            if name not in stored or stored[name].nullable:
                raise _unfit(f"{name} of {run.label} may be null, so that rows cannot be matched by it")


def _projected(pair: Pair, how: How, old_types: Mapping[str, str], new_types: Mapping[str, str]) -> Compared:
    old_type, new_type = _brought(how, old_types[pair.old], pair.old), _brought(how, new_types[pair.new], pair.new)
    return Compared(pair.new, old_type, new_type)


def _brought(how: How, postgres: str, name: str) -> str:
    """The type of a column that is brought together."""
    if how is How.COUNT:
        return "bigint"
    if how is How.SUM:
        if postgres not in _SUMS:
            raise _unfit(f"{name} is {postgres}, and has no sum")
        return _SUMS[postgres]
    if postgres in WITHOUT_ORDER:
        raise _unfit(f"{name} is {postgres}, and has no {how.value}")
    return postgres


def _with_tolerance(column: Compared, contract: Contract | None) -> Compared:
    tolerance: Tolerance | None = contract.tolerance(column.name) if contract is not None else None
    if tolerance is None:
        return column
    if not column.numeric:
        raise _unfit(f"{column.name} is no number, and has no tolerance")
    return Compared(column.name, column.old_type, column.new_type, tolerance.absolute, tolerance.relative)


def _check_contract(contract: Contract | None, columns: Sequence[Compared]) -> None:
    if contract is None:
        return
    known = [column.name for column in columns]
    for name in [*(one.column for one in contract.columns), *(one.column for one in contract.tolerances)]:
        if name not in known:
            raise _unfit(f"{name} is not compared; compared are {', '.join(known) or 'no columns'}")


def _unfit(why: str) -> InvalidInput:
    return InvalidInput("INVALID_CONTRACT", f"The contract does not fit the tables: {why}.")


# --- rows -----------------------------------------------------------------------------------------------------------


def _rows(run: Run, projection: Projection | None, side: str) -> str:
    table = serving(run.table)
    shown = f" where not {DELETED_COLUMN}" if ddl.has_tombstones(run.definition) else ""
    if projection is None:
        return f"(select * from {table}{shown})" if shown else table  # noqa: S608  # quoted
    key = [(getattr(pair, side), pair.new) for pair in projection.key]
    measures = [(one.how, getattr(one.column, side), one.column.new) for one in projection.measures]
    columns = [f"{quoted(name)} as {quoted(new)}" for name, new in key]
    columns += [f"{how.value}({quoted(name)}) as {quoted(new)}" for how, name, new in measures]
    grouped = ", ".join(quoted(name) for name, _ in key)
    return f"(select {', '.join(columns)} from {table}{shown} group by {grouped})"  # noqa: S608  # quoted


def _cast(postgres: str) -> str:
    return "::text" if kind_of(postgres).selected_as_text else ""


# --- what was found -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ColumnTotals:
    """Rows in which a column differs; the largest distance of a number, and the sum of all; None = there is none."""

    rows: int
    largest: float | None = None
    total: float | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """What was found, of one range or of all; columns in the order of the plan."""

    rows_old: int
    rows_new: int
    only_old: int
    only_new: int
    changed: int
    columns: tuple[ColumnTotals, ...]

    @property
    def rows(self) -> int:
        """Of both tables, those with one key counted once."""
        return self.rows_old + self.only_new

    @property
    def both(self) -> int:
        """Rows that both tables have."""
        return self.rows_old - self.only_old

    @property
    def differing(self) -> int:
        """Rows that differ in any way."""
        return self.changed + self.only_old + self.only_new

    def encode(self) -> str:
        """As JSON; infinities as Python's json writes them."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> "Totals":
        """What `encode` wrote."""
        known = json.loads(text)
        known["columns"] = tuple(ColumnTotals(**one) for one in known["columns"])
        return cls(**known)


def totals_of(plan: Plan, row: Mapping[str, Any]) -> Totals:
    """The answer to `Plan.totals`."""
    return Totals(
        row["rows_old"],
        row["rows_new"],
        row["only_old"],
        row["only_new"],
        row["changed"],
        tuple(
            ColumnTotals(row[f"differing_{n}"], row[f"largest_{n}"], row[f"total_{n}"])
            if column.numeric
            else ColumnTotals(row[f"differing_{n}"])
            for n, column in enumerate(plan.columns)
        ),
    )


def together(parts: Sequence[Totals], columns: int) -> Totals:
    """Of all ranges."""
    return Totals(
        sum(one.rows_old for one in parts),
        sum(one.rows_new for one in parts),
        sum(one.only_old for one in parts),
        sum(one.only_new for one in parts),
        sum(one.changed for one in parts),
        tuple(_column_together([one.columns[number] for one in parts]) for number in range(columns)),
    )


def _column_together(parts: Sequence[ColumnTotals]) -> ColumnTotals:
    def known(name: str) -> Iterator[float]:
        return (value for one in parts if (value := getattr(one, name)) is not None)

    return ColumnTotals(
        sum(one.rows for one in parts),
        max(known("largest"), default=None),
        sum(known("total")) if any(True for _ in known("total")) else None,
    )
