"""The tree of commands, and what becomes of their errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any

import typer

from turnout import otlp
from turnout.cli import failures
from turnout.cli.commands import (
    apply,
    audit,
    capacity,
    check,
    compare,
    decisions,
    dev,
    experiment,
    produce,
    read,
    rollout,
    run,
    shadow,
    show,
    traffic,
    versions,
)
from turnout.cli.exits import CommandError, ExitCode, usage
from turnout.cli.invocation import ActorOption, OutputOption, TargetOption, TimeoutOption, shared
from turnout.cli.output import Format, Output
from turnout.errors import TurnoutError

app = typer.Typer(
    name="turnout",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    help="Change the code of a stream job on Kafka without one wrong read.",
    epilog="Exit codes and an example of each command: docs/cli.md.",
)
dev.register(app)
check.register(app)
apply.register(app)
show.register(app)
run.register(app)
capacity.register(app)
traffic.register(app)
compare.register(app)
shadow.register(app)
audit.register(app)
experiment.register(app)
rollout.register(app)
decisions.register(app)
versions.register(app)
read.register(app)
produce.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"turnout {version('turnout')}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    output: OutputOption = None,
    target: TargetOption = None,
    actor: ActorOption = None,
    timeout: TimeoutOption = None,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show turnout's own version.")
    ] = False,
) -> None:
    context.obj = shared(output, target, actor, timeout)


def run_command_line(given: list[str]) -> int:
    """Run one command; its exit code, never an exception unless TURNOUT_TRACEBACK asks for it."""
    try:
        code = _traced(given) if otlp.wanted() else app(given, prog_name="turnout", standalone_mode=False)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`| head`); what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except Exception as error:
        if os.environ.get("TURNOUT_TRACEBACK"):
            raise
        failure = _failure(error)
        if not failure.message:  # a group without a command: the parser has already shown its help
            return failure.code
        Output(_wanted_format(given), sys.stdout, sys.stderr).fail(failure)
        return failure.code
    return int(code or 0)


def _traced(given: list[str]) -> Any:
    """The command as the first span of its trace, whose name holds no argument."""
    from opentelemetry import trace

    try:
        flush = otlp.export_spans("turnout-cli")
    except ImportError as error:
        raise usage(str(error)) from None
    try:
        with trace.get_tracer("turnout.cli").start_as_current_span(f"turnout {given[0] if given else ''}".strip()):
            return app(given, prog_name="turnout", standalone_mode=False)
    finally:
        flush()


def _failure(error: Exception) -> CommandError:
    if isinstance(error, CommandError):
        return error
    if isinstance(error, TurnoutError):
        return failures.of_client(error)
    return failures.of_parser(error) or failures.of_program(error)


def _wanted_format(given: Sequence[str]) -> Format:
    """Also for errors that came before the options were parsed."""
    for option, value in zip(given, [*given[1:], ""], strict=True):
        if option in ("-ojson", "--output=json", "-o=json") or (option in ("-o", "--output") and value == "json"):
            return Format.JSON
    return Format.TEXT
