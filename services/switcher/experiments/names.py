"""Names of experiments and of decisions on them. Pure."""

import re

from turnout.errors import InvalidInput
from turnout.names import parse_job

_ID = "[a-z](?:[a-z0-9-]{0,40}[a-z0-9])?"
_EXPERIMENT = re.compile(rf"(jobs/[^/]+)/experiments/({_ID})")
_DECISION = re.compile(rf"(jobs/[^/]+)/experiments/({_ID})/decisions/([1-9][0-9]{{0,8}})")


def parse_parent(parent: str, *, all_jobs: bool = False) -> str:
    """The job's id in `jobs/{job}`, or "-" where those of all jobs may be asked for. InvalidInput otherwise."""
    return "-" if all_jobs and parent == "jobs/-" else parse_job(parent)


def parse_experiment(name: str) -> tuple[str, str]:
    """The ids of job and experiment in `jobs/{job}/experiments/{experiment}`; InvalidInput otherwise."""
    match = _EXPERIMENT.fullmatch(name)
    if match is None:
        raise _bad(name, "jobs/{job}/experiments/{experiment}")
    return parse_job(match[1]), match[2]


def parse_decision(name: str) -> tuple[str, str, int]:
    """Job, experiment and number in `jobs/{job}/experiments/{experiment}/decisions/{decision}`; else InvalidInput."""
    match = _DECISION.fullmatch(name)
    if match is None:
        raise _bad(name, "jobs/{job}/experiments/{experiment}/decisions/{decision}")
    return parse_job(match[1]), match[2], int(match[3])


def _bad(name: str, form: str) -> InvalidInput:
    return InvalidInput(
        "INVALID_NAME", f"{name!r} is not a name of the form {form}; ids have lower-case letters, digits and hyphens."
    )
