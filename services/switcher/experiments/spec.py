"""What is fixed before an experiment starts, and what may not be. Pure; also its JSON.

An experiment compares candidates with the version that is active when it starts, its *control*. What a verdict rests on
is fixed for its whole life; only weights move.
"""

import enum
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import msgspec

from services.switcher.statistics.decision import Plan
from turnout.errors import InvalidInput, Violation
from turnout.experiments import MARGIN_MAX
from turnout.routing import WHOLE, Experiment, Units

ARMS_MAX: Final = 8
OVERRIDES_MAX: Final = 1000
UNIT_CHARACTERS_MAX: Final = 1024
_TIME_MAX_S: Final = 90 * 86400.0
REWARD_MAX: Final = 1e9
"""The largest reward, of either sign: squares of a unit's sum, added up over all units, stay far below what a double
holds, and keep the digits that an interval needs."""
_MILLION: Final = 1_000_000


class Metric(enum.Enum):
    """What may become of an exposure. Of all but rewards the first one of a unit counts."""

    ERROR = "ERROR"  # a client said that the answer was wrong or of no use
    FAILURE = "FAILURE"  # the front could not answer
    NOT_FOUND = "NOT_FOUND"  # the front found no row
    SLOW = "SLOW"  # the front's answer took longer than the experiment allows
    CONVERSION = "CONVERSION"  # the unit did what it was hoped to do; once a unit
    REWARD = "REWARD"  # a number; those of a unit add up


ERRORS: Final = (Metric.ERROR, Metric.FAILURE, Metric.NOT_FOUND, Metric.SLOW)
"""Of which more are harm, and which may count as an error in a unit's window."""
HARMS: Final = (*ERRORS, Metric.CONVERSION)
"""What may be watched: fewer conversions are harm, too."""
CLIENTS: Final = (Metric.ERROR, Metric.CONVERSION, Metric.REWARD)
"""What a client may report; the rest is the fronts' own to tell."""


class Rule(enum.Enum):
    """How a bandit weighs the arms."""

    THOMPSON = "THOMPSON"  # by the probability that the arm is the best
    EPSILON_GREEDY = "EPSILON_GREEDY"  # the best so far gets all but epsilon


class Objective(enum.Enum):
    """What a bandit looks for."""

    CONVERSIONS = "CONVERSIONS"  # the largest share of units that convert
    REWARDS = "REWARDS"  # the largest mean reward of a unit
    ERRORS = "ERRORS"  # the smallest share of units that err


EVERY_LEAST_S: Final = 60.0
"""The least time between two steps of a bandit: each makes an epoch, which every decision keeps from then on."""


class Bandit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Weights that learn, inside of the guardrails. Shares are parts of 1."""

    rule: Rule = Rule.THOMPSON
    objective: Objective = Objective.CONVERSIONS
    epsilon: float = 0.1  # shared out among all arms by EPSILON_GREEDY
    floor: float = 0.05  # that no arm falls below
    step_max: float = 0.2  # the most that an arm's share changes at a time
    gamma: float = 0.9  # what an epoch's outcomes weigh beside those of the next one
    every_s: float = 3600.0  # least time from one step to the next
    units_min: int = 100  # complete windows in each arm before the first step


def default_harms(bandit: Bandit | None) -> tuple[Metric, ...]:
    """What is watched unless somebody says otherwise: all harms, but for conversions where a bandit looks for them: an
    arm that converts fewer units gets its floor, and may become the best one yet."""
    return ERRORS if bandit is not None and bandit.objective is Objective.CONVERSIONS else HARMS


class Arm(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """A version and its weight in basis points."""

    version: int
    weight: int


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was asked for. arms: the control first, then the candidates by number."""

    arms: tuple[Arm, ...]
    units: Units
    plan: Plan = Plan()
    harms: tuple[Metric, ...] = HARMS  # that are guardrails
    errors: tuple[Metric, ...] = (Metric.ERROR, Metric.FAILURE)  # that count in a unit's window
    window_s: float = 24 * 3600.0  # of a unit, from its first exposure
    delay_s: float = 3600.0  # how much later an outcome may be reported and still count in the window
    slow_s: float = 0.0  # an answer that takes longer is SLOW; 0 = none is
    salt: str = ""  # of the route from now on; "" = as it is
    holdout: int = 0  # basis points of the units that stay on the control, whatever the weights
    holdout_salt: str = ""
    overrides: tuple[tuple[str, int], ...] = ()  # unit -> version, for testers
    bandit: Bandit | None = None

    @property
    def control(self) -> int:
        """The version that candidates are compared with."""
        return self.arms[0].version

    @property
    def candidates(self) -> tuple[int, ...]:
        """The versions that must prove themselves."""
        return tuple(arm.version for arm in self.arms[1:])

    @property
    def watched(self) -> tuple[Metric, ...]:
        """The harms that can come: no answer is SLOW where nothing says from when on."""
        return tuple(metric for metric in self.harms if metric is not Metric.SLOW or self.slow_s)

    @property
    def weights(self) -> Mapping[int, int]:
        """Basis points of each version."""
        return {arm.version: arm.weight for arm in self.arms}

    def on_route(self, name: str, number: int) -> Experiment:
        """What fronts have to know of it."""
        return Experiment(
            name=name,
            number=number,
            units=self.units,
            holdout=self.holdout,
            holdout_salt=self.holdout_salt,
            overrides=self.overrides,
            slow_us=round(self.slow_s * _MILLION),
        )


def default_holdout_salt(job: str) -> str:
    """The same in every experiment of a job, so that the same units are held out of all of them."""
    return f"jobs/{job}/holdout"


class Fault(NamedTuple):
    """What is wrong with a field of the experiment, such as "plan.window"."""

    field: str
    told: str


def checked(spec: Spec) -> Spec:
    """The spec. InvalidInput (INVALID_EXPERIMENT) naming everything that is wrong with it, by field."""
    if found := faults(spec):
        raise InvalidInput(
            "INVALID_EXPERIMENT",
            " ".join(one.told for one in found),
            violations=tuple(Violation("INVALID_EXPERIMENT", f"experiment.{one.field}", one.told) for one in found),
        )
    return spec


def faults(spec: Spec) -> list[Fault]:
    """Everything that is wrong with the spec."""
    return [*_of_arms(spec), *_of_units(spec), *_of_plan(spec), *_of_bandit(spec)]


def _of_arms(spec: Spec) -> Iterator[Fault]:
    versions = [arm.version for arm in spec.arms]
    if not 2 <= len(versions) <= ARMS_MAX:
        yield Fault(
            "arms", f"An experiment has 2 to {ARMS_MAX} arms, the active version among them; {len(versions)} came."
        )
    if len(set(versions)) != len(versions):
        yield Fault("arms", "A version is named twice; give each arm one weight.")
    if any(version < 1 for version in versions):
        yield Fault("arms", "Versions count from 1.")
    if any(not 0 <= arm.weight <= WHOLE for arm in spec.arms) or sum(spec.weights.values()) != WHOLE:
        yield Fault("arms", f"Each weight must be 0 % to 100 %, and all sum to 100 % ({WHOLE} basis points).")
    elif not spec.arms[0].weight:
        yield Fault(
            "arms", f"v{spec.control} is the active version and needs a weight: nothing can be compared without it."
        )
    named = set(spec.weights) | {version for _, version in spec.overrides}
    tested = {version for _, version in spec.overrides}
    for arm in spec.arms[1:]:
        if not arm.weight and arm.version not in tested:
            yield Fault("arms", f"v{arm.version} has neither a weight nor an override: no unit would ever read it.")
    for one in sorted(named - set(spec.weights)):
        yield Fault("overrides", f"The override to v{one} names no arm.")


def _of_units(spec: Spec) -> Iterator[Fault]:
    if not 0 <= spec.holdout <= WHOLE // 2:
        yield Fault(
            "holdout", f"The holdout is {spec.holdout / 100:g} %; it must be 0 % to 50 % ({WHOLE // 2} basis points)."
        )
    if len(spec.overrides) > OVERRIDES_MAX:
        yield Fault("overrides", f"{len(spec.overrides)} overrides came, at most {OVERRIDES_MAX} are kept.")
    units = [unit for unit, _ in spec.overrides]
    if len(set(units)) != len(units):
        yield Fault("overrides", "A unit is overridden twice.")
    if any(not unit or len(unit) > UNIT_CHARACTERS_MAX or "\0" in unit for unit in units):
        yield Fault(
            "overrides", f"A unit of an override has 1 to {UNIT_CHARACTERS_MAX} characters and no zero character."
        )


def _of_plan(spec: Spec) -> Iterator[Fault]:
    for name, told in spec.plan.faults():
        if name != "margin":
            yield Fault(f"plan.{name}", f"{told}.")
    # Narrower than what can be judged by: experiments are kept that began before there was a bound.
    if not 0.0 < spec.plan.margin <= MARGIN_MAX:
        yield Fault(
            "plan.margin",
            f"The margin is {spec.plan.margin:g}; give a part of one, above 0 and at most {MARGIN_MAX:g} "
            f"({MARGIN_MAX:.0%}), or leave it out for {Plan().margin:g}.",
        )
    for name, named, allowed, what in (
        ("harms", spec.harms, HARMS, "harms"),
        ("errors", spec.errors, ERRORS, "errors of a window"),
    ):
        if not set(named) <= set(allowed):
            yield Fault(f"plan.{name}", f"Only {', '.join(one.value for one in allowed)} are {what}.")
        if not named:
            yield Fault(f"plan.{name}", "Without a harm to watch for there is no guardrail; name at least one.")
    if not 0 < spec.window_s <= _TIME_MAX_S:
        yield Fault("plan.window", "The window is above 0 and at most 90 days.")
    if not 0 <= spec.delay_s <= _TIME_MAX_S:
        yield Fault("plan.delay", "The delay is 0 to 90 days.")
    if not 0 <= spec.slow_s <= 3600:
        yield Fault("plan.slow", "The slow limit is 0 (= none) to an hour.")


def _of_bandit(spec: Spec) -> Iterator[Fault]:
    bandit = spec.bandit
    if bandit is None:
        return
    if not 0 < bandit.floor <= 1 / max(1, len(spec.arms)):
        most = f"{100 / max(1, len(spec.arms)):.3g} %"
        yield Fault(
            "bandit.floor",
            f"The floor is {100 * bandit.floor:g} %; it must be above 0 and at most {most}, to fit all arms.",
        )
    if not 0 < bandit.step_max <= 1:
        yield Fault(
            "bandit.step_max", f"The step is {100 * bandit.step_max:g} %; it must be above 0 and at most 100 %."
        )
    if not 0 <= bandit.epsilon <= 1:
        yield Fault("bandit.epsilon", f"epsilon is {bandit.epsilon:g}; it must be 0 to 1.")
    if not 0 < bandit.gamma <= 1:
        yield Fault("bandit.gamma", f"gamma is {bandit.gamma:g}; it must be above 0 and at most 1.")
    if not EVERY_LEAST_S <= bandit.every_s <= _TIME_MAX_S:
        yield Fault(
            "bandit.every",
            f"The time between steps is {bandit.every_s:g} s; it must be at least {EVERY_LEAST_S:g} s and at most "
            "90 days.",
        )
    if bandit.units_min < 2:
        yield Fault("bandit.units_min", "A bandit needs at least 2 units in each arm.")


_decoder: msgspec.json.Decoder[Spec] = msgspec.json.Decoder(Spec)


def spec_to_json(spec: Spec) -> str:
    """The spec as it is kept."""
    return msgspec.json.encode(spec).decode()


def spec_from_json(text: str) -> Spec:
    """The spec that `spec_to_json` wrote."""
    return _decoder.decode(text)
