"""Plans of rollouts as people write them: what is read, and what is said of each mistake."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.client.rollout_proto import plan_message
from turnout.contract import Contract, Expected, ExpectedColumn
from turnout.experiments import Units
from turnout.rollout_file import CHARACTERS_MAX, PlanFault, PlanFileError, parse, template, template_text
from turnout.rollouts import TEMPLATES, RolloutPlan, RolloutStep, StepKind
from turnout.switcher.v1 import route_pb2

HOUR = timedelta(hours=1)
WHOLE = """
# a comment
guardrails: {units: caller, margin: 7.5 %, window: 1h30m, delay: 0s, slow: 50 ms, units-max: 50_000, abort-alpha: 0.01}
steps:
  - replay
  - compare:
    contract:
      columns:
        on_time: {share_max: 80 %}
        on_time_share: {optional: true}
      share_max: 0.9
  - shadow: 10 %
    for: 1m
  - traffic: 5
    for: 60s
  - traffic: "25%"
    until: no-worse
    within: 10m
  - approve
  - {traffic: 100 %}
  - soak: 2 d
  - retire:
"""
STEPS = (
    RolloutStep(StepKind.REPLAY),
    RolloutStep(
        StepKind.COMPARE,
        contract=Contract(
            (ExpectedColumn("on_time", Expected(0.8)), ExpectedColumn("on_time_share", Expected(None, True))),
            share_max=0.9,
        ),
    ),
    RolloutStep(StepKind.SHADOW, 1_000, at_least=timedelta(minutes=1)),
    RolloutStep(StepKind.TRAFFIC, 500, at_least=timedelta(minutes=1)),
    RolloutStep(StepKind.TRAFFIC, 2_500, within=timedelta(minutes=10), no_worse=True),
    RolloutStep(StepKind.APPROVE),
    RolloutStep(StepKind.TRAFFIC, 10_000),
    RolloutStep(StepKind.SOAK, at_least=timedelta(days=2)),
    RolloutStep(StepKind.RETIRE),
)


def faults(text: str) -> tuple[PlanFault, ...]:
    with pytest.raises(PlanFileError) as caught:
        parse(text)
    return caught.value.faults


def test_a_file_says_a_plan() -> None:
    plan = parse(WHOLE)
    assert plan.steps == STEPS
    assert plan.units is Units.CALLER
    given = plan.guardrails
    assert (given.margin, given.units_max, given.abort_alpha) == (0.075, 50_000, 0.01)
    assert (given.window, given.delay, given.slow) == (1.5 * HOUR, timedelta(0), timedelta(milliseconds=50))
    assert (given.units_min, given.promote_beta, given.mismatch_alpha) == (None, None, None)


def test_json_is_another_way_to_write_it() -> None:
    assert parse('{"steps": ["replay", {"traffic": "5 %", "for": "1h"}, {"traffic": 100}]}') == RolloutPlan(
        (
            RolloutStep(StepKind.REPLAY),
            RolloutStep(StepKind.TRAFFIC, 500, at_least=HOUR),
            RolloutStep(StepKind.TRAFFIC, 10_000),
        )
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_each_template_is_a_plan_that_fits_a_terminal(name: str) -> None:
    plan = template(name)
    assert plan.units is not None
    assert [step.share for step in plan.steps if step.kind is StepKind.TRAFFIC][-1] == 10_000
    assert all(len(line) <= 80 for line in template_text(name).splitlines())
    assert parse(f"template: {name}") == plan


def test_what_stands_beside_a_template_replaces_its_own() -> None:
    plan = parse("template: careful\nguardrails: {margin: 1 %, units: key}")
    assert plan.steps == template("careful").steps
    assert (plan.guardrails.margin, plan.units) == (0.01, Units.KEY)
    assert plan.guardrails.window == template("careful").guardrails.window
    assert parse("template: careful\nsteps: [{traffic: 100 %}]").steps == (RolloutStep(StepKind.TRAFFIC, 10_000),)


def test_there_is_no_other_template() -> None:
    with pytest.raises(KeyError):
        template("../experiments")


def test_what_is_left_to_the_switcher_is_not_sent() -> None:
    message = plan_message(parse("steps: [{traffic: 5 %, for: 1h}, {traffic: 100 %}]"))
    assert not message.guardrails.ListFields()
    assert message.units == route_pb2.UNITS_UNSPECIFIED
    assert [field.name for field, _ in message.steps[1].ListFields()] == ["kind", "share"]


@pytest.mark.parametrize(
    ("text", "line", "where", "told"),
    [
        ("", 1, "the file", "The file is empty."),
        ("# nothing", 1, "the file", "The file is empty."),
        ("[]", 1, "the plan", "A plan has `template`, `steps` or both"),
        ("replay", 1, "the plan", "A plan has `template`, `steps` or both"),
        ("guardrails: {}", 1, "the plan", "neither `steps` nor `template`"),
        ("template: fast\nstep: []", 2, "the plan", "no part of a plan 'step'; did you mean steps?"),
        ("template: carefull", 1, "template", "did you mean careful?"),
        ("template: bold", 1, "template", "there are careful, normal and fast."),
        ("template:", 1, "template", "The value is missing"),
        ("template: [fast]", 1, "template", "not a list"),
        ("template: fast\ntemplate: careful", 2, "the plan", "`template` stands in line 1 already"),
        ("template: fast\nguardrails: []", 2, "guardrails", "`guardrails` holds units, window"),
        ("template: fast\nguardrails:\n  margins: 3", 3, "guardrails", "did you mean margin?"),
        ("template: fast\nguardrails: {window: 60}", 2, "guardrails, window", "'60' is no duration (60s?)"),
        ("template: fast\nguardrails: {window: }", 2, "guardrails, window", "The value is missing"),
        ("template: fast\nguardrails: {window: 5000d}", 2, "guardrails, window", "longer than ten years"),
        ("template: fast\nguardrails: {units-max: 1.5}", 2, "guardrails, units-max", "'1.5' is no whole number"),
        ("template: fast\nguardrails: {units-max: yes}", 2, "guardrails, units-max", "'yes' is no whole number"),
        ("template: fast\nguardrails: {abort-alpha: x}", 2, "guardrails, abort-alpha", "'x' is no number"),
        ("template: fast\nguardrails: {units: callers}", 2, "guardrails, units", "did you mean caller?"),
        ("template: fast\nguardrails: {margin: 0.1}", 2, "guardrails, margin", "with its sign"),
        ("template: fast\nguardrails: {margin: 0 %}", 2, "guardrails, margin", "must be above 0"),
        ("template: fast\nguardrails: {margin: 150 %}", 2, "guardrails, margin", "a share is at most 100%."),
        ("template: fast\nguardrails: {abort-alpha: 0.0}", 2, "guardrails, abort-alpha", "must be above 0"),
        ("template: fast\nguardrails: {units-min: 0}", 2, "guardrails, units-min", "must be above 0"),
        ("template: fast\nguardrails: {<<: 3}", 2, "guardrails", "no guardrail '<<'"),
        ("template: fast\nguardrails: {? [a] : 3}", 2, "guardrails", "A name is a word"),
        ("steps: replay", 1, "steps", "They are a list"),
        ("steps:\n- replya", 2, "step 1", "no step 'replya'; did you mean replay?"),
        ("steps:\n- 7", 2, "step 1", "no step '7'; there are replay, compare"),
        ("steps:\n- [replay]", 2, "step 1", "A step is one of replay"),
        ("steps:\n- traffic: 5\n  fro: 1h", 3, "step 1", "no option of traffic 'fro'; did you mean for?"),
        ("steps:\n- for: 1h", 2, "step 1", "It names no steps"),
        ("steps:\n- replay:\n  compare:", 2, "step 1", "It names 2 steps"),
        ("steps:\n- replay: now", 2, "step 1", "replay takes no value"),
        ("steps:\n- traffic", 2, "step 1", "traffic needs its share"),
        ("steps:\n- traffic:\n    share: 5 %", 3, "step 1", "right behind the name"),
        ("steps:\n- traffic: half", 2, "step 1", "'half' is no share"),
        ("steps:\n- traffic: yes", 2, "step 1", "'yes' is no share"),
        ("steps:\n- traffic: 101 %", 2, "step 1", "a share is at most 100%."),
        ("steps:\n- traffic: 0.005 %", 2, "step 1", "too fine"),
        ("steps:\n- traffic: 0.05", 2, "step 1", "write 5% or 0.05%."),
        ("steps:\n- shadow: 0.5\n  for: 1h", 2, "step 1", "write 50% or 0.5%."),
        ("steps:\n- traffic: 5\n  for: 1 hour", 3, "step 1", "for: '1 hour' is no duration"),
        ("steps:\n- traffic: 5\n  for: 1:30", 3, "step 1", "for: '1:30' is no duration"),
        ("steps:\n- traffic: 5\n  until: no", 3, "step 1", "until: 'no' ends no step"),
        ("steps:\n- soak", 2, "step 1", "A soak needs its time"),
        ("steps:\n- soak: 1h\n  for: 1h", 3, "step 1", "says its time once"),
        ("steps:\n- soak: 1h\n  soak: 2h", 3, "a step", "`soak` stands in line 2 already"),
        ("steps:\n- replay:\n  contract: {}", 3, "step 1", "a contract belongs to compare"),
        ("steps:\n- compare:\n  contract: file.toml", 3, "step 1", "write it out here"),
        ("steps:\n- compare:\n  contract: {colums: {}}", 3, "the contract", "did you mean columns?"),
        ("steps:\n- compare:\n  contract:\n    only_old:\n      share: 5 %", 5, "the contract", "mean share_max?"),
        ("steps:\n- compare:\n  contract: {projection: {kee: [a]}}", 3, "the contract", "`projection` of a contract"),
        ("steps:\n- compare:\n  contract: {share_max: lots}", 3, "step 1", "'lots' is no share"),
        ("steps:\n- compare:\n  contract: {share_max: 1, share_max: 2}", 3, "the contract", "`share_max` stands in"),
        ("steps:\n- traffic: 5 %\n    for: 1h", 3, "the file", "right below its name"),
        ("steps:\n\t- replay", 2, "the file", "not with tabs"),
        ("steps:\n- traffic: %5", 2, "the file", "behind the number"),
        ("steps: [replay", 1, "the file", "This is no YAML"),
        ("template: fast\n---\ntemplate: fast", 2, "the file", "one file is one plan"),
        ("steps: &all [replay]\nguardrails: *all", 1, "guardrails", "guardrails` holds"),
        ("guardrails: &g {window: 1h}\nsteps: *g", 1, "steps", "repeated by an alias"),
        ("steps: &s [*s]", 1, "step 1", "repeated by an alias"),
        ("steps: !!python/object/apply:os.system [ls]", 1, "steps", "leave it out"),
        ("steps: !mine [replay]", 1, "steps", "!mine"),
        ("template: !!python/name:os fast", 1, "template", "leave it out"),
        ("template: fast\x00", 1, "the file", "This is no YAML"),
        ("[" * 9_000, 1, "the file", ""),
        ("#" * (CHARACTERS_MAX + 1), 1, "the file", "at most 65,536"),
    ],
)
def test_a_mistake_is_named_by_its_line_with_what_to_do(text: str, line: int, where: str, told: str) -> None:
    found = faults(text)
    assert (found[0].line, found[0].where) == (line, where)
    assert told in found[0].text
    assert found[0].text.endswith((".", "?"))


def test_all_mistakes_are_told_at_once_in_their_order() -> None:
    found = faults("steps:\n- replya\n- traffic: half\n- soak\nguardrail: {}\n")
    assert [(one.line, one.where) for one in found] == [(2, "step 1"), (3, "step 2"), (4, "step 3"), (5, "the plan")]


def test_a_wrong_name_in_a_contract_hides_nothing_else_of_it() -> None:
    text = "steps:\n- compare:\n  contract:\n    colums: {}\n    share_max: 80\n- traffic: 100 %"
    found = faults(text)
    assert [(one.line, one.where) for one in found] == [(4, "the contract"), (4, "step 1")]
    assert "a share is 80.0; give 0 to 1, or a percentage like 20%" in found[1].text


def test_what_is_less_than_one_per_cent_is_read_with_its_sign() -> None:
    [step, _] = parse("steps: [{traffic: 0.05 %, for: 1h}, {traffic: 100 %}]").steps
    assert step.share == 5


_WORDS = st.sampled_from(
    [
        *(
            "template",
            "steps",
            "guardrails",
            "traffic",
            "soak",
            "for",
            "until",
            "within",
            "contract",
            "margin",
            "compare",
        ),
        *(
            ": ",
            "- ",
            "\n",
            "\n  ",
            "\n    ",
            "{",
            "}",
            "[",
            "]",
            ", ",
            "5 %",
            "1h",
            "no-worse",
            "fast",
            "*a",
            "&a ",
            "!!",
            '"',
        ),
    ]
)


@given(st.one_of(st.text(max_size=60), st.lists(_WORDS, max_size=25).map("".join)))
def test_whatever_stands_in_a_file_it_is_a_plan_or_mistakes_are_named(text: str) -> None:
    found: tuple[PlanFault, ...] = ()
    try:
        plan_message(parse(text))
    except PlanFileError as error:
        found = error.faults
    assert all(one.text and 1 <= one.line <= text.count("\n") + 2 for one in found)
