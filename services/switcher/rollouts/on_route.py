"""What an act of a rollout asks of the route's own rules. Pure."""

from typing import Final

from services.switcher.rollouts.acts import Act, ActKind
from services.switcher.rollouts.rollout import Rollout
from services.switcher.switch import Conduct, CutOver, State, Withdraw
from turnout.errors import FailedPrecondition
from turnout.routing import WHOLE, Experiment

_MOVING: Final = frozenset({ActKind.EXPOSE, ActKind.SHADOW, ActKind.CUT_OVER, ActKind.RELEASE})
"""Acts on a route that the rollout must own already, unless they say that they claim it."""


def command(
    rollout: Rollout, act: Act, owner: str, state: State, experiment: Experiment | None = None
) -> Conduct | CutOver | Withdraw:
    """The command that carries the act out. owner: the rollout's name; experiment: the one beside the shares of EXPOSE.

    FailedPrecondition (ROUTE_OVERRULED) where somebody changed the route so that the act no longer fits it.
    """
    if act.kind is ActKind.WITHDRAW:
        return Withdraw(rollout.candidate, rollout.control, owner)
    route = state.route
    active = route.active_version if route else 0
    if act.kind in _MOVING and not act.claims and (route is None or route.owner != owner):
        raise _overruled(f"The rollout does not own the route of {rollout.job} any more.")
    if act.kind is ActKind.CUT_OVER:
        return CutOver(rollout.candidate, owner=owner)
    if act.kind is ActKind.RELEASE:
        return Conduct(owner, ((rollout.candidate, WHOLE),), owner="", experiment=None)
    if active != rollout.control:
        raise _overruled(f"v{active} is the active version of {rollout.job} instead of v{rollout.control}.")
    share = act.share if act.kind is ActKind.EXPOSE else rollout.exposed
    weights = ((rollout.control, WHOLE - share), (rollout.candidate, share))
    return Conduct(owner, weights, owner, experiment if act.kind is ActKind.EXPOSE else None)


def _overruled(what: str) -> FailedPrecondition:
    return FailedPrecondition(
        "ROUTE_OVERRULED", f"{what} Resume the rollout, so that it takes the route over again, or abort it."
    )
