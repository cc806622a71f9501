"""Plans on the wire: what the client sends, and what it reads of the answer."""

import pytest
from hypothesis import given

from services.switcher.rollouts.convert import plan_message, plan_of
from services.switcher.rollouts.plan import Plan
from services.switcher.rollouts.templates import TEMPLATES
from tests.unit.switcher.rollouts.made import plans
from turnout.client import rollout_proto
from turnout.contract import Contract, Expected, ExpectedColumn
from turnout.rollout_file import parse, template
from turnout.rollouts import StepKind
from turnout.switcher.v1 import rollout_pb2


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_that_is_sent_is_the_one_that_is_named(name: str) -> None:
    named = plan_of(rollout_pb2.RolloutPlan(template=name))
    assert plan_of(rollout_proto.plan_message(template(name))) == named == TEMPLATES[name]


def test_a_file_arrives_with_what_may_differ() -> None:
    text = "template: fast\nsteps: [{compare: , contract: {columns: {a: {share_max: 5 %}}}}, {traffic: 100 %}]"
    arrived = rollout_proto.plan(plan_message(plan_of(rollout_proto.plan_message(parse(text)))))
    [compared, everybody] = arrived.steps
    assert compared.contract == Contract((ExpectedColumn("a", Expected(0.05)),))
    assert (everybody.kind, everybody.share) == (StepKind.TRAFFIC, 10_000)
    assert arrived.guardrails.window == template("fast").guardrails.window


@given(plans())
def test_a_plan_is_the_same_after_the_way_there_and_back(plan: Plan) -> None:
    message = plan_message(plan)
    assert plan_of(message).steps == plan.steps
    read = rollout_proto.plan(message)
    assert rollout_proto.plan_message(read).steps == message.steps
