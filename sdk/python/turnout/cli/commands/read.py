"""`turnout read` and `turnout explain`: rows as readers get them, and why they get them from that version."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.text import Text

from turnout.cli import arguments
from turnout.cli.arguments import KeyValue
from turnout.cli.commands.parameters import JobArgument
from turnout.cli.document import document
from turnout.cli.exits import ExitCode, usage
from turnout.cli.invocation import command
from turnout.cli.quantities import plural
from turnout.cli.session import Session
from turnout.cli.suggestions import did_you_mean
from turnout.cli.views.routes import explanation_view
from turnout.cli.views.tables import read_view, retired_text, rows_view, served_text
from turnout.reading.limits import SCAN_ROWS_MAX
from turnout.results import Read, Version, VersionState
from turnout.schema import JobDefinition

if TYPE_CHECKING:
    from turnout.client import Client

SCAN_ROWS = 100
TEXT_ROWS_MAX = 1_000_000  # that are held to be aligned
UnitOption = Annotated[
    str | None, typer.Option("--unit", metavar="U", help="What readers are split by, such as a user id.")
]


def register(app: typer.Typer) -> None:
    command(app, "read")(read)
    command(app, "explain")(explain)


async def read(
    session: Session,
    job: JobArgument,
    key: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY]...", help="The row's key, in the order of the key columns.")
    ] = None,
    named_key: Annotated[
        list[str] | None, typer.Option("--key", metavar="COLUMN=VALUE", help="A key column by name; repeated.")
    ] = None,
    unit: UnitOption = None,
    version: Annotated[
        str | None, typer.Option("--version", metavar="vN", help="This version, whatever the route says.")
    ] = None,
    scan: Annotated[bool, typer.Option("--scan", help="Read many rows of one version.")] = False,
    order_by: Annotated[
        list[str] | None, typer.Option("--order-by", metavar="COLUMN[:desc]", help="With --scan; repeated.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            min=1,
            max=SCAN_ROWS_MAX,
            metavar="N",
            help=f"With --scan: most rows, {SCAN_ROWS} unless told; up to {TEXT_ROWS_MAX:,} as text.",
        ),
    ] = None,
) -> int:
    """Read one row by its key, or many with --scan, from the version that the route gives."""
    number = arguments.version_number(version) if version is not None else None
    if unit is not None and number is not None:
        raise usage("--version names the version that --unit would choose: give one of them.")
    if scan:
        if key or named_key:
            raise usage("--scan reads many rows: leave out the key, or leave out --scan.")
        return await _scan(session, job, unit, number, arguments.order_by(order_by or ()), limit or SCAN_ROWS)
    if order_by or limit is not None:
        raise usage("--order-by and --limit belong to --scan.")
    if bool(key) == bool(named_key):
        raise usage("Name one row, by the values of its key or by --key COLUMN=VALUE; or read many with --scan.")
    async with session.client(job, number) as client:
        read_from = await _version(client, job, number)
        values = _key(read_from.definition, key or [], named_key or [])
        found = await client.get(job, values, unit=unit, version=number)
    answer = document(found)
    assert isinstance(answer, dict)
    session.output.answer({**answer, "version_state": read_from.state if number else None}, read_view(found))
    _tell_if_retired(session, read_from)
    return ExitCode.OK if found.row is not None else ExitCode.NOT_FOUND


async def _version(client: Client, job: str, version: int | None) -> Version:
    """The version that is named, else the active one. It tells the types of the key, which all versions behind a route
    share."""
    number = version if version is not None else (await client.route(job)).active_version
    return await client.get_version(job, number)


def _tell_if_retired(session: Session, version: Version) -> None:
    """A table that stays to be looked at for a while looks like any other."""
    if version.state is not VersionState.REGISTERED:
        session.output.note(retired_text(version))


def _key(definition: JobDefinition, texts: list[str], named: list[str]) -> dict[str, KeyValue]:
    return _named(definition, arguments.key_columns(named)) if named else _positional(definition, texts)


def _positional(definition: JobDefinition, texts: list[str]) -> dict[str, KeyValue]:
    if len(texts) != len(definition.key):
        given = f"{plural(len(texts), 'value')} {'was' if len(texts) == 1 else 'were'} given"
        raise usage(
            f"The key of {definition.job} has {plural(len(definition.key), 'column')} "
            f"({', '.join(definition.key)}), and {given}."
        )
    return {
        name: arguments.key_value(name, definition.column(name).type, text)
        for name, text in zip(definition.key, texts, strict=True)
    }


def _named(definition: JobDefinition, texts: dict[str, str]) -> dict[str, KeyValue]:
    for name in texts:
        if name not in definition.key:
            raise usage(
                f"--key: {name!r} is no key column of {definition.job}{did_you_mean(name, definition.key)} "
                f"Its key is {', '.join(definition.key)}."
            )
    missing = [name for name in definition.key if name not in texts]
    if missing:
        raise usage(
            f"--key: {', '.join(missing)} is missing. The key of {definition.job} is {', '.join(definition.key)}."
        )
    return {name: arguments.key_value(name, definition.column(name).type, texts[name]) for name in definition.key}


async def _scan(
    session: Session, job: str, unit: str | None, version: int | None, orders: list[tuple[str, bool]], limit: int
) -> int:
    if limit > TEXT_ROWS_MAX and not session.output.is_json:
        raise usage(f"As text at most {TEXT_ROWS_MAX:,} rows are shown: with -o json they come one by one.")
    names = [f"-{column}" if descending else column for column, descending in orders]
    reads: list[Read] = []
    async with session.client(job, version) as client:
        if version is not None:
            _tell_if_retired(session, await client.get_version(job, version))
        found = client.scan(job, order_by=names, limit=limit, unit=unit, version=version)
        async with aclosing(found) as rows:
            async for one in rows:
                if session.output.is_json:
                    session.output.line({"row": document(one.row), "version": one.version, "epoch": one.epoch})
                else:
                    reads.append(one)
    if session.output.is_json:
        return ExitCode.OK
    view = rows_view([one.row for one in reads if one.row is not None])
    if reads:
        said = f"{plural(len(reads), 'row')} of {served_text(reads[0])}"
        if len(reads) == limit:
            said += f"; there may be more, --limit shows up to {TEXT_ROWS_MAX:,}"
        view = Group(view, Text(said, style="dim"))
    session.output.say(view)
    return ExitCode.OK


async def explain(
    session: Session,
    job: JobArgument,
    unit: Annotated[str, typer.Option("--unit", metavar="U", help="What readers are split by, such as a user id.")],
) -> None:
    """Tell which version a unit reads, and why; reads no table."""
    if not unit:
        raise usage("--unit is empty: name what the reader is split by, such as a user id.")
    async with session.client(job) as client:
        found = await client.explain(job, unit=unit)
    session.output.answer(document(found), explanation_view(found))
