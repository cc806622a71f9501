"""What is said of a shadow from what fronts have compared. Pure."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.switcher.gates import Said, answer
from services.switcher.questions import SHADOW
from services.switcher.records import GateAnswer
from services.switcher.statistics.paired import Discordant, log_e_differs
from turnout.shadow import ShadowCounts, ShadowReport, ShadowVerdict
from turnout.shadow_proto import NUMBERS

ALPHA: Final = 0.05
"""Probability that a candidate is ever said to differ more often although it does not."""
_COLUMNS_NAMED = 5
_E_MAX: Final = 1e300


@dataclass(frozen=True, slots=True)
class ShadowTally:
    """What one front, since it started, has compared in one epoch of a route. sequence: grows with the counts."""

    job: str
    epoch: int
    version: int
    active_version: int
    sequence: int
    counts: ShadowCounts


def total(counts: Iterable[ShadowCounts]) -> ShadowCounts:
    """The sum of counts."""
    every = list(counts)
    columns, left_out = Counter[str](), Counter[str]()
    for one in every:
        columns.update(one.columns)
        left_out.update(one.left_out)
    numbers = {name: sum(getattr(one, name) for one in every) for name in NUMBERS}
    return ShadowCounts(**numbers, columns=dict(columns), left_out=dict(left_out))


def report(
    job: str,
    pair: tuple[int, int],
    share: int | None,
    tallies: Sequence[ShadowCounts],
    update_time: datetime | None,
) -> ShadowReport:
    """What is said of a candidate. pair: its number and the active version's. tallies: in the order of their beginning;
    share: of the reads that are sampled now, None = none."""
    version, active_version = pair
    counts = total(tallies)
    strata = [Discordant(one.only_active_differs, one.only_candidate_differs) for one in tallies]
    e_value = math.exp(min(log_e_differs(strata), math.log(_E_MAX)))
    sampled = counts.compared + sum(counts.left_out.values())
    compared_share = counts.compared / sampled if sampled else None
    verdict = ShadowVerdict.DIFFERS if e_value >= 1 / ALPHA else ShadowVerdict.NOT_SHOWN
    return ShadowReport(
        job=job,
        version=version,
        active_version=active_version,
        share=share,
        counts=counts,
        compared_share=compared_share,
        e_value=e_value,
        threshold=1 / ALPHA,
        verdict=verdict,
        sentence=_sentence(pair, verdict, counts, e_value, compared_share),
        update_time=update_time,
    )


def shadow_gate(job: str, version: int, said: ShadowReport | None, overridden: frozenset[str]) -> GateAnswer:
    """The answer of the gate "shadow" to a version; said: of it and of the active version, None = nothing is known.

    It passes once live reads of both were compared and the candidate is not shown to differ more often than the active
    version from itself. What nobody has compared is not shown to be the same.
    """
    if said is None:
        told = f"No live read was compared with it yet; `turnout shadow set {job} v{version}` begins."
        return answer(version, Said(SHADOW, False, (told,)), overridden)
    passed = said.counts.compared > 0 and said.verdict is not ShadowVerdict.DIFFERS
    return answer(version, Said(SHADOW, passed, (said.sentence,)), overridden)


def _sentence(
    pair: tuple[int, int], verdict: ShadowVerdict, counts: ShadowCounts, e_value: float, share: float | None
) -> str:
    candidate, active = (f"v{version}" for version in pair)
    if share is None:
        return f"No read of {active} has been sampled yet, so nothing is known of {candidate}."
    if not counts.compared:
        return f"None of {sum(counts.left_out.values()):,} sampled reads could be compared: {_reasons(counts)}."
    differs = verdict is ShadowVerdict.DIFFERS
    says = "differs more often than" if differs else "is not shown to differ more often than"
    numbers = (
        f"of {counts.compared:,} compared reads {counts.only_candidate_differs:,} differed in {candidate} alone and "
        f"{counts.only_active_differs:,} in a second read of {active} alone (evidence {e_value:.3g}, "
        f"{1 / ALPHA:g} decides)"
    )
    left_out = f"; {math.floor(share * 1000) / 10:g} % of the sampled reads were compared" + (
        f" (left out: {_reasons(counts)})" if counts.left_out else ""
    )
    return f"{candidate} {says} {active} from itself: {numbers}{_where(counts)}{left_out}."


def _where(counts: ShadowCounts) -> str:
    named = sorted(counts.columns.items(), key=lambda one: (-one[1], one[0]))[:_COLUMNS_NAMED]
    return "; by column: " + ", ".join(f"{name} {rows:,}" for name, rows in named) if named else ""


def _reasons(counts: ShadowCounts) -> str:
    return ", ".join(f"{reason} {reads:,}" for reason, reads in sorted(counts.left_out.items()))
