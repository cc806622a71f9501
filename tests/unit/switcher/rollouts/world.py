"""The world that rollouts act on: a route with its real rules, a run, a retirement."""

from dataclasses import dataclass, field, replace
from datetime import timedelta

from services.switcher.rollouts.acts import ON_ROUTE, Act, ActKind, Done, Later, Refused, Result, due
from services.switcher.rollouts.on_route import command
from services.switcher.rollouts.rollout import Rollout, RouteSeen
from services.switcher.switch import (
    Change,
    Command,
    CutOver,
    MarkReinstated,
    MarkReleased,
    Reinstate,
    Release,
    SetTraffic,
    State,
    decide,
)
from tests.unit.switcher.rollouts.made import CANDIDATE, CONTROL, JOB, START
from turnout.errors import TurnoutError
from turnout.routing import WHOLE, Route

OWNER = f"jobs/{JOB}/rollouts/second"


def serving_the_control() -> State:
    """The control is active, with all units."""
    change = decide(State(JOB), CutOver(CONTROL), START, timedelta(days=1))
    assert isinstance(change, Change)
    return State(JOB, change.route)


@dataclass
class World:
    """What acts change. Whoever repeats a request gets its first answer."""

    state: State = field(default_factory=serving_the_control)
    changed_over_its_head: bool = False  # since the rollout last took the route
    running: bool = False
    answered: set[str] = field(default_factory=set)

    @property
    def route(self) -> Route:
        assert self.state.route is not None
        return self.state.route

    @property
    def weight(self) -> int:
        """The candidate's."""
        return self.route.weight(CANDIDATE)

    @property
    def owned(self) -> bool:
        return self.route.owner == OWNER

    @property
    def retiring(self) -> bool:
        return CONTROL in self.state.released

    @property
    def seen(self) -> RouteSeen:
        return RouteSeen(self.owned, self.route.active_version, self.weight, "by somebody")

    def overrule(self, weight: int) -> None:
        """A person changes the route, and says that it goes over the rollout's head."""
        self.changed_over_its_head = True
        if weight == WHOLE:
            self._decided(CutOver(CANDIDATE, override_owner=True))
            return
        self._decided(CutOver(CONTROL, override_owner=True) if self.route.active_version == CANDIDATE else None)
        weights = ((CONTROL, WHOLE - weight), (CANDIDATE, weight))
        self._decided(SetTraffic(weights, override_owner=True))

    def carry_out(self, act: Act, stored: Rollout) -> Result:
        """What becomes of an act that arrives now, however long ago it was sent."""
        if act.kind in ON_ROUTE and due(stored) != act:
            return Later("The rollout has moved on.")
        if act.request_id in self.answered:
            return Done()
        try:
            self._carried_out(act, stored)
        except TurnoutError as error:
            return Refused(error.message)
        self.answered.add(act.request_id)
        return Done()

    def _carried_out(self, act: Act, stored: Rollout) -> None:
        match act.kind:
            case ActKind.START_RUN:
                self.running = True
            case ActKind.RETIRE:
                self._decided(Release(CONTROL, forgo_rollback=True))
            case ActKind.TAKE_BACK:
                self._decided(Reinstate(CONTROL))
            case kind if kind in ON_ROUTE:
                self._decided(command(stored, act, OWNER, self.state))
                self.changed_over_its_head = self.changed_over_its_head and not self.owned

    def _decided(self, asked: Command | None) -> None:
        match asked and decide(self.state, asked, START, timedelta(days=1)):
            case Change(route=route, way_back=way_back, protected_until=until):
                self.state = replace(self.state, route=route, way_back=way_back, protected_until=until)
            case MarkReleased(version):
                self.state = replace(self.state, released=self.state.released | {version})
            case MarkReinstated(version):
                self.state = replace(self.state, released=self.state.released - {version})
