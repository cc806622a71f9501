"""Which number code gets: the number of the version it already is, or the next one."""

from collections.abc import Sequence
from dataclasses import dataclass

from turnout.errors import FailedPrecondition
from turnout.log_range import LogRange


@dataclass(frozen=True, slots=True)
class Known:
    """A stored version by what makes it the same: artefact, definition, and range of the log (None = all of it)."""

    number: int
    artifact_digest: str
    definition_json: str
    log_range: LogRange | None = None


@dataclass(frozen=True, slots=True)
class Numbered:
    """The number, and whether it is new."""

    number: int
    created: bool


def number(
    registered: Sequence[Known],
    last_number: int,
    artifact_digest: str,
    definition_json: str,
    expected: int,
    log_range: LogRange | None = None,
) -> Numbered:
    """The number of this code with this range of the log among the job's versions.

    registered: the versions that are REGISTERED, newest first; the same artefact, definition and range is that version,
    of several the expected one, else the newest. last_number: the highest ever given. expected: 0 = any;
    FailedPrecondition (VERSION_MISMATCH) otherwise.
    """
    wanted = (artifact_digest, definition_json)
    code = [known for known in registered if (known.artifact_digest, known.definition_json) == wanted]
    same = [known.number for known in code if known.log_range == log_range]
    if same:
        result = Numbered(expected if expected in same else same[0], created=False)
        why = f"this code is v{result.number}, unchanged"
    else:
        result = Numbered(last_number + 1, created=True)
        why = f"this code would be v{result.number}"
        if any(known.number == expected for known in code):
            why = f"this code has another range of the log than v{expected} and would be v{result.number}"
        elif any(known.number == expected for known in registered):
            why = f"this code differs from v{expected} and would be v{result.number}"
        elif expected <= last_number:
            why = f"v{expected} is retired or being retired, and this code would be v{result.number}"
    if expected in (0, result.number):
        return result
    raise FailedPrecondition(
        "VERSION_MISMATCH",
        f"v{expected} was expected, but {why}. Nothing was stored; apply without the number to register it.",
        metadata={"expected": str(expected), "number": str(result.number)},
    )
