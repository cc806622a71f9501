"""The world that rollouts act on, as far as their rules need it: a route, a run, a retirement."""

from dataclasses import dataclass, field

from services.switcher.rollouts.acts import ON_ROUTE, Act, ActKind, Done, Later, Refused, Result, due
from services.switcher.rollouts.rollout import Rollout, RouteSeen
from tests.unit.switcher.rollouts.made import CANDIDATE, CONTROL
from turnout.routing import WHOLE


@dataclass
class World:
    """What acts change. Whoever repeats a request gets its first answer."""

    active: int = CONTROL
    weight: int = 0  # the candidate's
    owned: bool = False
    changed_over_its_head: bool = False  # since the rollout last took the route
    retiring: bool = False  # the control
    running: bool = False
    answered: set[str] = field(default_factory=set)

    @property
    def route(self) -> tuple[int, int, bool]:
        return self.active, self.weight, self.owned

    @property
    def seen(self) -> RouteSeen:
        return RouteSeen(self.owned, self.active, self.weight, "by somebody")

    def overrule(self, weight: int) -> None:
        """A person changes the route, and says that it goes over the rollout's head."""
        self.active, self.weight, self.owned = (CANDIDATE if weight == WHOLE else CONTROL), weight, False
        self.changed_over_its_head = True

    def carry_out(self, act: Act, stored: Rollout) -> Result:
        """What becomes of an act that arrives now, however long ago it was sent."""
        if act.kind in ON_ROUTE and due(stored) != act:
            return Later("The rollout has moved on.")
        if act.request_id in self.answered:
            return Done()
        result = self._on_route(act) if act.kind in ON_ROUTE else self._elsewhere(act)
        if isinstance(result, Done):
            self.answered.add(act.request_id)
        return result

    def _on_route(self, act: Act) -> Result:
        match act.kind:
            case ActKind.CLAIM if self.active == CONTROL:
                self.weight = 0
                return self._owned()
            case ActKind.RELEASE:
                self.owned = False
                return Done()
            case ActKind.WITHDRAW:
                if self.active == CANDIDATE and self.retiring:
                    return Refused("v1 was released.")
                self.active, self.weight, self.owned = CONTROL, 0, False
                return Done()
        if not self.owned and not act.claims:
            return Refused("The route is not the rollout's.")
        if act.kind is ActKind.CUT_OVER:
            self.active, self.weight = CANDIDATE, WHOLE
        elif self.active != CONTROL:
            return Refused("v2 is active.")
        elif act.kind is ActKind.EXPOSE:
            self.weight = act.share
        return self._owned()

    def _owned(self) -> Result:
        self.owned, self.changed_over_its_head = True, False
        return Done()

    def _elsewhere(self, act: Act) -> Result:
        match act.kind:
            case ActKind.RETIRE if self.active != CANDIDATE:
                return Refused("v1 serves.")
            case ActKind.RETIRE:
                self.retiring = True
            case ActKind.TAKE_BACK:
                self.retiring = False
            case ActKind.START_RUN:
                self.running = True
        return Done()
