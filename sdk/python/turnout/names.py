"""Resource names: `jobs/{job}`, `jobs/{job}/versions/{number}`, and what hangs on them."""

import re
from dataclasses import dataclass

from turnout.errors import InvalidInput
from turnout.schema import check_job_id

_NAME = re.compile(r"jobs/(?P<job>[^/]+)(?:/versions/(?P<number>[1-9][0-9]{0,8}))?(?:/(?P<tail>run|route))?")


@dataclass(frozen=True, slots=True, order=True)
class VersionId:
    """A version of a job."""

    job: str
    number: int

    @property
    def name(self) -> str:
        return f"jobs/{self.job}/versions/{self.number}"

    @property
    def job_name(self) -> str:
        return job_name(self.job)

    @property
    def run_name(self) -> str:
        return f"{self.name}/run"

    @property
    def route_name(self) -> str:
        return route_name(self.job)

    def __str__(self) -> str:
        return f"{self.job} v{self.number}"


def job_name(job: str) -> str:
    """The resource name of a job."""
    return f"jobs/{job}"


def route_name(job: str) -> str:
    """The resource name of a job's route."""
    return f"jobs/{job}/route"


def parse_job(name: str) -> str:
    """The job's id in `jobs/{job}`; InvalidInput otherwise."""
    job, number, tail = _parts(name, "jobs/{job}")
    if number is not None or tail is not None:
        raise _bad(name, "jobs/{job}")
    return job


def parse_version(name: str) -> VersionId:
    """The version in `jobs/{job}/versions/{number}`; InvalidInput otherwise."""
    job, number, tail = _parts(name, "jobs/{job}/versions/{number}")
    if number is None or tail is not None:
        raise _bad(name, "jobs/{job}/versions/{number}")
    return VersionId(job, number)


def parse_run(name: str) -> VersionId:
    """The version whose run is `jobs/{job}/versions/{number}/run`; InvalidInput otherwise."""
    job, number, tail = _parts(name, "jobs/{job}/versions/{number}/run")
    if number is None or tail != "run":
        raise _bad(name, "jobs/{job}/versions/{number}/run")
    return VersionId(job, number)


def parse_route(name: str) -> str:
    """The id of the job whose route is `jobs/{job}/route`; InvalidInput otherwise."""
    job, number, tail = _parts(name, "jobs/{job}/route")
    if number is not None or tail != "route":
        raise _bad(name, "jobs/{job}/route")
    return job


def _parts(name: str, expected: str) -> tuple[str, int | None, str | None]:
    match = _NAME.fullmatch(name)
    if match is None:
        raise _bad(name, expected)
    try:
        check_job_id(match["job"])
    except ValueError as error:
        raise InvalidInput("INVALID_NAME", f"{error}.", metadata={"name": name}) from None
    number = match["number"]
    return match["job"], None if number is None else int(number), match["tail"]


def _bad(name: str, expected: str) -> InvalidInput:
    return InvalidInput("INVALID_NAME", f"{name!r} is not a name of the form {expected}.", metadata={"name": name})
