"""The rules of a route: what each command makes of it. Pure; the whole decision is in `decide`.

A route is created by the first cutover of its job (epoch 1); every change adds one to its epoch.

=============  =====================  =========================================================================
command        needs a route          result
=============  =====================  =========================================================================
SetTraffic     yes                    the weights asked for; the active version stays; gates for every other
                                      version whose weight grows. Where none grows it is an emergency
CutOver        no                     the version is active with all traffic; gates for it. The route as it was
                                      becomes the *way back*, which must be proven (gate "rollback").
                                      Of the version already active: like SetTraffic, so
                                      that giving up a split never needs a gate nor loses the way back
RollBack       yes, with a way back   the route as it was before the last cutover, wholly; no gate, and an
                                      emergency. Afterwards
                                      there is no way back: a second RollBack is refused, so that two people who
                                      press it at once go back once; what was left is reached by a CutOver,
                                      through its gates
Release        no                     the version is released: no later command may name it. Refused while the
                                      route names it, and while the way back names it, is protected and is not
                                      forgone
Reinstate      no                     no longer released; a way back that names it can be taken again
Conduct        yes                    what the route's owner, an experiment or a rollout, makes of it: its arms,
                                      its experiment, and who owns it from then on; gates as for SetTraffic
SetShadow      yes                    fronts read a candidate beside the active version, or none any more; the
                                      gate "schema". Who answers stays as it is
RequireGates   yes                    these gates are asked of every later change of the route, as if it demanded
                                      them itself; a rollback leaves that as it is
Withdraw       no                     the candidate of a rollout has no unit and is no shadow, its control is active
                                      again if the candidate was, and the rollout owns nothing; no gate, and an
                                      emergency. Nothing, where it had not begun and does not own the route. A
                                      candidate that others made active stays so, where no way back leads to the
                                      control
=============  =====================  =========================================================================

While somebody owns the route, SetTraffic and CutOver are refused unless they say that they go over the owner's head.
SetTraffic among the arms that are there lets the experiment go on; everything else, a RollBack too, ends it: what
stands on the route is the truth, and the experiment's own state follows it in the same transaction.

A shadow goes on, whatever the weights, until another version becomes active. SetShadow lets an experiment go on.

The way back from a cutover of a route that somebody owns, or takes by it, is the active version alone: what others had
beside it was a step of a rollout or the split of an experiment, which the cutover ends or leaves behind, and nobody
would watch it.

A cutover asks the gates of its version also when that has a share already: from then on it is what every other
version is measured by, and nobody is left on the old one to notice. What is asked for already: nothing changes.

An *emergency* asks no gate, takes the place of a change that is on its way, and needs one front that can serve it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NoReturn

from services.switcher.intervals import redraw, whole
from services.switcher.questions import ROLLBACK, Asked, GateQuestion, asked, demandable, known
from services.switcher.refusals import PROTECTED_UNTIL, nothing_to_return_to, released_error, way_back_closed
from turnout.errors import Aborted, FailedPrecondition, InvalidInput, NotFound, Violation
from turnout.routing import HASHES, WHOLE, Arm, Experiment, Route
from turnout.shadow import Shadow


@dataclass(frozen=True, slots=True)
class State:
    """What the switcher knows of a job's route."""

    job: str
    route: Route | None = None  # None before the first cutover
    way_back: Route | None = None  # the route as it was before the last cutover
    protected_until: datetime | None = None  # until when a release must not take the way back
    released: frozenset[int] = frozenset()

    @property
    def epoch(self) -> int:
        return self.route.epoch if self.route else 0

    @property
    def open_way_back(self) -> Route | None:
        """The way back, if no version on it is released."""
        return None if self.way_back is None or self.way_back.versions & self.released else self.way_back


@dataclass(frozen=True, slots=True)
class SetTraffic:
    """Give each named version its weight in basis points, as pairs in the caller's order."""

    weights: tuple[tuple[int, int], ...]
    override_gates: tuple[str, ...] = ()
    etag: str = ""
    require_gates: tuple[str, ...] = ()
    override_owner: bool = False


@dataclass(frozen=True, slots=True)
class CutOver:
    """Make a version the active one, with all the traffic."""

    version: int
    override_gates: tuple[str, ...] = ()
    etag: str = ""
    require_gates: tuple[str, ...] = ()
    override_owner: bool = False
    owner: str = ""  # who asks for it, and owns the route from then on; "" = nobody


@dataclass(frozen=True, slots=True)
class RollBack:
    """Go back to the route as it was before the last cutover."""

    etag: str = ""


@dataclass(frozen=True, slots=True)
class Release:
    """Let no later command name a version."""

    version: int
    forgo_rollback: bool = False


@dataclass(frozen=True, slots=True)
class Reinstate:
    """Let commands name a released version again."""

    version: int


@dataclass(frozen=True, slots=True)
class Conduct:
    """Give the route the arms of the owner that acts, its experiment (None = none), and its owner from then on."""

    actor: str
    weights: tuple[tuple[int, int], ...]
    owner: str
    experiment: Experiment | None
    shadows: tuple[Shadow, ...] | None = None  # the one that fronts compare from then on, or none; None = as it is
    salt: str = ""  # "" = as it is
    override_gates: tuple[str, ...] = ()
    etag: str = ""
    require_gates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SetShadow:
    """Let fronts read this version beside the active one for this share of the reads; None = no version any more."""

    shadow: Shadow | None
    override_gates: tuple[str, ...] = ()
    etag: str = ""
    override_owner: bool = False


@dataclass(frozen=True, slots=True)
class RequireGates:
    """Demand these gates of every later change, beyond those that are always asked; none = no more."""

    gates: tuple[str, ...]
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Leave a candidate without a unit, with the control active, and the route without this owner; asks no gate."""

    candidate: int
    control: int
    owner: str
    only_owned: bool = False  # on a route of somebody else nothing is the owner's own
    reinstates: bool = False  # the owner takes back that the control retires, and is refused until then


Command = SetTraffic | CutOver | RollBack | Release | Reinstate | Conduct | SetShadow | RequireGates | Withdraw


@dataclass(frozen=True, slots=True)
class Change:
    """A route to propose and commit, on top of the epoch that it was decided on."""

    route: Route
    way_back: Route | None
    protected_until: datetime | None
    gates: tuple[GateQuestion, ...] = ()
    overridden: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()
    emergency: bool = False
    moves_on: bool = False  # another version becomes active: whether one could come back must be proven

    @property
    def to_read_back(self) -> frozenset[int]:
        """The versions that every front must be able to read back before this is committed."""
        if self.way_back is None or not self.moves_on or ROLLBACK in self.overridden:
            return frozenset()
        return self.way_back.versions


@dataclass(frozen=True, slots=True)
class Nothing:
    """What was asked for is already so."""


@dataclass(frozen=True, slots=True)
class MarkReleased:
    """The version becomes released."""

    version: int


@dataclass(frozen=True, slots=True)
class MarkReinstated:
    """The version is no longer released."""

    version: int


Decision = Change | Nothing | MarkReleased | MarkReinstated


def etag_of(epoch: int) -> str:
    """The etag of a route at an epoch."""
    return f"epoch-{epoch}"


def salt_of(job: str) -> str:
    """The salt of a job's unit hash: another one a job, so that the same users are not always the first."""
    return f"jobs/{job}/route"


def decide(state: State, command: Command, now: datetime, protection: timedelta) -> Decision:
    """What a command makes of a route; an error (and no change) where it must not.

    `protection` is how long a cutover's way back is kept from retirement.
    """
    match command:
        case SetTraffic():
            return _set_traffic(state, command)
        case CutOver():
            return _cut_over(state, command, now, protection)
        case RollBack():
            return _roll_back(state, command)
        case Release():
            return _release(state, command, now)
        case Reinstate():
            released = command.version in state.released
            return MarkReinstated(command.version) if released else Nothing()
        case Conduct():
            return _conduct(state, command)
        case SetShadow():
            return _set_shadow(state, command)
        case RequireGates():
            return _require_gates(state, command)
        case Withdraw():
            return _withdraw(state, command)


def _set_traffic(state: State, command: SetTraffic) -> Change | Nothing:
    asks = _asked(command, state.route)
    weights = _valid_weights(command.weights)
    route = _existing(state, command.etag)
    refuse_owned(route, command.override_owner, overridable=True)
    _refuse_without_active(route, weights)
    serving = _serving(route, weights, route.experiment)
    if not serving.keys() <= route.versions:
        route = without_owner(route)
        serving = _serving(route, weights, None)
    refuse_released(state, serving)
    return _reweighed(state, route, serving, asks)


def _conduct(state: State, command: Conduct) -> Change | Nothing:
    asks = _asked(command, state.route)
    weights = _valid_weights(command.weights)
    route = _existing(state, command.etag)
    refuse_owned(route, route.owner == command.actor, overridable=False)
    _refuse_without_active(route, weights)
    serving = _serving(route, weights, command.experiment)
    refuse_released(state, serving)
    # Without its own experiment until it has the arms for it: each step makes a route that may be served.
    conducted = replace(without_owner(route), owner=command.owner, salt=command.salt or route.salt)
    if command.shadows is not None:
        for shadow in command.shadows:
            refuse_released(state, {_valid_shadow(route, shadow).version: 0})
        conducted = replace(conducted, shadow=next(iter(command.shadows), None))
    return _reweighed(state, conducted, serving, asks, command.experiment)


def _set_shadow(state: State, command: SetShadow) -> Change | Nothing:
    overridden = known(command.override_gates)
    route, shadow = _existing(state, command.etag), command.shadow
    refuse_owned(route, command.override_owner, overridable=True)
    if shadow is not None:
        refuse_released(state, {_valid_shadow(route, shadow).version: 0})
    if shadow == route.shadow:
        return Nothing()
    changed = replace(route, epoch=route.epoch + 1, shadow=shadow)
    return Change(changed, state.way_back, state.protected_until, _shadow_gates(route, shadow), overridden)


def _shadow_gates(before: Route, shadow: Shadow | None) -> tuple[GateQuestion, ...]:
    """The gates of a shadow that fronts do not compare yet."""
    if shadow is None or (before.shadow is not None and before.shadow.version == shadow.version):
        return ()
    return (GateQuestion(shadow.version, before.active_version, schema_only=True),)


def _require_gates(state: State, command: RequireGates) -> Change | Nothing:
    gates, route = demandable(command.gates), _existing(state, command.etag)
    if gates == route.required_gates:
        return Nothing()
    changed = replace(route, epoch=route.epoch + 1, required_gates=gates)
    return Change(changed, state.way_back, state.protected_until)


def _valid_shadow(route: Route, shadow: Shadow) -> Shadow:
    if _valid_version(shadow.version) == route.active_version:
        raise InvalidInput(
            "INVALID_SHADOW",
            f"v{shadow.version} is the active version of {route.job}: choose a candidate to compare with it.",
        )
    if not 1 <= shadow.share <= WHOLE:
        raise InvalidInput(
            "INVALID_SHADOW",
            f"The share of the reads is {shadow.share / 100:g} %; it must be 0.01 % to 100 % (1 to {WHOLE} basis "
            "points). To end the shadow, leave it out.",
        )
    return shadow


def _serving(route: Route, weights: Mapping[int, int], experiment: Experiment | None) -> dict[int, int]:
    """The weights without those that serve nobody: neither units, nor testers, nor scans without a unit."""
    tested = dict.fromkeys((version for _, version in experiment.overrides), 0) if experiment else {}
    named = {**tested, **weights}
    return {v: weight for v, weight in named.items() if weight or v == route.active_version or v in tested}


def _refuse_without_active(route: Route, weights: Mapping[int, int]) -> None:
    if route.active_version not in weights:
        raise InvalidInput(
            "ACTIVE_VERSION_MISSING",
            f"The weights leave out v{route.active_version}, the active version of {route.job}. Name it too "
            f"(v{route.active_version}=0 is allowed), or cut over to another version.",
        )


def without_owner(route: Route) -> Route:
    """The route for everybody: without an owner, an experiment, and arms that only its testers read."""
    arms = tuple(arm for arm in route.arms if arm.weight or arm.version == route.active_version)
    return replace(route, arms=arms, owner="", experiment=None)


def _asked(command: SetTraffic | CutOver | Conduct, route: Route | None) -> Asked:
    return asked(command.override_gates, command.require_gates, () if route is None else route.required_gates)


def _reweighed(
    state: State, route: Route, weights: Mapping[int, int], asks: Asked, experiment: Experiment | None = None
) -> Change | Nothing:
    """The route with other weights and the same active version; the way back stays."""
    before, experiment = state.route, experiment or route.experiment
    assert before is not None, "only a route that exists is given other weights"
    arms = tuple(Arm(version, weights[version]) for version in sorted(weights))
    if arms == before.arms and (route.salt, route.owner, experiment, route.shadow) == _besides(before):
        return Nothing()
    gates = tuple(
        asks.of(version, route.active_version)
        for version in sorted(weights)
        if version != route.active_version
        and (weights[version] > before.weight(version) or version not in before.versions)
    )
    gates += _shadow_gates(before, route.shadow)
    drawn, warnings = _redrawn(route, weights, route.active_version, experiment)
    way_back, until = state.way_back, state.protected_until
    return Change(drawn, way_back, until, gates, asks.overridden, warnings, emergency=not gates)


def _besides(route: Route) -> tuple[str, str, Experiment | None, Shadow | None]:
    """What a route says beside its versions and their weights."""
    return route.salt, route.owner, route.experiment, route.shadow


def _cut_over(state: State, command: CutOver, now: datetime, protection: timedelta) -> Change | Nothing:
    asks = _asked(command, state.route)
    version = _valid_version(command.version)
    _refuse_stale(state, command.etag)
    refuse_released(state, {version: WHOLE})
    route = state.route
    if route is None:
        first = Route(state.job, 1, version, (Arm(version, WHOLE),), salt_of(state.job), whole(version, 1))
        return Change(first, None, None, (asks.of(version, None),), asks.overridden, moves_on=True)
    refuse_owned(route, command.override_owner or command.owner == route.owner, overridable=True)
    back = without_owner(route)
    if version == route.active_version:
        return _reweighed(state, replace(back, owner=command.owner), {version: WHOLE}, asks)
    drawn, warnings = _redrawn(back, {version: WHOLE}, version)
    gates = (asks.of(version, route.active_version),)
    owned = replace(drawn, owner=command.owner)
    if command.owner or route.owner:
        # As it would be had the candidates been taken back right before.
        back = replace(_redrawn(back, {route.active_version: WHOLE}, route.active_version)[0], epoch=route.epoch)
    return Change(owned, replace(back, shadow=None), now + protection, gates, asks.overridden, warnings, moves_on=True)


def _withdraw(state: State, command: Withdraw) -> Change | Nothing:
    route, way_back, until = state.route, state.way_back, state.protected_until
    if route is None or (command.only_owned and route.owner != command.owner):
        return Nothing()
    left = without_owner(route)
    if left.shadow is not None and left.shadow.version == command.candidate:
        left = replace(left, shadow=None)
    weights = {arm.version: arm.weight for arm in left.arms}
    given_back = weights.pop(command.candidate, 0)
    if route.active_version == command.candidate:
        leads_back = way_back is not None and way_back.active_version == command.control
        if leads_back and command.reinstates:
            refuse_released(state, {command.control: WHOLE})
        if leads_back and command.control not in state.released:
            drawn, warnings = _redrawn(left, {command.control: WHOLE}, command.control)
            return Change(drawn, None, None, warnings=warnings, emergency=True)
        if route.owner != command.owner:
            return Nothing()
        return Change(replace(left, epoch=route.epoch + 1), way_back, until, emergency=True)
    if route.owner != command.owner and command.candidate not in route.named:
        return Nothing()
    weights[route.active_version] += given_back
    drawn, warnings = _redrawn(left, weights, route.active_version)
    return Change(drawn, way_back, until, warnings=warnings, emergency=True)


def _redrawn(
    route: Route, weights: Mapping[int, int], active: int, experiment: Experiment | None = None
) -> tuple[Route, tuple[str, ...]]:
    epoch = route.epoch + 1
    redrawn = redraw(route.intervals, weights, epoch)
    arms = tuple(Arm(version, weights[version]) for version in sorted(weights))
    warnings: tuple[str, ...] = ()
    if redrawn.compacted:
        share = redrawn.compacted / HASHES
        warnings = (f"The interval map was compacted; {share:.3%} of the units changed version for it.",)
    changed = replace(
        route,
        epoch=epoch,
        active_version=active,
        arms=arms,
        intervals=redrawn.intervals,
        experiment=experiment,
        shadow=route.shadow if active == route.active_version else None,  # it was compared with that one
    )
    return changed, warnings


def _roll_back(state: State, command: RollBack) -> Change:
    route = _existing(state, command.etag)
    target = state.way_back
    if target is None:
        raise nothing_to_return_to(route)
    if closed := sorted(target.versions & state.released):
        raise way_back_closed(state.job, closed[0])
    back = replace(target, epoch=route.epoch + 1, required_gates=route.required_gates)
    return Change(back, None, None, warnings=_over_the_head(route), emergency=True)


def _over_the_head(route: Route) -> tuple[str, ...]:
    """What a rollback means for the owner of the route that it leaves; nothing where there is none."""
    if not route.owner:
        return ()
    kind, name = _owner_of(route)
    if kind == "experiment":
        then = "ends"
    elif len(route.arms) > 1:  # the candidate is beside the active version, so it is not that one yet
        then = "waits for a person"
    else:
        then = "ends, or waits for a person where its candidate was not active yet"
    return (f"The {kind} {name} owns the route no more after it, and {then}.",)


def _owner_of(route: Route) -> tuple[str, str]:
    """What owns the route, such as "experiment", and its name."""
    kind, _, name = route.owner.removeprefix(f"jobs/{route.job}/").partition("s/")
    return kind, name


def _release(state: State, command: Release, now: datetime) -> MarkReleased | Nothing:
    version = _valid_version(command.version)
    if version in state.released:
        return Nothing()
    named = f"v{version} of {state.job}"
    if state.route and version in state.route.versions:
        active = version == state.route.active_version
        todo = "cut over to another version" if active else "give its traffic to the active version"
        role = "is the active version" if active else f"has {state.route.weight(version) / 100:g} % of the units"
        _in_use("VERSION_IN_USE", named, f"{named} {role}; {todo} first.")
    if state.route and version in state.route.named:
        told = f"Fronts compare {named} with the active version; stop that first (`turnout shadow stop {state.job}`)."
        _in_use("VERSION_IN_USE", named, told)
    back = state.way_back
    until = state.protected_until
    if back and version in back.versions and until and now < until and not command.forgo_rollback:
        _in_use(
            "ROLLBACK_WINDOW",
            named,
            f"A rollback of {state.job} would return to {named}, which is kept for that until "
            f"{until:%Y-%m-%d %H:%M:%S %Z}. Wait, or give up the way back (`turnout retire {state.job} v{version} "
            "--forgo-rollback`).",
            {PROTECTED_UNTIL: until.isoformat()},
        )
    return MarkReleased(version)


def _in_use(reason: str, subject: str, message: str, metadata: Mapping[str, str] | None = None) -> NoReturn:
    violations = (Violation(reason, subject, message),)
    raise FailedPrecondition(reason, message, violations=violations, metadata=metadata or {})


def _existing(state: State, etag: str) -> Route:
    _refuse_stale(state, etag)
    if state.route is None:
        raise NotFound(
            "ROUTE_NOT_FOUND",
            f"{state.job} has no route yet: its first cutover creates it.",
            metadata={"job": state.job},
        )
    return state.route


def refuse_owned(route: Route, allowed: bool, *, overridable: bool) -> None:
    """FailedPrecondition (ROUTE_OWNED) where something owns the route, unless the caller may go over its head.

    overridable: whether the command could have said that it does.
    """
    if route.owner and not allowed:
        kind, name = _owner_of(route)
        verb = "abort" if kind == "rollout" else "stop"
        over = ", or say that you go over its head (`--override-owner`)" if overridable else ""
        raise FailedPrecondition(
            "ROUTE_OWNED",
            f"The {kind} {name} owns the route of {route.job} and moves its weights itself. {verb.capitalize()} it "
            f"first (`turnout {kind} {verb} {route.job} {name}`){over}.",
            metadata={"owner": route.owner},
        )


def _refuse_stale(state: State, etag: str) -> None:
    if etag and etag != etag_of(state.epoch):
        raise stale(state.job, state.epoch)


def stale(job: str, epoch: int) -> Aborted:
    """The error of a change that rests on a route which is no longer the present one."""
    return Aborted(
        "STALE_ETAG",
        f"The route of {job} has changed meanwhile: it is at epoch {epoch}. Nothing was done; read the route "
        "again and decide anew.",
        metadata={"epoch": str(epoch), "etag": etag_of(epoch)},
    )


def refuse_released(state: State, weights: Mapping[int, int]) -> None:
    """FailedPrecondition (VERSION_RELEASED) where one of the versions with these weights is released."""
    for version in sorted(state.released & weights.keys()):
        raise released_error(state.job, version)


def _valid_weights(pairs: tuple[tuple[int, int], ...]) -> Mapping[int, int]:
    weights: dict[int, int] = {}
    for version, weight in pairs:
        if _valid_version(version) in weights:
            raise InvalidInput("INVALID_WEIGHTS", f"v{version} is named twice; give each version one weight.")
        if not 0 <= weight <= WHOLE:
            raise InvalidInput(
                "INVALID_WEIGHTS",
                f"v{version} has the weight {weight / 100:g} %; it must be 0 % to 100 % (0 to {WHOLE} basis points).",
            )
        weights[version] = weight
    total = sum(weights.values())
    if total != WHOLE:
        raise InvalidInput(
            "INVALID_WEIGHTS",
            f"The weights sum to {total / 100:g} % instead of 100 % ({WHOLE} basis points).",
        )
    return weights


def _valid_version(version: int) -> int:
    if version < 1:
        raise InvalidInput("INVALID_VERSION", f"{version} is not a version's number; versions count from 1.")
    return version
