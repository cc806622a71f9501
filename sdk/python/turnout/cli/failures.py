"""Faults of the client, the command line and the program, as the CommandError that is shown."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from turnout import errors
from turnout.cli.exits import CommandError, ExitCode, Reason
from turnout.cli.suggestions import did_you_mean
from turnout.cli.targets import TARGET_VARIABLE
from turnout.cli.views.runs import LOG_LOST
from turnout.errors import NotFound, TurnoutError, Violation

if TYPE_CHECKING:
    from turnout.client import Client

GATES = ("catch-up", "coverage", "schema", "comparison", "shadow", "rollback")
DEMANDABLE_GATES = ("comparison", "shadow")

_CODES: dict[type[TurnoutError], ExitCode] = {
    errors.InvalidInput: ExitCode.USAGE,
    errors.NotFound: ExitCode.NOT_FOUND,
    errors.AlreadyExists: ExitCode.CONFLICT,
    errors.FailedPrecondition: ExitCode.REFUSED,
    errors.Aborted: ExitCode.CONFLICT,
    errors.OutOfRange: ExitCode.CONFLICT,
    errors.ResourceExhausted: ExitCode.REFUSED,
    errors.DataLoss: ExitCode.INTERNAL,
    errors.Unavailable: ExitCode.UNAVAILABLE,
    errors.DeadlineExceeded: ExitCode.UNAVAILABLE,
    errors.ServerError: ExitCode.INTERNAL,
}
VERSION_MISMATCH = "VERSION_MISMATCH"
VERSION_NOT_FOUND = "VERSION_NOT_FOUND"


def of_client(error: TurnoutError) -> CommandError:
    """The client's error, with its class and, where gates refused, how to go on."""
    code = ExitCode.VERSION_MISMATCH if error.reason == VERSION_MISMATCH else _CODES.get(type(error), ExitCode.INTERNAL)
    step = ""
    if failed_gates(error):
        step = after_gates(error)
    elif error.reason in LOG_LOST:
        step = (
            "`turnout apply FILE` with any change of the file (a comment will do) replays the log as a new version; or "
            "`turnout retire` this version first, where nobody reads it, and apply the file as it is."
        )
    elif isinstance(error, errors.DeadlineExceeded):
        step = "--timeout gives a call longer, such as --timeout 60s."
    elif error.reason in ("NOT_RUNNING", "HOST_UNKNOWN"):
        step = (
            f"If another address was meant, name it: --target HOST:PORT, or else {TARGET_VARIABLE}; without both it is "
            "that of the `turnout dev` which runs in this folder or one above."
        )
    elif error.reason == "ROLLBACK_WINDOW":
        step = "--forgo-rollback gives the way back up."
    elif code is ExitCode.INTERNAL:
        step = "The log of the services tells more."
    said = tuple(one for one in error.violations if one.description.rstrip(".") not in error.message)
    return CommandError(code, error.reason, error.message, next_step=step, reasons=reasons(said))


def failed_gates(error: TurnoutError) -> list[str]:
    """The gates that refused, in their order."""
    return sorted({one.type for one in error.violations} & set(GATES), key=GATES.index)


def after_gates(error: TurnoutError, known: Mapping[str, str] = MappingProxyType({})) -> str:
    """Waiting or mending first; passing over a gate last, and called what it is. known: steps that are better, by
    gate."""
    failed, violations = failed_gates(error), error.violations
    steps = [known[gate] for gate in failed if gate in known]
    if "catch-up" in failed and "catch-up" not in known:
        named = sorted({_subject(one.subject) for one in violations if one.type == "catch-up" and one.subject})
        watch = " and ".join(f"`turnout run watch {subject}`" for subject in named) or "`turnout run watch JOB vN`"
        steps.append(f"{watch} shows when it has caught up, or what its run needs; then repeat this.")
    if what := " and ".join(name for name in failed if name not in ("catch-up", "rollback", *known)):
        steps.append(f"Mend what {what} names and apply that as a new version.")
    if "rollback" in failed:
        steps.append("Mend what rollback names first, such as by `turnout run resume JOB vN`: it is the way back.")
    steps.append(
        f"Only if readers may meet what failed: --override-gates {','.join(failed)} passes over it, and the audit "
        f"keeps that."
    )
    return " ".join(steps)


def reasons(violations: tuple[Violation, ...]) -> tuple[Reason, ...]:
    """The violations of a refusal, their subjects as a person writes them."""
    return tuple(Reason(one.type, _subject(one.subject), one.description) for one in violations)


def _subject(name: str) -> str:
    """`jobs/carrier-punctuality/versions/2` -> `carrier-punctuality v2`."""
    parts = name.split("/")
    if parts[0] == "jobs" and len(parts) >= 4 and parts[2] == "versions":
        return f"{parts[1]} v{parts[3]}"
    return parts[1] if parts[0] == "jobs" and len(parts) >= 2 else name


Named = Mapping[str, Sequence[int | None]]
"""The jobs that a command names, with the versions that it names of each."""


async def explained(client: Client, error: NotFound, named: Named) -> CommandError:
    """What is not there, what there is instead, and how to get it. Asks the services, whose failure changes nothing."""
    plain = of_client(error)
    try:
        known = [one.job async for one in client.list_jobs()]
        missing = {job: await _missing(client, plain, job, versions, known) for job, versions in named.items()}
    except TurnoutError:
        return plain
    found = {job: one for job, one in missing.items() if one is not None}
    if found:
        return next(iter(found.values())) if len(found) == 1 else _all_missing(plain.code, found)
    job = next(iter(named)) if len(named) == 1 else error.metadata.get("job", "JOB")
    if error.reason in ("ROUTE_NOT_FOUND", "JOB_NOT_ROUTED"):
        plain.next_step = f"`turnout cutover {job} vN` makes a version serve readers; `turnout show {job}` lists them."
    elif error.reason == "RUN_NOT_FOUND":
        plain.next_step = "`turnout apply FILE` with the file of this version starts its run."
    return plain


async def _missing(
    client: Client, plain: CommandError, job: str, versions: Sequence[int | None], known: list[str]
) -> CommandError | None:
    """The error where there is no such job, or not such a version of it; None where both are there."""
    if job not in known:
        said = f"There is no job {job!r}{did_you_mean(job, known)}"
        return CommandError(plain.code, "JOB_NOT_FOUND", said, next_step=_jobs_there(job, known))
    asked = [one for one in versions if one is not None]
    if not asked and plain.reason != VERSION_NOT_FOUND:
        return None
    numbers = sorted([one.number async for one in client.list_versions(job)])
    wrong = [one for one in asked if one not in numbers]
    if not wrong and (asked or plain.reason != VERSION_NOT_FOUND):
        return None
    there = ", ".join(f"v{number}" for number in numbers) or "none yet"
    return CommandError(
        plain.code,
        VERSION_NOT_FOUND,
        f"There is no version {f'v{wrong[0]} ' if wrong else ''}of {job}.",
        next_step=f"Its versions: {there}.",
    )


def _all_missing(code: ExitCode, found: Mapping[str, CommandError]) -> CommandError:
    """Of several jobs everything that is not there, so that one need not mend them one by one."""
    named = {one.reason for one in found.values()}
    return CommandError(
        code,
        named.pop() if len(named) == 1 else "NOT_FOUND",
        "Several of what is named are not there; nothing was done.",
        reasons=tuple(Reason(one.reason, job, f"{one.message} {one.next_step}".strip()) for job, one in found.items()),
    )


def _jobs_there(job: str, known: list[str]) -> str:
    if not known:
        return "There is no job at all yet: `turnout apply FILE` registers one."
    if difflib.get_close_matches(job, known, n=1, cutoff=0.6):
        return ""
    return f"Jobs are {', '.join(known[:10])}{' and more' if len(known) > 10 else ''}."


def of_parser(error: Exception) -> CommandError | None:
    """The parser's refusal of the command line; None for an exception of another kind.

    Told by its shape, because the parser's own classes moved between releases of typer.
    """
    words = getattr(error, "format_message", None)
    if words is None or not isinstance(getattr(error, "exit_code", None), int):
        return None
    context = getattr(error, "ctx", None)
    step = f"`{context.command_path} --help` shows how it is written." if context is not None else ""
    return CommandError(ExitCode.USAGE, "USAGE", _in_our_words(str(words()).strip()), next_step=step)


# Some releases of the parser pass on the wording of the library that checks its values.
_WORDING = (
    (re.compile(r"Value error, "), ""),
    (re.compile(r"Input should be greater than or equal to (-?\d+)"), r"it is at least \1."),
    (re.compile(r"Input should be less than or equal to (-?\d+)"), r"it is at most \1."),
    (re.compile(r"Input should be a valid integer.*"), "it is a whole number."),
    (re.compile(r"Input should be a valid number.*"), "it is a number."),
    (re.compile(r"No such option: (-\d+)$"), r"\1 is below 0: give a number from 0 on."),
)


def _in_our_words(said: str) -> str:
    for pattern, ours in _WORDING:
        said = pattern.sub(ours, said)
    return said


def of_program(error: Exception) -> CommandError:
    """A fault of this program."""
    return CommandError(
        ExitCode.INTERNAL,
        "INTERNAL",
        f"turnout failed by a fault of its own: {type(error).__name__}: {error}",
        next_step="Set TURNOUT_TRACEBACK=1 and run it again to see where, and report it with that.",
    )
