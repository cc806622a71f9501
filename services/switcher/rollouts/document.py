"""The form of a plan that people write, as a value of JSON or YAML. Pure.

    template: normal            # careful, normal or fast; what else stands here replaces the template's
    guardrails: {units: caller, margin: 10 %, window: 1h}
    steps:
      - replay
      - compare
      - traffic: 5 %
        for: 1h
      - traffic: 25 %
        until: no-worse
        within: 2d
      - approve
      - traffic: 100 %
      - soak: 24h
      - retire

A number that is a share is per cent; a time always has its unit.
"""

import difflib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from services.switcher.rollouts.plan import SHARED, Gate, Plan, Step, StepKind, checked, refuse
from services.switcher.rollouts.templates import TEMPLATES
from services.switcher.statistics.decision import Plan as Judging
from turnout.errors import InvalidInput
from turnout.routing import WHOLE, Units

_KINDS: Final = {kind.value: kind for kind in StepKind}
_OPTIONS: Final = ("for", "within", "until")
_PARTS: Final = ("template", "guardrails", "steps")
_LEVELS: Final = {"abort-alpha": "abort_alpha", "mismatch-alpha": "mismatch_alpha", "promote-beta": "promote_beta"}
_COUNTS: Final = {"units-min": "units_min", "units-max": "units_max"}
_TIMES: Final = {"window": "window_s", "delay": "delay_s", "slow": "slow_s"}
_UNITS: Final = {one.value.lower(): one for one in Units}
_GUARDRAILS: Final = ("units", *_TIMES, "margin", *_LEVELS, *_COUNTS)

_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_TIME: Final = re.compile(r"(?:\d+(?:\.\d+)?\s*(?:ms|[smhdw])\s*)+")
_TIME_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[smhdw])")
_SHARE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*%")


class _Fault(Exception):
    """What is wrong at one place of the document."""


def parse(document: object) -> Plan:
    """The plan that the document says. InvalidInput (INVALID_PLAN) naming everything that is wrong, and what to do."""
    if not isinstance(document, Mapping) or not document:
        shape = "a plan is a mapping with `template`, `steps`, or both, and perhaps `guardrails`"
        raise InvalidInput("INVALID_PLAN", f"This is no plan: {shape}.")
    faults = [_unknown(key, _PARTS, "part of a plan") for key in document if key not in _PARTS]
    plan = _template(document, faults)
    if "guardrails" in document:
        plan = _guardrails(document["guardrails"], plan, faults)
    if "steps" in document:
        plan = msgspec.structs.replace(plan, steps=_steps(document["steps"], faults))
    refuse(faults)
    return checked(plan)


def written(plan: Plan) -> dict[str, Any]:
    """The document of a plan, with everything said: `parse` makes the same plan of it."""
    judging = plan.judging
    return {
        "guardrails": {
            "units": plan.units.value.lower(),
            **{name: _time_text(getattr(plan, field)) for name, field in _TIMES.items()},
            "margin": f"{judging.margin * 100:.9g} %",
            **{name: getattr(judging, field) for name, field in (_LEVELS | _COUNTS).items()},
        },
        "steps": [_step_document(step) for step in plan.steps],
    }


# --- reading --------------------------------------------------------------------------------------------------------


def _template(document: Mapping[Any, Any], faults: list[str]) -> Plan:
    if "template" not in document:
        if "steps" not in document:
            faults.append(f"It says neither `steps` nor `template`; the templates are {_listed(TEMPLATES)}.")
        return Plan(())
    name = document["template"]
    if isinstance(name, str) and name in TEMPLATES:
        return TEMPLATES[name]
    faults.append(_unknown(name, TEMPLATES, "template"))
    return Plan(())


def _guardrails(given: object, plan: Plan, faults: list[str]) -> Plan:
    if not isinstance(given, Mapping):
        faults.append(f"`guardrails` is a mapping of {_listed(_GUARDRAILS)}.")
        return plan
    changes: dict[str, Any] = {}
    for key, value in given.items():
        try:
            if key in _TIMES:
                plan = msgspec.structs.replace(plan, **{_TIMES[key]: _seconds(value)})
            elif key == "units":
                plan = msgspec.structs.replace(plan, units=_units(value))
            elif key == "margin":
                changes["margin"] = _fraction(value)
            elif key in _LEVELS:
                changes[_LEVELS[key]] = _number(value)
            elif key in _COUNTS:
                changes[_COUNTS[key]] = _whole_number(value)
            else:
                faults.append(_unknown(key, _GUARDRAILS, "guardrail"))
        except _Fault as fault:
            faults.append(f"guardrails, {key}: {fault}")
    judging: Judging = msgspec.structs.replace(plan.judging, **changes)
    return msgspec.structs.replace(plan, judging=judging)


def _steps(given: object, faults: list[str]) -> tuple[Step, ...]:
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        faults.append("`steps` is a list, such as `- replay`, `- traffic: 5 %`.")
        return ()
    steps = []
    for place, one in enumerate(given, start=1):
        try:
            steps.append(_step(one))
        except _Fault as fault:
            faults.append(f"Step {place}: {fault}")
    return tuple(steps)


def _step(given: object) -> Step:
    if isinstance(given, str):
        given = {given: None}
    if not isinstance(given, Mapping):
        raise _Fault(f"{given!r} is no step; write one of {_listed(_KINDS)}.")
    named = [key for key in given if key in _KINDS]
    for key in given:
        if key not in _KINDS and key not in _OPTIONS:
            known = (*_KINDS, *_OPTIONS) if not named else _OPTIONS
            raise _Fault(_unknown(key, known, "step" if not named else f"option of {named[0]}"))
    if len(named) != 1:
        raise _Fault(f"it names {len(named)} steps instead of one; begin each with a dash of its own.")
    kind = _KINDS[named[0]]
    value, options = given[named[0]], {key: given[key] for key in given if key in _OPTIONS}
    share = _value_share(kind, value)
    if kind is StepKind.SOAK:
        if "for" in options:
            raise _Fault("a soak says its time once: `soak: 24h`.")
        options["for"] = value
    return Step(
        kind,
        share,
        for_s=_option_seconds(options, "for"),
        within_s=_option_seconds(options, "within"),
        no_worse=_until(options),
    )


def _value_share(kind: StepKind, value: object) -> int:
    if kind in SHARED:
        if value is None:
            raise _Fault(f"{kind.value} needs its share, such as `{kind.value}: 5 %`.")
        return _basis_points(value)
    if kind is StepKind.SOAK:
        if value is None:
            raise _Fault("a soak needs its time, such as `soak: 24h`.")
    elif value is not None:
        raise _Fault(f"{kind.value} takes no value, {value!r} came; write `- {kind.value}`.")
    return 0


def _until(options: Mapping[str, object]) -> bool:
    if "until" not in options:
        return False
    if options["until"] != Gate.NO_WORSE.value:
        raise _Fault(f"until: {_unknown(options['until'], (Gate.NO_WORSE.value,), 'end of a step')}")
    return True


def _option_seconds(options: Mapping[str, object], name: str) -> float:
    if name not in options:
        return 0.0
    try:
        return _seconds(options[name])
    except _Fault as fault:
        raise _Fault(f"{name}: {fault}") from None


def _seconds(value: object) -> float:
    if isinstance(value, str) and _TIME.fullmatch(value.strip()):
        return math.fsum(float(number) * _UNIT_S[unit] for number, unit in _TIME_PART.findall(value))
    unit = f" ({value}s?)" if isinstance(value, int | float) and not isinstance(value, bool) else ""
    raise _Fault(f"{value!r} is no time{unit}; write a number and s, m, h, d or w, such as 30s or 1h30m.")


def _percent(value: object) -> float:
    if isinstance(value, str) and (match := _SHARE.fullmatch(value.strip())):
        return float(match[1])
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise _Fault(f"{value!r} is no share; write per cent, such as 5 %.")


def _basis_points(value: object) -> int:
    points = _percent(value) * 100
    if not 0 <= points <= WHOLE:
        raise _Fault(f"{value!r} is no share; it must be 0 to 100 %.")
    if abs(points - round(points)) > 1e-6:
        raise _Fault(f"{value!r} is too fine; shares go by 0.01 %.")
    return round(points)


def _units(value: object) -> Units:
    if isinstance(value, str) and value in _UNITS:
        return _UNITS[value]
    raise _Fault(_unknown(value, _UNITS, "kind of unit"))


def _fraction(value: object) -> float:
    return float(f"{_percent(value) / 100:.12g}")


def _number(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise _Fault(f"{value!r} is no number.")


def _whole_number(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise _Fault(f"{value!r} is no whole number.")


def _unknown(given: object, known: Collection[str], what: str) -> str:
    near = difflib.get_close_matches(str(given), known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there {'is' if len(known) == 1 else 'are'} {_listed(known)}."
    return f"There is no {what} {given!r}; {hint}"


def _listed(names: Collection[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


# --- writing --------------------------------------------------------------------------------------------------------


def _step_document(step: Step) -> str | dict[str, str]:
    name = step.kind.value
    told: dict[str, str] = {}
    if step.kind in SHARED:
        told[name] = f"{step.share / 100:g} %"
    elif step.kind is StepKind.SOAK:
        told[name] = _time_text(step.for_s)
    if step.for_s and step.kind is not StepKind.SOAK:
        told["for"] = _time_text(step.for_s)
    if step.no_worse:
        told["until"] = Gate.NO_WORSE.value
    if step.within_s:
        told["within"] = _time_text(step.within_s)
    if not told:
        return name
    return told if name in told else {name: None, **told}  # type: ignore[dict-item]  # YAML writes `replay:`


def _time_text(seconds: float) -> str:
    for unit in ("d", "h", "m"):
        if seconds and seconds % _UNIT_S[unit] == 0:
            return f"{seconds / _UNIT_S[unit]:.0f}{unit}"
    return f"{seconds:.12g}s"
