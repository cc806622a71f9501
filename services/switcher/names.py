"""Names of experiments and rollouts, and of decisions on them. Pure."""

import re
from typing import Final

from turnout.errors import InvalidInput
from turnout.names import parse_job

_ID: Final = "[a-z](?:[a-z0-9-]{0,40}[a-z0-9])?"


class Collection:
    """Things of one kind that a job has, and that decisions are kept on."""

    def __init__(self, kind: str) -> None:
        self._word = f"{kind}s"
        self._form = f"jobs/{{job}}/{kind}s/{{{kind}}}"
        self._one = re.compile(rf"(jobs/[^/]+)/{kind}s/({_ID})")
        self._decision = re.compile(rf"(jobs/[^/]+)/{kind}s/({_ID})/decisions/([1-9][0-9]{{0,8}})")

    def name(self, job: str, one: str) -> str:
        """Such as `jobs/{job}/rollouts/{rollout}`."""
        return f"jobs/{job}/{self._word}/{one}"

    def parse(self, name: str) -> tuple[str, str]:
        """The ids of the job and of the one thing; InvalidInput otherwise."""
        match = self._one.fullmatch(name)
        if match is None:
            raise self._bad(name, self._form)
        return parse_job(match[1]), match[2]

    def parse_decision(self, name: str) -> tuple[str, str, int]:
        """The ids of job and thing, and the number, in `.../decisions/{decision}`; InvalidInput otherwise."""
        match = self._decision.fullmatch(name)
        if match is None:
            raise self._bad(name, f"{self._form}/decisions/{{decision}}")
        return parse_job(match[1]), match[2], int(match[3])

    def holds(self, name: str) -> bool:
        """Whether this names, or belongs to, a thing of this kind."""
        return f"/{self._word}/" in name

    def _bad(self, name: str, form: str) -> InvalidInput:
        match = re.fullmatch(rf"jobs/[^/]+/{self._word}/(.*?)(?:/decisions/[^/]*)?", name, re.DOTALL)
        if match is None or re.fullmatch(_ID, match[1]):
            return InvalidInput("INVALID_NAME", f"{name!r} is not a name of the form {form}.")
        return InvalidInput(
            "INVALID_NAME",
            f"{match[1]!r} cannot name an experiment or a rollout: give up to 42 lower-case letters, digits and "
            f"hyphens, a letter first and no hyphen last.",
        )


EXPERIMENTS: Final = Collection("experiment")
ROLLOUTS: Final = Collection("rollout")


def parse_parent(parent: str, *, all_jobs: bool = False) -> str:
    """The job's id in `jobs/{job}`, or "-" where those of all jobs may be asked for. InvalidInput otherwise."""
    return "-" if all_jobs and parent == "jobs/-" else parse_job(parent)
