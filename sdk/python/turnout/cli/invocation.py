"""How a function becomes a command: options that all commands share, before or after its name, and its session."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import typer

from turnout.cli import arguments
from turnout.cli.exits import usage
from turnout.cli.output import Format, Output
from turnout.cli.session import Session

F = TypeVar("F", bound=Callable[..., Any])

_PANEL = "Options of every command"
OutputOption = Annotated[
    Format | None, typer.Option("--output", "-o", help="text, or json for programs.", rich_help_panel=_PANEL)
]
TargetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="[SERVICE=]HOST:PORT",
        rich_help_panel=_PANEL,
        help="Where the services are; SERVICE=HOST:PORT for one of them, repeated.",
    ),
]
ActorOption = Annotated[
    str | None,
    typer.Option("--actor", metavar="NAME", help="Who asks, for the audit; else user@host.", rich_help_panel=_PANEL),
]
TimeoutOption = Annotated[
    str | None,
    typer.Option("--timeout", metavar="DURATION", help="Deadline of each call, such as 30s.", rich_help_panel=_PANEL),
]


@dataclass(frozen=True, slots=True)
class Shared:
    """The shared options as given in one place; None and () = not given there."""

    output: Format | None
    target: tuple[str, ...]
    actor: str | None
    timeout: str | None

    def over(self, outer: Shared) -> Shared:
        """These, and the outer ones where these say nothing."""
        return Shared(
            self.output or outer.output,
            self.target or outer.target,
            outer.actor if self.actor is None else self.actor,
            outer.timeout if self.timeout is None else self.timeout,
        )

    def session(self) -> Session:
        """The session that they describe."""
        timeout_s = None
        if self.timeout is not None:
            timeout_s = arguments.duration(self.timeout).total_seconds()
            if timeout_s <= 0:
                raise usage("--timeout must be longer than nothing.")
        return Session(Output(self.output or Format.TEXT, sys.stdout, sys.stderr), self.target, self.actor, timeout_s)


NOTHING_GIVEN = Shared(None, (), None, None)
_SHARED = {"output": OutputOption, "target": TargetOption, "actor": ActorOption, "timeout": TimeoutOption}


def shared(output: Format | None, target: Sequence[str] | None, actor: str | None, timeout: str | None) -> Shared:
    """The shared options from the parser's values."""
    return Shared(output, tuple(target or ()), actor, timeout)


def _group(declared: inspect.Parameter) -> type[Any] | None:
    """The class of a group of options; None where the parameter is one by itself."""
    kind = declared.annotation
    return kind if isinstance(kind, type) and dataclasses.is_dataclass(kind) else None


def _options(declared: inspect.Parameter) -> Iterable[inspect.Parameter]:
    group = _group(declared)
    return (declared,) if group is None else inspect.signature(group, eval_str=True).parameters.values()


def command(app: typer.Typer, name: str, *, negative_numbers: bool = False) -> Callable[[F], F]:
    """Registers a function whose first parameter is the Session; the others are the command's arguments and options.

    A parameter that is a dataclass stands for an option each of its fields. The function may be a coroutine. What it
    returns is the exit code, None = 0. negative_numbers: an argument such as -5 is a number and no option that is
    unknown.
    """

    def register(function: F) -> F:
        declared = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        groups = {one.name: group for one in declared if (group := _group(one)) is not None}
        own = [option for one in declared for option in _options(one)]

        def invoke(**given: Any) -> int:
            context = given.pop("context")
            inner = shared(**{option: given.pop(option) for option in _SHARED})
            session = inner.over(context.obj or NOTHING_GIVEN).session()
            for name, group in groups.items():
                given[name] = group(**{field.name: given.pop(field.name) for field in dataclasses.fields(group)})
            result = function(session, **given)
            if inspect.iscoroutine(result):
                result = asyncio.run(result)
            return int(result or 0)

        parameters = [
            inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
            *(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own),
            *(
                inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
                for option, annotation in _SHARED.items()
            ),
        ]
        invoke.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        invoke.__annotations__ = {}
        invoke.__doc__ = function.__doc__
        app.command(name, context_settings={"ignore_unknown_options": negative_numbers})(invoke)
        return function

    return register
