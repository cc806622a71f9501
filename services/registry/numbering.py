"""Which number code gets: the number of the version it already is, or the next one."""

from dataclasses import dataclass

from core.domain.errors import FailedPrecondition


@dataclass(frozen=True, slots=True)
class Known:
    """A stored version by what makes code the same: artefact and definition."""

    number: int
    artifact_digest: str
    definition_json: str


@dataclass(frozen=True, slots=True)
class Numbered:
    """The number, and whether it is new."""

    number: int
    created: bool


def number(live: Known | None, last_number: int, artifact_digest: str, definition_json: str, expected: int) -> Numbered:
    """The number of this code among the job's versions.

    live: the newest version that is neither RETIRED nor DROPPED; the same artefact and definition is that version.
    last_number: the highest ever given. expected: 0 = any; FailedPrecondition (VERSION_MISMATCH) otherwise.
    """
    if live is not None and (live.artifact_digest, live.definition_json) == (artifact_digest, definition_json):
        result = Numbered(live.number, created=False)
        why = f"this code is v{live.number}, unchanged"
    else:
        result = Numbered(last_number + 1, created=True)
        differs = f"differs from v{expected} and " if expected <= last_number else ""
        why = f"this code {differs}would be v{result.number}"
    if expected in (0, result.number):
        return result
    raise FailedPrecondition(
        "VERSION_MISMATCH",
        f"v{expected} was expected, but {why}. Nothing was stored; apply without the number to register it.",
        metadata={"expected": str(expected), "number": str(result.number)},
    )
