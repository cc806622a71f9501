"""Whether what two tables differ in is what their contract expects, and what a gate makes of it. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from services.replayer.compare import Plan, Totals
from services.replayer.gates import Gate
from services.replayer.spans import span
from turnout.contract import Contract, Expected

COMPARISON = "comparison"
AGE_MAX = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Verdict:
    """passed: everything that differs may, and everything that must differ does. findings: everything that speaks
    against it, or what agrees with it; sentences without a full stop."""

    passed: bool
    findings: tuple[str, ...]


def judge(contract: Contract, plan: Plan, totals: Totals) -> Verdict:
    """Hold what was found against the contract."""
    said = [*_of_columns(contract, plan, totals), *_of_sides(contract, totals), *_of_all(contract, totals)]
    against = tuple(text for holds, text in said if not holds)
    if against:
        return Verdict(False, against)
    fine = tuple(text for _, text in said)
    return Verdict(True, fine or (f"nothing differs in {totals.rows:,} rows, and nothing was expected to",))


_Said = Iterator[tuple[bool, str]]  # whether it is as it should be, and what it is


def _of_columns(contract: Contract, plan: Plan, totals: Totals) -> _Said:
    for column, found in zip(plan.columns, totals.columns, strict=True):
        yield from _held(f"column {column.name}", "differs", found.rows, totals.both, contract.expected(column.name))


def _of_sides(contract: Contract, totals: Totals) -> _Said:
    yield from _held("the old table alone", "has rows", totals.only_old, totals.rows_old, contract.only_old)
    yield from _held("the new table alone", "has rows", totals.only_new, totals.rows_new, contract.only_new)


def _of_all(contract: Contract, totals: Totals) -> _Said:
    if contract.share_max is None:
        return
    share = _share(totals.differing, totals.rows)
    found = f"{totals.differing:,} of {totals.rows:,} rows differ ({share:.2%})"
    holds = share <= contract.share_max
    yield holds, f"{found}, {'as' if holds else 'and only'} {contract.share_max:.2%} may"


def _held(what: str, does: str, rows: int, of: int, expected: Expected | None) -> _Said:
    found = f"{what} {does}: {rows:,} of {of:,}"
    if expected is None:
        if rows:
            yield False, f"{found}, which the contract does not expect"
        return
    if not rows:
        if not expected.optional:
            yield False, f"{what} was expected to show a difference, and there is none in {of:,} rows"
        return
    share = _share(rows, of)
    if expected.share_max is not None and share > expected.share_max:
        yield False, f"{found} ({share:.2%}), and {expected.share_max:.2%} are allowed"
    else:
        yield True, f"{found}, as expected"


def _share(rows: int, of: int) -> float:
    return rows / of if of else 0.0


# --- the gate -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Evidence:
    """The newest comparison of a candidate with its baseline that was judged by a contract.

    passed: None = it is not finished. age: since it was begun; the tables were read since then. cut: of its newest
    range, in words.
    """

    name: str
    passed: bool | None
    aligned: bool
    exact: bool
    findings: tuple[str, ...]
    age: timedelta
    cut: str


def gate(candidate: str, baseline: str | None, evidence: Evidence | None, age_max: timedelta) -> Gate:
    """Whether a comparison has shown that the candidate differs from the baseline as expected. The labels are those of
    `Run.label`."""
    if baseline is None:
        return Gate(COMPARISON, True, ("it is the first version: there is nothing to compare it with",))
    if evidence is None:
        return Gate(
            COMPARISON,
            False,
            (
                f"{candidate} has not been compared with {baseline} under a contract yet; "
                f"`turnout compare` with --contract or --expect does",
            ),
        )
    told = f"{evidence.name}, {span(evidence.age.total_seconds())} old, at {evidence.cut}"
    against = list(_against(evidence, age_max))
    if against:
        return Gate(COMPARISON, False, (*against, f"this is told by {told}"))
    if not evidence.exact:
        told += "; the tables begin at different offsets, and differ as expected all the same"
    return Gate(COMPARISON, True, (*evidence.findings, f"this is told by {told}"))


def _against(evidence: Evidence, age_max: timedelta) -> Iterator[str]:
    if evidence.passed is None:
        yield "the newest comparison is not finished; `turnout compare --resume` finishes it"
        return
    if not evidence.passed:
        yield from evidence.findings
    if not evidence.aligned:
        yield "the tables were not compared at one cut, so that records still to be applied may hide a difference"
    if evidence.age > age_max:
        allowed = span(age_max.total_seconds())
        yield f"the newest comparison is {span(evidence.age.total_seconds())} old, and {allowed} are allowed"
