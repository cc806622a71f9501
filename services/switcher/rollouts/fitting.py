"""Whether the steps of a plan that compare fit the tables, as far as the definitions tell. Pure.

The comparison itself checks the same (`services.replayer.compare`), and what only the database knows besides, such as
the type of a derived column. But it comes after the copy of the log, and a plan that was begun is fixed.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from services.switcher.rollouts.plan import Plan, StepKind, complaint
from turnout.contract import NUMERIC, WITHOUT_ORDER, Contract, How, Measure, Pair, Projection, decode
from turnout.errors import Violation
from turnout.schema import Column, ColumnType, JobDefinition


class _Table(NamedTuple):
    """A table as readers see it. columns: None = derived, so that its type is not known here."""

    what: str
    columns: Mapping[str, Column | None]
    key: Sequence[str]

    def type(self, name: str) -> ColumnType | None:
        column = self.columns.get(name)
        return None if column is None else column.type


def misfits(plan: Plan, control: JobDefinition, candidate: JobDefinition) -> Sequence[Violation]:
    """A complaint for everything by which a step that compares would be refused."""
    before, after = _table("the active version", control), _table("the candidate", candidate)
    found = []
    for place, step in enumerate(plan.steps):
        if step.kind is StepKind.COMPARE:
            contract = decode(step.contract) if step.contract else None
            where = f"Step {place + 1}, {step.label}: "
            found += [
                complaint(f"plan.steps[{place}]", f"{where}{told}") for told in _of_contract(contract, before, after)
            ]
    return found


def _table(what: str, definition: JobDefinition) -> _Table:
    derived = dict.fromkeys(one.name for one in definition.derived)
    return _Table(what, {one.name: one for one in definition.columns} | derived, definition.key)


def _of_contract(contract: Contract | None, before: _Table, after: _Table) -> Iterator[str]:
    projection = contract.projection if contract is not None else None
    if projection is None:
        if _key(before) != _key(after):
            yield (
                f"the key of {before.what} is {_told(before)}, that of {after.what} {_told(after)}: rows are matched "
                "by equal keys of equal types. Give a contract with a projection: the columns to match by, and how the "
                "others are brought together."
            )
            return
        compared: Mapping[str, bool | None] = {
            name: _both(_is_number(before.type(name)), _is_number(after.type(name)))
            for name in before.columns
            if name in after.columns and name not in before.key
        }
    else:
        wrong = list(_of_projection(projection, before, after))
        yield from (f"the contract does not fit the tables: {told}" for told in wrong)
        compared = {one.column.new: _measured(one, before, after) for one in projection.measures}
    if contract is not None:
        yield from (f"the contract does not fit the tables: {told}" for told in _of_names(contract, compared))


def _of_names(contract: Contract, compared: Mapping[str, bool | None]) -> Iterator[str]:
    """compared: whether each is a number; None = it is not known."""
    named = [*(one.column for one in contract.columns), *(one.column for one in contract.tolerances)]
    for name in dict.fromkeys(named):
        if name not in compared:
            yield (
                f"{name} is not compared; compared are {', '.join(compared) or 'no columns'}. Name one of the columns "
                "that are compared, or leave it out."
            )
    for one in contract.tolerances:
        if compared.get(one.column) is False:
            yield f"{one.column} is no number, and has no tolerance. Leave that out."


def _of_projection(projection: Projection, before: _Table, after: _Table) -> Iterator[str]:
    pairs = [*projection.key, *(one.column for one in projection.measures)]
    for table, names in ((before, [pair.old for pair in pairs]), (after, [pair.new for pair in pairs])):
        for name in dict.fromkeys(names):
            if name not in table.columns:
                yield f"{table.what} has no column {name}; it has {', '.join(table.columns)}. Name one of these."
    for pair in projection.key:
        yield from _of_key(pair, before, after)
    for one in projection.measures:
        for table, name in ((before, one.column.old), (after, one.column.new)):
            kind = table.type(name)
            if kind is not None and not _has(kind, one.how):
                yield f"{name} of {table.what} is {kind.value}, and has no {one.how.value}. Count it, or leave it out."


def _of_key(pair: Pair, before: _Table, after: _Table) -> Iterator[str]:
    old, new = before.type(pair.old), after.type(pair.new)
    if old is not None and new is not None and old.postgres != new.postgres:
        yield (
            f"{pair.old} of {before.what} is {old.value}, and {pair.new} of {after.what} {new.value}: rows are matched "
            "by equal values of equal types. Match them by other columns."
        )
    for table, name in ((before, pair.old), (after, pair.new)):
        column = table.columns.get(name)
        if name in table.columns and (column is None or column.nullable):
            yield f"{name} of {table.what} may be null, so that rows cannot be matched by it. Match them by another."


def _measured(measure: Measure, before: _Table, after: _Table) -> bool | None:
    if measure.how in (How.COUNT, How.SUM):
        return True
    return _both(_is_number(before.type(measure.column.old)), _is_number(after.type(measure.column.new)))


def _has(kind: ColumnType, how: How) -> bool:
    """Whether values of the type can be brought together that way."""
    if how is How.SUM:
        return kind.postgres in NUMERIC
    return how is How.COUNT or kind.postgres not in WITHOUT_ORDER


def _is_number(kind: ColumnType | None) -> bool | None:
    return None if kind is None else kind.postgres in NUMERIC


def _both(one: bool | None, other: bool | None) -> bool | None:
    if one is False or other is False:
        return False
    return None if one is None or other is None else True


def _key(table: _Table) -> Mapping[str, str]:
    return {name: kind.postgres for name in table.key if (kind := table.type(name)) is not None}


def _told(table: _Table) -> str:
    return f"({', '.join(f'{name} {kind.value}' for name in table.key if (kind := table.type(name)) is not None)})"
