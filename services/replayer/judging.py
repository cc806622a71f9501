"""Collecting the facts that the gates judge by."""

from dataclasses import dataclass
from datetime import timedelta

from services.replayer import gates, verdict
from services.replayer.comparison import Comparisons
from services.replayer.run import Run
from services.replayer.surroundings import Surroundings
from services.replayer.topic_checks import Infos, TopicChecks
from turnout.clock import Clock
from turnout.errors import InvalidInput
from turnout.names import VersionId


@dataclass(frozen=True, slots=True)
class Judgement:
    """The answers of all gates, in their fixed order, and the candidate that they are about."""

    candidate: Run
    gates: tuple[gates.Gate, ...]


async def check_gates(
    around: Surroundings, topics: TopicChecks, clock: Clock, candidate: VersionId, baseline: VersionId | None
) -> Judgement:
    """Ask the gates. The topics have been checked before, a moment ago at the most: a run on a topic that was created
    again FAILS here.

    NotFound (RUN_NOT_FOUND); FailedPrecondition (TOPIC_RECREATED, POSITION_BEYOND_END); Unavailable.
    """
    if baseline is not None and baseline.job != candidate.job:
        raise InvalidInput("DIFFERENT_JOBS", f"{candidate} and {baseline} are versions of different jobs.")
    ours = await around.store.get(candidate)
    theirs = await around.store.get(baseline) if baseline is not None and baseline != candidate else None
    infos: Infos = {}
    if ours.drop_time is None:
        infos = await topics.of(ours)
        ours = await around.store.get(candidate)
    positions = await around.store.positions([run.version for run in (ours, theirs) if run is not None])
    starts = {tp: position.start_offset for tp, position in positions.get(ours.version, {}).items()}
    their_starts = (
        {tp: position.start_offset for tp, position in positions.get(theirs.version, {}).items()} if theirs else {}
    )
    samples, now_s = around.sampler.samples, clock.monotonic_s()
    compacted = frozenset(topic for topic, info in infos.items() if info.compacted)
    return Judgement(
        ours,
        (
            gates.catch_up(ours, theirs, samples, now_s, around.limits, around.guard.outlook(ours)),
            gates.coverage(ours, theirs, starts, their_starts, compacted),
            gates.schema(ours, theirs, await _derived_types(around, ours, theirs)),
        ),
    )


async def check_comparison(
    comparisons: Comparisons, candidate: VersionId, baseline: VersionId | None, age_max: timedelta
) -> gates.Gate:
    """Ask whether a comparison has shown that the candidate differs from the baseline as expected."""
    if baseline is None or baseline == candidate:
        return verdict.gate(_label(candidate), None, None, age_max)
    evidence = await comparisons.evidence(candidate, baseline)
    return verdict.gate(_label(candidate), _label(baseline), evidence, age_max)


def _label(version: VersionId) -> str:
    return f"version {version.number}"


async def _derived_types(around: Surroundings, ours: Run, theirs: Run | None) -> gates.DerivedTypes:
    if theirs is None:
        return gates.DerivedTypes()
    return gates.DerivedTypes(
        candidate=await around.store.column_types(ours.table), baseline=await around.store.column_types(theirs.table)
    )
