"""The docs are true where a test can tell: links, records, settings, and every snippet that can be run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from core import config
from core.rpc import interceptors
from services.replayer import metrics
from turnout import rollout_file
from turnout.reading import metrics as front
from turnout.reading import reads, shadows
from turnout.rollouts import TEMPLATES, RolloutState, StepKind

REPOSITORY = Path(__file__).parent.parent.parent
PAGES = sorted(
    [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md"), *(REPOSITORY / "examples").rglob("*.md")]
)
_LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(#[^)\s]+)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    for path, anchor in _LINK.findall(page.read_text(encoding="utf-8")):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {path}"
        if anchor:
            assert anchor[1:] in anchors(target), f"{page.name} links to {path}{anchor}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as forges make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_decision_record_is_in_the_index() -> None:
    directory = REPOSITORY / "docs" / "adr"
    index = (directory / "README.md").read_text(encoding="utf-8")
    records = sorted(path.name for path in directory.glob("[0-9]*.md"))
    assert records == sorted(re.findall(r"\]\(([0-9][^)]+)\)", index))


def test_every_setting_of_the_services_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    page = (REPOSITORY / "docs" / "operate.md").read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        config.parse(["--help"])
    flags = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)) - {"--help"}
    documented = set(re.findall(r"`(--[a-z][a-z-]+)", page))
    assert flags - documented == set()
    assert config.POSTGRES_VARIABLE in page


def test_every_metric_is_documented_as_it_is() -> None:
    page = (REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(turnout\.[a-z_.]+)` \| (\w+) \| `([^`]+)` \|", page, re.MULTILINE))
    told = {(one.name, "counter" if one.counter else "gauge", one.unit) for one in (*metrics.RUN, *metrics.PARTITION)}
    others = {
        (metrics.UNTOLD, "gauge", "{partition}"),
        (interceptors.REFUSED, "counter", "{call}"),
        (reads.STAND_INS, "counter", "{read}"),
        (shadows.READS, "counter", "{read}"),
    }
    fronts = {(front.AGE, "gauge", "s"), (front.FRESHNESS, "gauge", "1"), (front.REVISION, "gauge", "1")}
    assert documented == told | others | fronts
    assert f"At most {metrics.PARTITIONS_MAX} partitions" in page


def test_the_job_in_the_readme_is_the_one_in_the_examples() -> None:
    [snippet] = re.findall(r"```python\n(class Flight.+?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    example = (REPOSITORY / "examples" / "flights" / "carrier_punctuality_v2.py").read_text(encoding="utf-8")
    assert words(snippet) <= words(example)


def test_the_plan_in_the_docs_is_one_and_has_every_key_that_there_is() -> None:
    page = (REPOSITORY / "docs" / "rollouts.md").read_text(encoding="utf-8")
    [snippet] = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert {step.kind for step in rollout_file.parse(snippet).steps} == set(StepKind) - {StepKind.SHADOW}
    keys = set(re.findall(r"`([a-z-]+)[:`]", page))
    assert keys >= {
        *rollout_file.PARTS,
        *rollout_file.GUARDRAILS,
        *rollout_file.OPTIONS,
        *rollout_file.STEPS,
        *TEMPLATES,
    }


def test_every_state_of_a_rollout_is_explained() -> None:
    page = (REPOSITORY / "docs" / "rollouts.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", page, re.MULTILINE)) == set(RolloutState)


def words(code: str) -> set[str]:
    """The words of code without its comments, so that it may be laid out in another way."""
    return set(re.findall(r"\w+|[^\w\s]+?", re.sub(r"#.*", "", code)))


def test_the_test_of_a_job_in_the_docs_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (REPOSITORY / "docs" / "jobs.md").read_text(encoding="utf-8")
    [snippet] = re.findall(r"```python\n(.*?test_a_cancelled.*?)```", page, re.DOTALL)
    monkeypatch.syspath_prepend(REPOSITORY / "examples" / "flights")
    names: dict[str, object] = {}
    exec(compile(snippet, "docs/jobs.md", "exec"), names)
    run = names["test_a_cancelled_flight_is_not_on_time"]
    assert callable(run)
    run()
