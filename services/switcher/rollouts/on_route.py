"""What an act of a rollout asks of the route's own rules. Pure."""

from typing import Final

from services.switcher.rollouts.acts import Act, ActKind
from services.switcher.rollouts.rollout import CLAIM, Rollout
from services.switcher.switch import Conduct, CutOver, State, Withdraw, etag_of
from turnout.errors import FailedPrecondition
from turnout.routing import WHOLE, Experiment, Route
from turnout.shadow import Shadow

_MOVING: Final = frozenset({ActKind.EXPOSE, ActKind.SHADOW, ActKind.CUT_OVER, ActKind.RELEASE})
"""Acts on a route that the rollout must own already, unless they say that they claim it."""
_COUNTED: Final = frozenset({ActKind.EXPOSE, ActKind.SHADOW})
"""Acts that leave the candidate units which are counted."""


def exposed_by(rollout: Rollout, act: Act) -> int:
    """Basis points of the units that the candidate has beside the control once the act is done; 0 = nothing counts."""
    if act.kind not in _COUNTED:
        return 0
    return act.share if act.kind is ActKind.EXPOSE else rollout.exposed


def command(
    rollout: Rollout, act: Act, owner: str, state: State, experiment: Experiment | None = None
) -> Conduct | CutOver | Withdraw:
    """The command that carries the act out, on this very route. owner: the rollout's name; experiment: the one that
    counts the units which the candidate has by then.

    FailedPrecondition (ROUTE_OVERRULED) where somebody changed the route so that the act no longer fits it;
    (ROUTE_SHARED) where it was not free at the start.
    """
    if act.kind is ActKind.WITHDRAW:
        return Withdraw(rollout.candidate, rollout.control, owner, only_owned=rollout.step == CLAIM)
    route = state.route
    active = route.active_version if route else 0
    if act.kind in _MOVING and not act.claims and (route is None or route.owner != owner):
        raise _overruled(f"The rollout does not own the route of {rollout.job} any more.")
    etag = etag_of(state.epoch)
    # From any other version the way back would lead to that one.
    if act.kind is ActKind.CUT_OVER and active in (rollout.control, rollout.candidate):
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
