"""The world that rollouts act on: a route with its real rules, a run, a retirement."""

import contextlib
from dataclasses import dataclass, field, replace
from datetime import timedelta

from services.switcher.rollouts.acts import ON_ROUTE, Act, ActKind, Done, Later, Result, due
from services.switcher.rollouts.on_route import command, given_back, outcome, refused
from services.switcher.rollouts.rollout import Rollout, RouteSeen
from services.switcher.switch import (
    Change,
    Command,
    CutOver,
    MarkReinstated,
    MarkReleased,
    Reinstate,
    Release,
    RollBack,
    State,
    decide,
)
from tests.unit.switcher.rollouts.made import CANDIDATE, CONTROL, JOB, START
from turnout.errors import FailedPrecondition, TurnoutError
from turnout.routing import Route

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
    rolled_back: bool = False  # whether the last change was a rollback
    running: bool = False
    dropped: bool = False  # whether the control's table is gone for good
    answered: dict[str, Result] = field(default_factory=dict)
    done: list[ActKind] = field(default_factory=list)  # the kinds of `answered`

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
    def back(self) -> int:
        """The active version that a rollback would lead to; 0 = there is none."""
        return self.state.open_way_back.active_version if self.state.open_way_back else 0

    @property
    def seen(self) -> RouteSeen:
        leads_to = self.state.way_back.active_version if self.state.way_back else 0
        active = self.route.active_version
        return RouteSeen(self.owned, active, self.weight, "by somebody", leads_to, self.rolled_back)

    # --- what others do ---

    def overrule(self, *commands: Command) -> None:
        """A person changes the route, and says that it goes over the rollout's head; what is refused is not done."""
        for one in commands:
            with contextlib.suppress(TurnoutError):
                if self._decided(one):
                    self.changed_over_its_head = True

    def retire(self, *, drop: bool) -> None:
        """A person retires the control, and forgoes the way back to it."""
        with contextlib.suppress(TurnoutError):
            self._decided(Release(CONTROL, forgo_rollback=True))
            self.changed_over_its_head = True
            self.dropped = self.dropped or drop

    # --- what the rollout does ---

    def carry_out(self, act: Act, sent_by: Rollout, stored: Rollout) -> Result:
        """What becomes of an act that arrives now, however long ago the rollout was as it is in `sent_by`."""
        first = self.answered.get(act.request_id)
        if first is not None:
            return first
        try:
            result = self._on_route(act, sent_by, stored) if act.kind in ON_ROUTE else self._elsewhere(act)
        except TurnoutError as error:
            return refused(sent_by, act, error)
        if not isinstance(result, Later):
            self.answered[act.request_id] = result
            self.done.append(act.kind)
        return result

    def _elsewhere(self, act: Act) -> Result:
        match act.kind:
            case ActKind.START_RUN:
                self.running = True
            case ActKind.RETIRE:
                self._decided(Release(CONTROL, forgo_rollback=True))
            case ActKind.TAKE_BACK:
                if self.dropped:
                    raise FailedPrecondition("VERSION_DROPPED", "The table of v1 is gone.")
                self._decided(Reinstate(CONTROL))
        return Done()

    def _on_route(self, act: Act, sent_by: Rollout, stored: Rollout) -> Result:
        if given_back(sent_by, act, OWNER, self.state):
            return Done()
        asked = command(sent_by, act, OWNER, self.state)
        changes = isinstance(decide(self.state, asked, START, timedelta(days=1)), Change)
        if changes and due(stored) != act:
            return Later("The rollout has moved on.")  # the fence, which only a commit asks
        self._decided(asked)
        self.changed_over_its_head = self.changed_over_its_head and not self.owned
        return outcome(sent_by, act, self.route.active_version, self.back)

    def _decided(self, asked: Command) -> bool:
        """Whether the route has changed."""
        match decide(self.state, asked, START, timedelta(days=1)):
            case Change(route=route, way_back=way_back, protected_until=until):
                self.state = replace(self.state, route=route, way_back=way_back, protected_until=until)
                self.rolled_back = isinstance(asked, RollBack)
                return True
            case MarkReleased(version):
                self.state = replace(self.state, released=self.state.released | {version})
            case MarkReinstated(version):
                self.state = replace(self.state, released=self.state.released - {version})
        return False
