"""Experiments as they are kept, and between rows and values."""

import enum
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from core.postgres import load_queries
from services.switcher.experiments.conclude import ArmTally, Drawn, EpochTally
from services.switcher.experiments.spec import Spec, spec_from_json
from services.switcher.names import EXPERIMENTS
from services.switcher.statistics.decision import Verdict
from turnout.routing import Route

SQL: Final = load_queries(Path(__file__).with_name("queries.sql"))


class State(enum.Enum):
    """Where an experiment stands: STARTING -> RUNNING <-> PAUSED -> one of the others, for good.

    The first step and the last are taken by the commit of its route (`follow`), the others by `ExperimentStore`.
    """

    STARTING = "STARTING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    ROLLED_BACK = "ROLLED_BACK"
    STOPPED = "STOPPED"

    @property
    def over(self) -> bool:
        """Whether it counts no more, for good."""
        return self in (State.ROLLED_BACK, State.STOPPED)


@dataclass(frozen=True, slots=True)
class ExperimentRecord:
    """An experiment as it is kept."""

    number: int
    job: str
    experiment: str
    state: State
    spec: Spec
    owner: str
    claimed_actor: str
    reason: str
    request_id: str
    fingerprint: bytes
    units: int
    passed_over: tuple[Verdict, ...]
    verdict: str
    create_time: datetime
    end_time: datetime | None
    end_reason: str
    fault: str  # why windows that are over cannot be added up; "" = they can

    @property
    def name(self) -> str:
        """The resource name."""
        return EXPERIMENTS.name(self.job, self.experiment)


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """A decision as it is kept."""

    job: str
    experiment: str
    decision: int
    epoch: int
    action: str
    verdict: str
    sentence: str
    actor: str
    reason: str
    carried_out: bool
    record: bytes
    create_time: datetime


def record_of(row: Any) -> ExperimentRecord:
    """A row of the experiments."""
    return ExperimentRecord(
        number=row["number"],
        job=row["job"],
        experiment=row["experiment"],
        state=State(row["state"]),
        spec=spec_from_json(row["spec"]),
        owner=row["owner"],
        claimed_actor=row["claimed_actor"],
        reason=row["reason"],
        request_id=row["request_id"],
        fingerprint=row["fingerprint"],
        units=row["units"],
        passed_over=tuple(sorted((Verdict(one) for one in row["passed_over"]), key=lambda one: one.value)),
        verdict=row["verdict"],
        create_time=row["create_time"],
        end_time=row["end_time"],
        end_reason=row["end_reason"],
        fault=row["fault"],
    )


def decision_of(row: Any) -> DecisionRow:
    """A row of the decisions."""
    fields = ("job", "experiment", "decision", "epoch", "action", "verdict", "sentence", "actor", "reason")
    return DecisionRow(
        **{field: row[field] for field in fields},
        carried_out=row["carried_out"],
        record=bytes(row["record"]),
        create_time=row["create_time"],
    )


def tallies_of(
    spec: Spec, epochs: Iterable[Any], tallies: Iterable[Any], harms: Iterable[Any]
) -> tuple[EpochTally, ...]:
    """The counts of every epoch in the order of the arms; an epoch in which nothing was counted has zeros."""
    counted = {(row["epoch"], row["version"]): row for row in tallies}
    harmed = {(row["epoch"], row["version"], row["metric"]): row["units"] for row in harms}
    return tuple(
        EpochTally(
            epoch=row["epoch"],
            weights=weights_of(spec, {int(version): weight for version, weight in json.loads(row["weights"]).items()}),
            arms=tuple(_arm(spec, row["epoch"], arm.version, counted, harmed) for arm in spec.arms),
        )
        for row in epochs
    )


def _arm(spec: Spec, epoch: int, version: int, counted: Mapping[Any, Any], harmed: Mapping[Any, int]) -> ArmTally:
    harms = tuple(harmed.get((epoch, version, metric.value), 0) for metric in spec.harms)
    row = counted.get((epoch, version))
    if row is None:
        return ArmTally(harms=harms)
    fields = ("units", "closed", "errors", "conversions", "total", "squares")
    return ArmTally(**{field: row[field] for field in fields}, harms=harms)


def weights_of(spec: Spec, weights: Mapping[int, int]) -> tuple[int, ...]:
    """Basis points in the order of the arms; those of other versions are left out."""
    return tuple(weights.get(arm.version, 0) for arm in spec.arms)


def drawn_of(spec: Spec, route: Route) -> Drawn:
    """A route as a situation holds it."""
    return Drawn(
        epoch=route.epoch,
        weights=weights_of(spec, {arm.version: arm.weight for arm in route.arms}),
        intervals=tuple((i.low, i.high, i.version, i.acquired_epoch) for i in route.intervals),
    )
