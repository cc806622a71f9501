"""Whether the contracts of a plan fit the tables, as far as the definitions tell. Pure.

The comparison itself checks types too. But it comes after the copy of the log, and a plan that was begun is fixed.
"""

from collections.abc import Iterator, Sequence

from services.switcher.rollouts.plan import Plan, complaint
from turnout.contract import Contract, decode
from turnout.errors import Violation
from turnout.schema import JobDefinition


def misfits(plan: Plan, control: JobDefinition, candidate: JobDefinition) -> Sequence[Violation]:
    """A complaint for each column that a step names and that is not compared."""
    return [
        complaint(
            f"plan.steps[{place}]",
            f"Step {place + 1}, {step.label}: the contract does not fit the tables: {told}. Name one of the columns "
            "that are compared, or leave it out.",
        )
        for place, step in enumerate(plan.steps)
        if step.contract
        for told in _of_contract(decode(step.contract), control, candidate)
    ]


def _of_contract(contract: Contract, control: JobDefinition, candidate: JobDefinition) -> Iterator[str]:
    before, after = _columns(control), _columns(candidate)
    compared = [name for name in before if name in after and name not in control.key]
    if contract.projection is not None:
        pairs = [*contract.projection.key, *(one.column for one in contract.projection.measures)]
        for name, known, what in [(pair.old, before, "active version") for pair in pairs] + [
            (pair.new, after, "candidate") for pair in pairs
        ]:
            if name not in known:
                yield f"the {what} has no column {name}; it has {', '.join(known)}"
        compared = [one.column.new for one in contract.projection.measures]
    named = [*(one.column for one in contract.columns), *(one.column for one in contract.tolerances)]
    for name in dict.fromkeys(named):
        if name not in compared:
            yield f"{name} is not compared; compared are {', '.join(compared) or 'no columns'}"


def _columns(definition: JobDefinition) -> list[str]:
    """Those that readers see."""
    return [*(one.name for one in definition.columns), *(one.name for one in definition.derived)]
