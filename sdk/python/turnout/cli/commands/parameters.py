"""Arguments and options that several commands take."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from turnout.cli import targets
from turnout.cli.contracts import contract_of
from turnout.cli.exits import CommandError, usage
from turnout.cli.failures import DEMANDABLE_GATES, GATES
from turnout.cli.suggestions import did_you_mean
from turnout.contract import Contract
from turnout.errors import TurnoutError

_COMPLETION_S = 2.0


def complete_job(incomplete: str) -> list[str]:
    """Names of jobs for the shell; none when the services do not answer."""
    try:
        found = targets.targets((), os.environ, Path.cwd())
        return [job for job in asyncio.run(_jobs(found)) if job.startswith(incomplete)]
    except (TurnoutError, CommandError):
        return []


async def _jobs(found: Mapping[str, str]) -> list[str]:
    from turnout.client import Client

    async with Client(targets=found, timeout_s=_COMPLETION_S) as client:
        return [job.job async for job in client.list_jobs()]


def gates(given: list[str] | None) -> list[str]:
    """Names of gates, given one by one or parted by commas."""
    names = [name.strip() for text in given or [] for name in text.split(",") if name.strip()]
    for name in names:
        if name not in GATES:
            raise usage(f"There is no gate {name!r}{did_you_mean(name, GATES)} Gates are {', '.join(GATES)}.")
    return names


def required_gates(given: list[str] | None) -> list[str]:
    """Names of gates that are to be asked beyond those that always are."""
    names = gates(given)
    for name in names:
        if name not in DEMANDABLE_GATES:
            raise usage(f"The gate {name} needs no demand; these can be demanded: {', '.join(DEMANDABLE_GATES)}.")
    return names


JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Name of the job.", autocompletion=complete_job)]
VersionArgument = Annotated[str, typer.Argument(metavar="vN", help="Version, such as v2 or 2.")]
GatesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--override-gates",
        metavar="GATE[,GATE]",
        help=f"Pass over these gates ({', '.join(GATES)}); the audit keeps it.",
    ),
]
RequireOption = Annotated[
    list[str] | None,
    typer.Option(
        "--require-gates",
        metavar="GATE[,GATE]",
        help="Ask these gates too: comparison, that a stored comparison shows nothing unexpected; shadow, that live "
        "reads were compared and do not differ.",
    ),
]
OwnerOption = Annotated[
    bool,
    typer.Option(
        "--override-owner",
        help="Also while an experiment or a rollout owns the route; the audit keeps it.",
    ),
]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the audit.")]
PRIORITY_MAX = 100
KafkaOption = Annotated[
    str, typer.Option("--kafka", metavar="HOST:PORT", help="Kafka; else TURNOUT_KAFKA, else that of `turnout dev`.")
]
KafkaConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--kafka-config",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="Kafka, by a file of client properties (security.protocol, sasl.*, ssl.*).",
    ),
]
JobFileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", exists=True, help="A job file, or a folder that is one job.")
]


@dataclass(frozen=True, slots=True)
class ContractOptions:
    """What may differ between two tables."""

    contract: Annotated[
        Path | None,
        typer.Option(
            "--contract", metavar="FILE", exists=True, dir_okay=False, help="What may differ and what must, as TOML."
        ),
    ] = None
    expect: Annotated[
        list[str] | None,
        typer.Option(
            "--expect",
            metavar="WHAT[=SHARE]",
            help="A column, only-old or only-new must differ; in at most that share of the rows, such as 20%.",
        ),
    ] = None
    may_differ: Annotated[
        list[str] | None, typer.Option("--may-differ", metavar="WHAT[=SHARE]", help="The same, but it need not differ.")
    ] = None
    tolerance: Annotated[
        list[str] | None,
        typer.Option("--tolerance", metavar="COLUMN=BY", help="What counts as equal: a number such as 0.01, or 1%."),
    ] = None
    share_max: Annotated[
        str | None, typer.Option("--share-max", metavar="SHARE", help="Of all rows may differ in any way.")
    ] = None
    same: Annotated[bool, typer.Option("--same", help="Nothing may differ.")] = False

    def judged_by(self) -> Contract | None:
        """The contract that they say; None = nothing was given."""
        return contract_of(
            self.contract,
            self.expect or [],
            self.may_differ or [],
            self.tolerance or [],
            self.share_max,
            same=self.same,
        )
