"""What the switcher says against a plan is told by the lines of the file that says it."""

from __future__ import annotations

from pathlib import Path

import pytest

from turnout.cli.exits import ExitCode
from turnout.cli.plans import plan_of
from turnout.errors import InvalidInput, Violation

PLAN = """\
template: fast
guardrails:
  units: key
  abort-alpha: 2
steps:
  - replay
  - compare:
    contract: {}
  - traffic: 5 %
"""


@pytest.mark.parametrize(
    ("field", "line", "where"),
    [
        ("plan.steps[0]", "line 6", "step 1"),
        ("plan.steps[1].contract", "line 7", "step 2"),
        ("plan.steps[2]", "line 9", "step 3"),
        ("plan.steps", "line 5", "steps"),
        ("plan.guardrails.abort_alpha", "line 4", "guardrails, abort-alpha"),
        ("plan.guardrails.window", "line 2", "guardrails, window"),
        ("plan.template", "line 1", "template"),
    ],
)
def test_a_field_is_named_by_its_line(tmp_path: Path, field: str, line: str, where: str) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(PLAN)
    violation = Violation("INVALID_PLAN", f"rollout.{field}", "It cannot be.")
    refused = plan_of(None, file, None, None).refused(InvalidInput("INVALID_PLAN", "No.", violations=(violation,)))
    assert (refused.code, refused.message) == (ExitCode.USAGE, f"{file} is no plan of a rollout.")
    assert [(one.type, one.subject, one.description) for one in refused.reasons] == [(line, where, "It cannot be.")]


def test_all_are_told_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(PLAN)
    fields = ("plan.steps[2]", "plan.steps", "plan.guardrails.abort_alpha", "plan.steps[0]")
    violations = tuple(Violation("INVALID_PLAN", f"rollout.{field}", "No.") for field in fields)
    refused = plan_of(None, file, None, None).refused(InvalidInput("INVALID_PLAN", "No.", violations=violations))
    assert [one.type for one in refused.reasons] == ["line 4", "line 5", "line 6", "line 9"]


def test_what_comes_of_a_template_stands_at_no_line(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text("template: fast\n")
    violation = Violation("INVALID_PLAN", "rollout.plan.steps[3]", "It cannot be.")
    refused = plan_of(None, file, None, None).refused(InvalidInput("INVALID_PLAN", "No.", violations=(violation,)))
    assert [(one.type, one.subject) for one in refused.reasons] == [("the plan", "step 4")]


def test_what_is_not_of_the_plan_is_said_as_it_came(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(PLAN)
    violation = Violation("INVALID_PLAN", "rollout.version", "v1 is active already.")
    error = InvalidInput("INVALID_PLAN", "v1 is active already.", violations=(violation,))
    for asked in (plan_of(None, file, None, None), plan_of("fast", None, None, None)):
        refused = asked.refused(error)
        assert (refused.message, refused.reasons) == ("v1 is active already.", ())
