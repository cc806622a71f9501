"""From what was counted to the situation that a conclusion is drawn from."""

from collections.abc import Iterable, Mapping
from datetime import UTC, timedelta
from typing import Final

from services.switcher.experiments.conclude import Conclusion, GateSaid, Situation
from services.switcher.experiments.rows import State, drawn_of, weights_of
from services.switcher.experiments.store import Counted
from services.switcher.records import GateAnswer
from services.switcher.statistics.decision import Verdict
from turnout.routing import Route

_TIME: Final = "%Y-%m-%d %H:%M:%S UTC"
STALE_AFTER: Final = timedelta(seconds=10)
"""How long ago a front that may serve may last have told all that it saw. It tells every second."""


def situation_of(counted: Counted, gates: Iterable[GateAnswer] = ()) -> Situation:
    """The situation now."""
    experiment, route = counted.experiment, counted.route.state.route
    assert route is not None, "an experiment stands on a route"
    spec = experiment.spec
    return Situation(
        spec=spec,
        epochs=counted.epochs,
        route=drawn_of(spec, route),
        epoch_age_s=counted.epoch_age_s,
        gates=tuple(GateSaid(one.gate, one.version, one.passed, one.evidence) for one in gates),
        stale=_stale(counted),
        paused=experiment.state is State.PAUSED,
        passed_over=experiment.passed_over,
        gone=tuple(version for version in spec.candidates if version not in route.versions),
    )


def asked_situation(counted: Counted, before: Route, after: Mapping[int, int]) -> Situation:
    """The situation in which somebody asked for other weights (basis points by version) than those before."""
    spec = counted.experiment.spec
    return Situation(
        spec=spec,
        epochs=tuple(one for one in counted.epochs if one.epoch <= before.epoch),
        route=drawn_of(spec, before),
        asked=weights_of(spec, after),
    )


def first_window(counted: Counted, conclusion: Conclusion) -> str:
    """When the first window is added up at the earliest, in a sentence; "" = one was, or it is not waited for."""
    spec, record = counted.experiment.spec, counted.experiment
    at = record.create_time + timedelta(seconds=spec.window_s + spec.delay_s)
    closed = any(arm.closed for one in counted.epochs for arm in one.arms)
    if closed or record.state.over or at <= counted.now or conclusion.decision.verdict is not Verdict.CONTINUE:
        return ""
    return f" The first is added up at {at.astimezone(UTC):{_TIME}} at the earliest."


def _stale(counted: Counted) -> str:
    if counted.experiment.fault:
        return (
            "windows that are over to be added up, which fails and is tried again (harm is watched all the same): "
            f"{counted.experiment.fault}"
        )
    if counted.experiment.state is State.STARTING or counted.now - counted.experiment.create_time < STALE_AFTER:
        return ""
    for one in counted.stale_fronts:
        told = "has not told yet what it saw"
        if one.age_s is not None:
            told = f"last told all that it saw {one.age_s:.0f} s ago"
        # All that keep silent are waited for, so the last one ends it.
        last = max(front.serves_until for front in counted.stale_fronts).astimezone(UTC)
        return f"the front {one.front}, which {told}; if it is gone, that ends by itself at {last:{_TIME}}"
    return ""
