"""Situations for tests: v1 is the control."""

from services.switcher.experiments.conclude import ArmTally, Drawn, EpochTally, Situation
from services.switcher.experiments.spec import Arm, Bandit, Metric, Spec
from services.switcher.intervals import redraw, whole
from services.switcher.statistics.decision import Plan
from turnout.routing import Units


def spec(*weights: int, bandit: Bandit | None = None, plan: Plan | None = None) -> Spec:
    """v1, v2, ... with these weights; client-reported errors are the one harm."""
    arms = tuple(Arm(version, weight) for version, weight in enumerate(weights, start=1))
    return Spec(arms, Units.CALLER, plan=plan or Plan(), harms=(Metric.ERROR,), errors=(Metric.ERROR,), bandit=bandit)


def tally(units: int, errors: int = 0, conversions: int = 0, *, harms: int | None = None) -> ArmTally:
    """An arm whose windows are all complete."""
    return ArmTally(units, units, errors, conversions, 0.0, 0.0, (errors if harms is None else harms,))


def drawn(given: Spec, epoch: int = 2) -> Drawn:
    """The route after v1 had everything."""
    intervals = redraw(whole(1, 1), given.weights, epoch).intervals
    weights = tuple(arm.weight for arm in given.arms)
    return Drawn(epoch, weights, tuple((i.low, i.high, i.version, i.acquired_epoch) for i in intervals))


def situation(given: Spec, *arms: ArmTally, **fields: object) -> Situation:
    """One epoch, whose weights are the planned ones."""
    route = drawn(given)
    epochs = (EpochTally(route.epoch, route.weights, arms),) if arms else ()
    return Situation(spec=given, epochs=epochs, route=route, **fields)  # type: ignore[arg-type]
