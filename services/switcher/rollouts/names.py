"""Names of rollouts and of decisions on them. Pure."""

import re
from typing import Final

from turnout.errors import InvalidInput
from turnout.names import parse_job

_ID: Final = "[a-z](?:[a-z0-9-]{0,40}[a-z0-9])?"
_ROLLOUT: Final = re.compile(rf"(jobs/[^/]+)/rollouts/({_ID})")
_DECISION: Final = re.compile(rf"(jobs/[^/]+)/rollouts/({_ID})/decisions/([1-9][0-9]{{0,8}})")


def rollout_name(job: str, rollout: str) -> str:
    """`jobs/{job}/rollouts/{rollout}`"""
    return f"jobs/{job}/rollouts/{rollout}"


def parse_rollout(name: str) -> tuple[str, str]:
    """The ids of job and rollout in `jobs/{job}/rollouts/{rollout}`; InvalidInput otherwise."""
    match = _ROLLOUT.fullmatch(name)
    if match is None:
        raise _bad(name, "jobs/{job}/rollouts/{rollout}")
    return parse_job(match[1]), match[2]


def parse_decision(name: str) -> tuple[str, str, int]:
    """Job, rollout and number in `jobs/{job}/rollouts/{rollout}/decisions/{decision}`; InvalidInput otherwise."""
    match = _DECISION.fullmatch(name)
    if match is None:
        raise _bad(name, "jobs/{job}/rollouts/{rollout}/decisions/{decision}")
    return parse_job(match[1]), match[2], int(match[3])


def of_a_rollout(name: str) -> bool:
    """Whether this names, or belongs to, a rollout and not an experiment."""
    return "/rollouts/" in name


def _bad(name: str, form: str) -> InvalidInput:
    return InvalidInput(
        "INVALID_NAME", f"{name!r} is not a name of the form {form}; ids have lower-case letters, digits and hyphens."
    )
