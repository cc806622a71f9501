"""A plan of a rollout as people write it, in YAML.

    template: normal            # careful, normal or fast; what else stands here replaces the template's
    guardrails: {units: caller, margin: 10 %, window: 1h}
    steps:
      - replay
      - compare
        contract: {columns: {on_time: {share_max: 80 %}}}     # as in the file of `turnout compare --contract`
      - traffic: 5 %
        for: 1h
      - traffic: 25 %
        until: no-worse
        within: 2d
      - approve
      - traffic: 100 %
      - soak: 24h
      - retire

A share is per cent; a time always has its unit. Every value is read as it is written, whatever YAML would make of it:
of 1:30 a number, of `no` a truth. What a plan of such steps may be is the switcher's to say.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib import resources
from typing import Any, Final, TypeVar

import yaml

from turnout import durations, shares
from turnout.contract import Contract, ContractError, names_at, of_document, unknown_name
from turnout.durations import DurationError
from turnout.experiments import Units
from turnout.rollouts import TEMPLATES, RolloutPlan, RolloutStep, StepKind
from turnout.shares import WHOLE, ShareError, Sign

CHARACTERS_MAX: Final = 65_536

STEPS: Final = {kind.value.lower(): kind for kind in StepKind}
_SHARED: Final = (StepKind.SHADOW, StepKind.TRAFFIC)
_CONTRACT: Final = "contract"
OPTIONS: Final = ("for", "within", "until", _CONTRACT)
_NO_WORSE: Final = "no-worse"
PARTS: Final = ("template", "guardrails", "steps")
_LEVELS: Final = {"abort-alpha": "abort_alpha", "mismatch-alpha": "mismatch_alpha", "promote-beta": "promote_beta"}
_COUNTS: Final = {"units-min": "units_min", "units-max": "units_max"}
_TIMES: Final = {"window": "window", "delay": "delay", "slow": "slow"}
_UNITS: Final = {one.value.lower(): one for one in Units}
GUARDRAILS: Final = ("units", *_TIMES, "margin", *_LEVELS, *_COUNTS)

_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_TRUTHS: Final = {"true": True, "false": False}
_WHOLE_NUMBER: Final = re.compile(r"\d[\d_,]*", re.ASCII)
_NULL: Final = "tag:yaml.org,2002:null"
_PLAIN: Final = ("str", "int", "float", "bool", "null", "timestamp", "value", "merge", "map", "seq")
_PLAIN_TAGS: Final = frozenset(f"tag:yaml.org,2002:{name}" for name in _PLAIN)

T = TypeVar("T")
N = TypeVar("N", int, float)


@dataclass(frozen=True, slots=True)
class PlanFault:
    """What is wrong and what to do, in sentences; at which line of the file (from 1), and where in the plan that is."""

    line: int
    where: str
    text: str


class PlanFileError(ValueError):
    """A text that says no plan. `faults` names everything that is wrong, in the order of the file."""

    def __init__(self, faults: list[PlanFault]) -> None:
        self.faults = tuple(sorted(faults, key=lambda one: one.line))
        super().__init__(" ".join(f"line {one.line}, {one.where}: {one.text}" for one in self.faults))


def _line(node: yaml.Node) -> int:
    number: int = node.start_mark.line
    return number + 1


class _Wrong(Exception):
    """What is wrong with a node."""

    def __init__(self, node: yaml.Node, text: str) -> None:
        super().__init__(text)
        self.line = _line(node)
        self.text = text


@dataclass(frozen=True, slots=True)
class PlanFile:
    """The plan that a text says, and at which of its lines (from 1) each field of it is said, such as "steps[2]" or
    "guardrails.margin"; what comes of a template stands at none."""

    plan: RolloutPlan
    lines: Mapping[str, int]

    def line(self, field: str) -> int | None:
        """The line of a field, or else of what holds it; None where neither is said in the text."""
        while field and field not in self.lines:
            field = field.rpartition(".")[0] if "." in field else field.rpartition("[")[0]
        return self.lines.get(field)


def read(text: str) -> PlanFile:
    """What a text in YAML says. PlanFileError."""
    reading = _Reading()
    plan = reading.plan(_composed(text))
    if reading.faults:
        raise PlanFileError(reading.faults)
    return PlanFile(plan, reading.lines)


def parse(text: str) -> RolloutPlan:
    """The plan that a text in YAML says. PlanFileError."""
    return read(text).plan


def template_text(name: str) -> str:
    """A template as a file to edit. KeyError where there is none of the name."""
    if name not in TEMPLATES:
        raise KeyError(name)
    return resources.files("turnout").joinpath("rollout_templates", f"{name}.yaml").read_text(encoding="utf-8")


def template(name: str) -> RolloutPlan:
    """A template. KeyError where there is none of the name."""
    return parse(template_text(name))


# --- YAML -----------------------------------------------------------------------------------------------------------


def _composed(text: str) -> yaml.Node:
    """The nodes of the text; nothing is made of them that YAML knows how to make."""
    if len(text) > CHARACTERS_MAX:
        raise _no_yaml(1, f"It has {len(text):,} characters; a plan has at most {CHARACTERS_MAX:,}.")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise _no_yaml(1 if mark is None else mark.line + 1, f"This is no YAML: {said}.{_hint(said)}") from None
    except yaml.YAMLError as error:
        raise _no_yaml(1, f"This is no YAML: {' '.join(str(error).split())}.") from None
    except RecursionError:
        raise _no_yaml(1, "It is nested too deeply to be a plan.") from None
    if node is None:
        raise _no_yaml(1, f"The file is empty. {_SHAPE}")
    return node


_SHAPE: Final = (
    "A plan has `template`, `steps` or both, and perhaps `guardrails`; `turnout rollout plan` writes one to edit."
)


def _no_yaml(line: int, text: str) -> PlanFileError:
    return PlanFileError([PlanFault(line, "the file", text)])


def _hint(said: str) -> str:
    if "mapping values are not allowed" in said or "expected <block end>" in said:
        return " Begin each step with a dash, and what belongs to it right below its name, without a dash."
    if "'\\t'" in said:
        return " Indent with blanks, not with tabs."
    if "'%'" in said:
        return " Write the per cent sign behind the number, such as 5 %."
    if "expected a single document" in said:
        return " Leave out the line of three dashes in between: one file is one plan."
    return ""


class _Reading:
    """What is read of the nodes, with all that is wrong on the way."""

    def __init__(self) -> None:
        self.faults: list[PlanFault] = []
        self.lines: dict[str, int] = {}
        self._met: set[int] = set()

    def plan(self, node: yaml.Node) -> RolloutPlan:
        try:
            parts = dict(self._entries(node, _SHAPE, "the plan"))
        except _Wrong as wrong:
            self._note("the plan", wrong)
            return RolloutPlan(())
        for name in parts:
            if name.value not in PARTS:
                self._note("the plan", _Wrong(name, _unknown(name.value, PARTS, "part of a plan")))
        known = {name.value: value for name, value in parts.items()}
        self.lines |= {name.value: _line(name) for name in parts}
        plan = self._attempt("template", _template, known["template"]) if "template" in known else RolloutPlan(())
        if "template" not in known and "steps" not in known:
            self._note("the plan", _Wrong(node, f"It says neither `steps` nor `template`. {_templates()}"))
        plan = plan or RolloutPlan(())
        if "guardrails" in known:
            plan = self._guardrails(known["guardrails"], plan)
        if "steps" in known:
            plan = dataclasses.replace(plan, steps=tuple(self._steps(known["steps"])))
        return plan

    def _guardrails(self, node: yaml.Node, plan: RolloutPlan) -> RolloutPlan:
        changes: dict[str, Any] = {}
        try:
            given = list(self._entries(node, f"`guardrails` holds {_listed(GUARDRAILS)}.", "guardrails"))
        except _Wrong as wrong:
            self._note("guardrails", wrong)
            return plan
        for key, value in given:
            name = key.value
            if name == "units":
                self.lines["units"] = _line(key)
                plan = dataclasses.replace(plan, units=self._attempt("guardrails, units", _units, value))
            elif name in _READERS:
                field, reader = _READERS[name]
                self.lines[f"guardrails.{field}"] = _line(key)
                changes[field] = self._attempt(f"guardrails, {name}", reader, value)
            else:
                self._note("guardrails", _Wrong(key, _unknown(name, GUARDRAILS, "guardrail")))
        return dataclasses.replace(plan, guardrails=dataclasses.replace(plan.guardrails, **changes))

    def _steps(self, node: yaml.Node) -> Iterator[RolloutStep]:
        try:
            self._once(node)
            if not isinstance(node, yaml.SequenceNode):
                raise _Wrong(node, "They are a list: write each on a line that begins with a dash.")
        except _Wrong as wrong:
            self._note("steps", wrong)
            return
        for place, one in enumerate(node.value, start=1):
            self.lines[f"steps[{place - 1}]"] = _line(one)
            step = self._attempt(f"step {place}", self._step, one)
            if step is not None:
                yield step

    def _step(self, node: yaml.Node) -> RolloutStep:
        if isinstance(node, yaml.ScalarNode):
            return _step_of(node, node, None, {})
        entries = list(self._entries(node, f"A step is one of {_listed(STEPS)}, with its options.", "a step"))
        named = [key for key, _ in entries if key.value in STEPS]
        for key, _ in entries:
            if key.value not in STEPS and key.value not in OPTIONS:
                raise _Wrong(key, _unknown_of_step(key.value, named))
        if len(named) != 1:
            raise _Wrong(node, f"It names {len(named) or 'no'} steps; each begins with a dash of its own.")
        values = {key.value: value for key, value in entries}
        options = {name: values[name] for name in OPTIONS if name in values}
        contract = None
        if _CONTRACT in options:
            contract = self._contract(named[0], options[_CONTRACT])
        return dataclasses.replace(_step_of(node, named[0], values[named[0].value], options), contract=contract)

    def _contract(self, step: yaml.ScalarNode, node: yaml.Node) -> Contract:
        if STEPS[step.value] is not StepKind.COMPARE:
            raise _Wrong(node, f"{step.value} compares nothing; a contract belongs to compare.")
        if not isinstance(node, yaml.MappingNode):
            raise _Wrong(
                node, "contract: write it out here, with the names of the file of `turnout compare --contract`."
            )
        try:
            return of_document(self._value(node))
        except ContractError as error:
            raise _Wrong(node, f"contract: {error}.") from None

    def _value(self, node: yaml.Node, path: tuple[str, ...] = ()) -> Any:
        """What the nodes of a contract say: numbers and truths as such, everything else as text. path: where."""
        if isinstance(node, yaml.MappingNode):
            return {key: self._value(value, (*path, key)) for key, value in self._known_entries(node, path)}
        self._once(node)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(one, (*path, "")) for one in node.value]
        text = _text(node)
        if text in _TRUTHS:
            return _TRUTHS[text]
        return float(text) if _NUMBER.fullmatch(text) else text

    def _known_entries(self, node: yaml.MappingNode, path: tuple[str, ...]) -> Iterator[tuple[str, yaml.Node]]:
        known = names_at(path)
        for key, value in self._entries(node, "", "the contract"):
            if known is None or key.value in known:
                yield key.value, value
            else:
                self._note("the contract", _Wrong(key, _sentence(unknown_name(key.value, path))))

    # --- shared ---

    def _entries(self, node: yaml.Node, shape: str, what: str) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
        """The keys and values of a mapping, each key once."""
        self._once(node)
        if not isinstance(node, yaml.MappingNode):
            raise _Wrong(node, shape)
        lines: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _Wrong(key, f"A name is a word. {shape}")
            if key.value in lines:
                first = lines[key.value]
                self._note(what, _Wrong(key, f"`{key.value}` stands in line {first} already; say it once."))
                continue
            lines[key.value] = _line(key)
            yield key, value

    def _once(self, node: yaml.Node) -> None:
        """Refuse what is more than text, lists and mappings written out."""
        if id(node) in self._met:
            raise _Wrong(node, "It is repeated by an alias (*name); write it out.")
        self._met.add(id(node))
        _refuse_tag(node)

    def _attempt(self, where: str, read: Callable[[yaml.Node], T], node: yaml.Node) -> T | None:
        try:
            return read(node)
        except _Wrong as wrong:
            self._note(where, wrong)
            return None

    def _note(self, where: str, wrong: _Wrong) -> None:
        self.faults.append(PlanFault(wrong.line, where, wrong.text))


def _refuse_tag(node: yaml.Node) -> None:
    if node.tag not in _PLAIN_TAGS:
        raise _Wrong(node, f"It has the tag {node.tag}, which says nothing here; leave it out.")


# --- steps ----------------------------------------------------------------------------------------------------------


def _step_of(
    at: yaml.Node, name: yaml.ScalarNode, value: yaml.Node | None, options: dict[str, yaml.Node]
) -> RolloutStep:
    if name.value not in STEPS:
        raise _Wrong(name, _unknown(name.value, STEPS, "step"))
    kind = STEPS[name.value]
    value = None if value is None or _is_null(value) else value
    return RolloutStep(
        kind,
        share=_share_of(kind, at, value),
        at_least=_least(kind, at, value, options),
        within=_option(options, "within", _time),
        no_worse=_option(options, "until", _until) is not None,
    )


def _share_of(kind: StepKind, at: yaml.Node, value: yaml.Node | None) -> int:
    name = kind.value.lower()
    if kind in _SHARED:
        if value is None:
            raise _Wrong(at, f"{name} needs its share, such as `{name}: 5 %`.")
        if not isinstance(value, yaml.ScalarNode):
            raise _Wrong(value, f"Write the share right behind the name (`{name}: 5 %`), and options below the name.")
        return _basis_points(value)
    if kind is not StepKind.SOAK and value is not None:
        raise _Wrong(value, f"{name} takes no value; write `- {name}`.")
    return 0


def _least(kind: StepKind, at: yaml.Node, value: yaml.Node | None, options: dict[str, yaml.Node]) -> timedelta | None:
    if kind is not StepKind.SOAK:
        return _option(options, "for", _time)
    if "for" in options:
        raise _Wrong(options["for"], "A soak says its time once: `soak: 24h`.")
    if value is None:
        raise _Wrong(at, "A soak needs its time, such as `soak: 24h`.")
    return _time(value)


def _option(options: dict[str, yaml.Node], name: str, read: Callable[[yaml.Node], T]) -> T | None:
    if name not in options:
        return None
    try:
        return read(options[name])
    except _Wrong as wrong:
        wrong.text = f"{name}: {wrong.text}"
        raise


def _until(node: yaml.Node) -> str:
    text = _text(node)
    if text != _NO_WORSE:
        raise _Wrong(node, f"{text!r} ends no step; there is {_NO_WORSE}, and `for` with a time.")
    return text


def _unknown_of_step(given: str, named: list[yaml.ScalarNode]) -> str:
    if not named:
        return _unknown(given, (*STEPS, *OPTIONS), "step")
    return _unknown(given, OPTIONS, f"option of {named[0].value}")


# --- values ---------------------------------------------------------------------------------------------------------


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == _NULL


def _text(node: yaml.Node) -> str:
    _refuse_tag(node)
    if not isinstance(node, yaml.ScalarNode):
        raise _Wrong(node, "One value belongs here, not a list or a mapping.")
    if _is_null(node):
        raise _Wrong(node, "The value is missing; write it behind the colon.")
    text: str = node.value
    return text.strip()


def _template(node: yaml.Node) -> RolloutPlan:
    name = _text(node)
    if name not in TEMPLATES:
        raise _Wrong(node, _unknown(name, TEMPLATES, "template"))
    return template(name)


def _units(node: yaml.Node) -> Units:
    text = _text(node)
    if text not in _UNITS:
        raise _Wrong(node, _unknown(text, _UNITS, "kind of unit"))
    return _UNITS[text]


def _time(node: yaml.Node) -> timedelta:
    try:
        return durations.parse(_text(node))
    except DurationError as error:
        raise _Wrong(node, str(error)) from None


def _basis_points(node: yaml.Node, sign: Sign = Sign.BELOW_ONE) -> int:
    try:
        return shares.basis_points(_text(node), sign)
    except ShareError as error:
        raise _Wrong(node, str(error)) from None


def _margin(node: yaml.Node) -> float:
    return _above_0(node, _basis_points(node, Sign.ALWAYS) / WHOLE)


def _number(node: yaml.Node) -> float:
    text = _text(node)
    if not _NUMBER.fullmatch(text):
        raise _Wrong(node, f"{text!r} is no number; write it like 0.05.")
    return _above_0(node, float(text))


def _whole_number(node: yaml.Node) -> int:
    text = _text(node)
    if not _WHOLE_NUMBER.fullmatch(text):
        raise _Wrong(node, f"{text!r} is no whole number; write it like 10000.")
    return _above_0(node, int(text.replace("_", "").replace(",", "")))


def _above_0(node: yaml.Node, number: N) -> N:
    # On the wire 0 stands for the default.
    if not number:
        raise _Wrong(node, f"{_text(node)!r} must be above 0; leave it out for the default.")
    return number


_READERS: Final[dict[str, tuple[str, Callable[[yaml.Node], Any]]]] = {
    **{name: (field, _time) for name, field in _TIMES.items()},
    "margin": ("margin", _margin),
    **{name: (field, _number) for name, field in _LEVELS.items()},
    **{name: (field, _whole_number) for name, field in _COUNTS.items()},
}


# --- words ----------------------------------------------------------------------------------------------------------


def _unknown(given: str, known: Collection[str], what: str) -> str:
    near = difflib.get_close_matches(given, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there {'is' if len(known) == 1 else 'are'} {_listed(known)}."
    return f"There is no {what} {given!r}; {hint}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _templates() -> str:
    return f"The templates are {_listed(TEMPLATES)}."


def _listed(names: Collection[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
