"""What an act of a rollout asks of the route's own rules. Pure."""

from datetime import datetime
from typing import Final

from services.switcher.refusals import PROTECTED_UNTIL
from services.switcher.rollouts.acts import Act, ActKind, Done, Later, Overruled, Refused, Result
from services.switcher.rollouts.rollout import CLAIM, Rollout
from services.switcher.switch import Conduct, CutOver, State, Withdraw, etag_of
from turnout.errors import AlreadyExists, FailedPrecondition, InvalidInput, NotFound, TurnoutError
from turnout.routing import WHOLE, Experiment, Route
from turnout.shadow import Shadow

_MOVING: Final = frozenset({ActKind.EXPOSE, ActKind.SHADOW, ActKind.CUT_OVER, ActKind.RELEASE})
"""Acts on a route that the rollout must own already, unless they say that they claim it."""
_COUNTED: Final = frozenset({ActKind.EXPOSE, ActKind.SHADOW})
"""Acts that leave the candidate units which are counted."""
_MAY_PASS: Final = frozenset({"catch-up"})
"""Gates that may pass later by themselves."""
_PASSES: Final = frozenset({"ROLLBACK_WINDOW", "EXPERIMENT_RUNS"})
"""Refusals that end by themselves: the way back is protected for a time, and an experiment that never started is
forgotten."""


def exposed_by(rollout: Rollout, act: Act) -> int:
    """Basis points of the units that the candidate has beside the control once the act is done; 0 = nothing counts."""
    if act.kind not in _COUNTED:
        return 0
    return act.share if act.kind is ActKind.EXPOSE else rollout.exposed


def given_back(rollout: Rollout, act: Act, owner: str, state: State) -> bool:
    """Whether others have done already what is left to the act: the candidate is active, and the route not owned by the
    rollout, which is all that RELEASE is to bring about."""
    route = state.route
    if act.kind is not ActKind.RELEASE or route is None:
        return False
    return route.active_version == rollout.candidate and route.owner != owner


def command(
    rollout: Rollout, act: Act, owner: str, state: State, experiment: Experiment | None = None
) -> Conduct | CutOver | Withdraw:
    """The command that carries the act out, on this very route. owner: the rollout's name; experiment: the one that
    counts the units which the candidate has by then.

    FailedPrecondition (ROUTE_OVERRULED) where somebody changed the route so that the act no longer fits it;
    (ROUTE_SHARED) where it was not free at the start.
    """
    if act.kind is ActKind.WITHDRAW:
        only_owned = _only_owned(rollout)
        return Withdraw(rollout.candidate, rollout.control, owner, only_owned, reinstates=rollout.retiring)
    route = state.route
    active = route.active_version if route else 0
    if act.kind in _MOVING and not act.claims and (route is None or route.owner != owner):
        raise _overruled(f"The rollout does not own the route of {rollout.job} any more.")
    etag = etag_of(state.epoch)
    # From any other version the way back would lead to that one.
    if act.kind is ActKind.CUT_OVER and active in (rollout.control, rollout.candidate):
        if active == rollout.candidate:
            _refuse_without_way_back(rollout, state)
        return CutOver(rollout.candidate, owner=owner, etag=etag)
    if act.kind is ActKind.RELEASE:
        return Conduct(owner, ((rollout.candidate, WHOLE),), owner="", experiment=None, shadows=(), etag=etag)
    if route is None or active != rollout.control:
        raise _another_is_active(rollout, active)
    if rollout.step == CLAIM:
        refuse_shared(route)
    share = rollout.exposed if act.kind is ActKind.CLAIM else exposed_by(rollout, act)
    weights = ((rollout.control, WHOLE - share), (rollout.candidate, share))
    shadows = (Shadow(rollout.candidate, act.share),) if act.kind is ActKind.SHADOW else ()
    return Conduct(owner, weights, owner, experiment if share else None, shadows=shadows, etag=etag)


def _only_owned(rollout: Rollout) -> bool:
    """Whether nothing is the rollout's own on a route that it does not own."""
    return rollout.step == CLAIM or rollout.disowned


def outcome(rollout: Rollout, act: Act, active: int, back: int) -> Result:
    """What became of an act that was carried out on the route. active: the active version afterwards; back: the one
    that a rollback would lead to, 0 = none."""
    if act.kind is not ActKind.WITHDRAW or active != rollout.candidate or _only_owned(rollout):
        return Done()
    return Overruled(
        f"But v{active} stays the active version of {rollout.job}: {_elsewhere(rollout, back)}. To "
        f"serve v{rollout.control} again, cut over to it (`turnout cutover {rollout.job} v{rollout.control}`)."
    )


def refused(rollout: Rollout, act: Act, error: TurnoutError) -> Result:
    """What an error of an act means for it: whether another try may do."""
    if error.reason == "GATES_FAILED":
        waits = {violation.type for violation in error.violations} <= _MAY_PASS
        return Later(error.message) if waits else Refused(error.message)
    if act.kind is ActKind.TAKE_BACK and error.reason == "VERSION_DROPPED":
        return Overruled(error.message)
    if error.reason == "ROLLBACK_WINDOW" and (until := error.metadata.get(PROTECTED_UNTIL)):
        at = datetime.fromisoformat(until)
        return Later(f"{at:%Y-%m-%d %H:%M:%S %Z}, the time until which the way back to v{rollout.control} is kept.")
    final = isinstance(error, InvalidInput | NotFound | AlreadyExists | FailedPrecondition)
    return Refused(error.message) if final and error.reason not in _PASSES else Later(error.message)


def _refuse_without_way_back(rollout: Rollout, state: State) -> None:
    back = state.way_back.active_version if state.way_back is not None else 0
    if back != rollout.control:
        raise FailedPrecondition(
            "ROUTE_OVERRULED",
            f"v{rollout.candidate} is the active version of {rollout.job} already, and {_elsewhere(rollout, back)}, so "
            f"that the rollout could not take it back. Make v{rollout.control} active again (`turnout cutover "
            f"{rollout.job} v{rollout.control}`) and resume the rollout, or abort it, which leaves "
            f"v{rollout.candidate} active.",
        )


def _elsewhere(rollout: Rollout, back: int) -> str:
    if back in (0, rollout.control):  # the latter is being retired
        return f"no way back leads to v{rollout.control} any more"
    return f"the way back leads to v{back}, not to v{rollout.control}, because others have cut over since"


def refuse_shared(route: Route) -> None:
    """FailedPrecondition (ROUTE_SHARED) where others than the active version have units, or are shadowed."""
    others = [arm for arm in route.arms if arm.version != route.active_version]
    told = [f"v{arm.version} has {arm.weight / 100:g} % of the units" for arm in others]
    if route.shadow is not None:
        told.append(f"v{route.shadow.version} is a shadow")
    if told:
        raise FailedPrecondition(
            "ROUTE_SHARED",
            f"A rollout begins with all units on the active version v{route.active_version}, and of {route.job} "
            f"{' and '.join(told)}. Give all to the active version (`turnout traffic set {route.job} "
            f"v{route.active_version}=100`, `turnout shadow stop {route.job}`), and start it again.",
        )


def _another_is_active(rollout: Rollout, active: int) -> FailedPrecondition:
    told = f"v{active} is the active version of {rollout.job} instead of v{rollout.control}"
    # A rollout that took the route over again would meet the same.
    way = (
        "Start another rollout, from the version that is active now."
        if rollout.step == CLAIM
        else f"Make v{rollout.control} active again (`turnout cutover {rollout.job} v{rollout.control}`) and resume "
        "the rollout, or abort it."
    )
    return FailedPrecondition("ROUTE_OVERRULED", f"{told}. {way}")


def _overruled(what: str) -> FailedPrecondition:
    return FailedPrecondition(
        "ROUTE_OVERRULED", f"{what} Resume the rollout, so that it takes the route over again, or abort it."
    )
