"""`turnout check`: what a job file would become, and what it makes of real records. Starts nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from turnout.cli import kafka
from turnout.cli.commands.apply import REFUSED_BY_POSTGRES, active_definition, differences_document, refused
from turnout.cli.commands.parameters import JobFileArgument, KafkaConfigOption, KafkaOption
from turnout.cli.document import document
from turnout.cli.exits import CommandError, ExitCode, usage
from turnout.cli.invocation import command
from turnout.cli.kafka import SampledRecord
from turnout.cli.output import heading, table
from turnout.cli.quantities import plural
from turnout.cli.sample_child import Transformed
from turnout.cli.sample_process import SampleProcess
from turnout.cli.session import Session
from turnout.cli.targets import STACK_DOWN, KafkaClient
from turnout.cli.views.definitions import definition_view, differences_view
from turnout.cli.views.phrases import value_text
from turnout.errors import DeadlineExceeded, TurnoutError, Unavailable
from turnout.job import JobDefinitionError
from turnout.loading import LoadedJob, load_apart
from turnout.results import DefinitionProblem
from turnout.schema import ColumnDifference, JobDefinition, difference

SAMPLE_MAX = 10_000


def register(app: typer.Typer) -> None:
    command(app, "check")(check)


@dataclass(frozen=True, slots=True)
class _Active:
    """What the services say of the file: how it differs from the active version, and what would refuse its run.

    version: None = nothing is active, or `unknown` says why not. problems: None = unknown.
    """

    version: int | None
    differences: tuple[ColumnDifference, ...]
    unknown: str
    problems: tuple[DefinitionProblem, ...] | None = None


@dataclass(frozen=True, slots=True)
class Sampled:
    """A record and what the job makes of it."""

    record: SampledRecord
    result: Transformed

    @property
    def place(self) -> str:
        """`flights/0 offset 12`."""
        return f"{self.record.topic}/{self.record.partition} offset {self.record.offset}"


async def check(
    session: Session,
    file: JobFileArgument,
    sample: Annotated[
        int,
        typer.Option(
            "--sample", min=0, max=SAMPLE_MAX, metavar="N", help="Transform the oldest N records of each partition."
        ),
    ] = 0,
    kafka_address: KafkaOption = "",
    kafka_config: KafkaConfigOption = None,
) -> int:
    """Load a job file and show its table, what differs from the active version, and rows of sample records."""
    if not sample and (kafka_address or kafka_config is not None):
        raise usage("--kafka and --kafka-config are for --sample N: give that too, or leave them out.")
    client = session.kafka(kafka_address, kafka_config) if sample else None
    try:
        loaded = await load_apart(file)
    except JobDefinitionError as error:
        raise refused(error) from None
    active = await _active(session, loaded.definition)
    refused_table = any(one.reason in REFUSED_BY_POSTGRES for one in active.problems or ())
    sampled = None
    if client is not None:
        sampled = await asyncio.to_thread(_sample, file, client, loaded.definition, sample)
    session.output.answer(_document(loaded, active, sampled), *_view(loaded.definition, active, sampled))
    fails = refused_table or any(one.result.failure for one in sampled or ())
    return ExitCode.NOT_SO if fails else ExitCode.OK


async def _active(session: Session, new: JobDefinition) -> _Active:
    """Asks the services; that they do not answer is no fault of the file."""
    try:
        async with session.client() as client:
            version, old = await active_definition(client, new.job)
            problems = await client.check_definition(new)
    except (Unavailable, DeadlineExceeded) as error:
        return _Active(None, (), error.message)
    except CommandError as error:
        if error.reason != STACK_DOWN:
            raise
        return _Active(None, (), error.message)
    except TurnoutError as error:
        return _Active(None, (), f"the services refused to tell: {error.message}")
    return _Active(version, difference(old, new) if old is not None else (), "", problems)


def _sample(file: Path, client: KafkaClient, definition: JobDefinition, per_partition: int) -> list[Sampled]:
    topics = [source.topic for source in definition.topics]
    records = list(kafka.sample(client, topics, per_partition))
    if not records:
        return []
    with SampleProcess(file) as job:
        return [Sampled(record, job.transform(record)) for record in records]


def _document(loaded: LoadedJob, active: _Active, sampled: list[Sampled] | None) -> dict[str, object]:
    return {
        "definition": document(loaded.definition),
        "description": loaded.description,
        "active_version": active.version,
        "active_unknown": active.unknown or None,
        "column_differences": [differences_document(one) for one in active.differences],
        "problems": None if active.problems is None else [document(one) for one in active.problems],
        "sample": None if sampled is None else [_sampled_document(one) for one in sampled],
    }


def _sampled_document(one: Sampled) -> dict[str, object]:
    return {
        "topic": one.record.topic,
        "partition": one.record.partition,
        "offset": one.record.offset,
        "rows": one.result.rows,
        "deleted": one.result.deleted,
        "failure": one.result.failure or None,
    }


def _view(definition: JobDefinition, active: _Active, sampled: list[Sampled] | None) -> list[RenderableType]:
    parts: list[RenderableType] = [definition_view(definition)]
    if active.unknown:
        told = f"Not tried in PostgreSQL, and not compared with the active version: {active.unknown}"
        parts.append(Text(told, style="yellow"))
    elif active.version is not None:
        parts.append(differences_view(active.differences, active.version))
    else:
        parts.append(Text("No version of this job is active yet."))
    if active.problems is not None:
        parts.append(problems_view(active.problems))
    if sampled is not None:
        parts.append(sample_view(sampled))
    return parts


def problems_view(problems: Sequence[DefinitionProblem]) -> RenderableType:
    """What would refuse a run; what PostgreSQL refuses is the file's fault, and nothing is stored of it yet."""
    at_fault = [one.reason in REFUSED_BY_POSTGRES for one in problems]
    taken = [] if any(at_fault) else [Text("PostgreSQL takes the table, its derived columns and its indexes.")]
    told = [
        Text(one.message, style="red" if fault else "yellow") for one, fault in zip(problems, at_fault, strict=True)
    ]
    mend = [Text("Mend the file and check it again.")] if any(at_fault) else []
    return Group(*taken, *told, *mend)


def sample_view(sampled: Sequence[Sampled]) -> RenderableType:
    """Records and their rows, then every failure with its place."""
    if not sampled:
        return Text("The topic holds no record to sample.")
    failed = [one for one in sampled if one.result.failure]
    parts: list[RenderableType] = [
        heading(
            f"{plural(len(sampled), 'sample record')}, {plural(sum(len(one.result.rows) for one in sampled), 'row')}, "
            f"{plural(len(failed), 'failure')}"
        )
    ]
    rows = [(one.place, *(value_text(value) for value in row.values())) for one in sampled for row in one.result.rows]
    first = next((row for one in sampled for row in one.result.rows), None)
    if first is not None:
        parts.append(table(("record", *first), rows))
    parts += [Text(f"{one.place}: deletes {_key(key)}") for one in sampled for key in one.result.deleted]
    parts += [Text(f"{one.place}: {one.result.failure}", style="red") for one in failed]
    return Group(*parts)


def _key(key: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value_text(value)}" for name, value in key.items())
