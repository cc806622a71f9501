"""Resource names: what parses, and what the refusal says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout import names
from turnout.errors import InvalidInput
from turnout.names import VersionId

JOB = st.from_regex(r"[a-z]([a-z0-9]{0,20}(-[a-z0-9]{1,10})?)?", fullmatch=True)


@given(JOB, st.integers(1, 999_999_999))
def test_a_version_round_trips_through_each_of_its_names(job: str, number: int) -> None:
    version = VersionId(job, number)
    assert names.parse_version(version.name) == version
    assert names.parse_run(version.run_name) == version
    assert names.parse_job(version.job_name) == job
    assert names.parse_route(version.route_name) == job


PARSERS = {
    names.parse_job: "jobs/a",
    names.parse_version: "jobs/a/versions/1",
    names.parse_run: "jobs/a/versions/1/run",
    names.parse_route: "jobs/a/route",
}


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize(
    "name",
    [
        *PARSERS.values(),
        "",
        "jobs",
        "jobs/",
        "jobs//versions/1",
        "job/a",
        "jobs/A",
        "jobs/a--b",
        "jobs/-a",
        "jobs/a/versions/0",
        "jobs/a/versions/01",
        "jobs/a/versions/-1",
        "jobs/a/versions/v1",
        "jobs/a/versions/1/route",
        "jobs/a/run",
        "jobs/a/versions/1/run/",
        " jobs/a",
        "jobs/a\n",
        "jobs/" + "a" * 43,
    ],
)
def test_only_its_own_form_parses(parse: object, name: str) -> None:
    assert callable(parse)
    if PARSERS.get(parse) == name:
        parse(name)
        return
    with pytest.raises(InvalidInput) as caught:
        parse(name)
    assert caught.value.reason == "INVALID_NAME"
    assert caught.value.message.endswith(".")
