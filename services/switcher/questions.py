"""Which gates a change asks: those that always are, and those that it, or its route, demands. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from turnout.errors import InvalidInput

COMPARISON = "comparison"
SCHEMA = "schema"
ROLLBACK = "rollback"
SHADOW = "shadow"
ALWAYS_ASKED = ("catch-up", "coverage", SCHEMA)
"""The gates that the replayer is asked for every version that is to get more."""
DEMANDABLE = (COMPARISON, SHADOW)
"""The gates that are asked only where a change, or its route for every change, demands them."""
GATES = (*ALWAYS_ASKED, *DEMANDABLE, ROLLBACK)
"""Every gate; rollback (whether there is a way back) is asked only of a cutover."""


@dataclass(frozen=True, slots=True)
class GateQuestion:
    """Gates to ask for a candidate version against a baseline; None = it is the job's first.

    comparison: a stored comparison of the two is demanded. shadow: that live reads of the two were compared. Of a first
    version there is neither. schema_only: no other gate matters, because the candidate is to answer nobody.
    """

    candidate: int
    baseline: int | None
    comparison: bool = False
    schema_only: bool = False
    shadow: bool = False

    @property
    def gates(self) -> tuple[str, ...]:
        """The gates that the replayer must answer."""
        if self.schema_only:
            return (SCHEMA,)
        return (*ALWAYS_ASKED, COMPARISON) if self.comparison else ALWAYS_ASKED


@dataclass(frozen=True, slots=True)
class Asked:
    """What is said of gates: the names to pass over, and those that are demanded."""

    overridden: frozenset[str]
    demanded: frozenset[str]

    def of(self, candidate: int, baseline: int | None) -> GateQuestion:
        """The question for a version that is to get more."""
        demanded = self.demanded if baseline is not None else ()
        return GateQuestion(candidate, baseline, COMPARISON in demanded, shadow=SHADOW in demanded)


def asked(override_gates: Iterable[str], require_gates: Iterable[str], of_route: Iterable[str]) -> Asked:
    """What a change says of gates, and its route of every change. InvalidInput (UNKNOWN_GATE)."""
    return Asked(known(override_gates), frozenset(demandable(require_gates)) | frozenset(of_route))


def known(names: Iterable[str]) -> frozenset[str]:
    """Names of gates. InvalidInput (UNKNOWN_GATE) for any other."""
    found = frozenset(names)
    for name in sorted(found):
        if name not in GATES:
            raise InvalidInput("UNKNOWN_GATE", f"There is no gate {name!r}; the gates are {', '.join(GATES)}.")
    return found


def demandable(names: Iterable[str]) -> tuple[str, ...]:
    """Gates to demand beyond those that are always asked, each once. InvalidInput (UNKNOWN_GATE) for any other."""
    found = tuple(sorted(set(names)))
    for name in found:
        if name not in DEMANDABLE:
            raise InvalidInput(
                "UNKNOWN_GATE",
                f"The gate {name!r} cannot be demanded; {', '.join(DEMANDABLE)} can, the others are always asked.",
            )
    return found
