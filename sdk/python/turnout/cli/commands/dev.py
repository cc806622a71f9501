"""`turnout dev`: hands over to the local stack, which the distribution turnout-server brings."""

from __future__ import annotations

import importlib.metadata
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from turnout.addresses import DEFAULT_PORT, PORT_MAX
from turnout.cli.exits import CommandError, ExitCode, usage
from turnout.cli.invocation import command
from turnout.cli.session import Session


def register(app: typer.Typer) -> None:
    command(app, "dev")(dev)


def dev(
    session: Session,
    data_dir: Annotated[Path, typer.Option("--data-dir", metavar="DIR", help="Data and logs.")] = Path(".turnout"),
    port: Annotated[
        int, typer.Option("--port", min=1, max=PORT_MAX, metavar="PORT", help="Port of the services.")
    ] = DEFAULT_PORT,
    kafka: Annotated[
        str | None, typer.Option("--kafka", metavar="HOST:PORT", help="Your own Kafka, not the embedded one.")
    ] = None,
    kafka_config: Annotated[
        Path | None,
        typer.Option(
            "--kafka-config",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="The same, by a file of client properties.",
        ),
    ] = None,
    postgres: Annotated[
        str | None,
        typer.Option(
            "--postgres", metavar="URL", help="Your own PostgreSQL; with a password better in TURNOUT_POSTGRES."
        ),
    ] = None,
) -> int:
    """Run Kafka, PostgreSQL and the services on this machine until Ctrl-C; the data stay."""
    if session.output.is_json:
        raise usage("`turnout dev` runs until Ctrl-C and tells a person what it does: leave out --output json.")
    if not _server_installed():
        raise CommandError(
            ExitCode.USAGE,
            "SERVER_NOT_INSTALLED",
            "`turnout dev` runs the services, and turnout-server is not installed in this Python.",
            next_step="Install it: pip install 'turnout-server[local]'.",
        )
    options: list[str] = ["--data-dir", str(data_dir), "--port", str(port)]
    for name, value in (("--kafka", kafka), ("--kafka-config", kafka_config), ("--postgres", postgres)):
        if value is not None:
            options += [name, str(value)]
    # -P: a folder "deploy" in the current directory is not ours.
    return run_in_foreground([sys.executable, "-P", "-m", "deploy.local", *options])


def _server_installed() -> bool:
    try:
        importlib.metadata.version("turnout-server")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def run_in_foreground(arguments: list[str]) -> int:
    """Run a child to its end and return its status, 128 + n for a signal n.

    Ctrl-C reaches the child from the terminal, so this process only has to stay; SIGTERM and SIGHUP, which are sent to
    one process, are passed on. Handlers are set before the start, so that no signal is missed; a child does not
    inherit them.
    """
    child: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, frame: Any) -> None:
        del frame
        if child is not None:
            child.send_signal(number)

    before = {signal.SIGINT: signal.signal(signal.SIGINT, lambda number, frame: None)}
    for number in (signal.SIGTERM, signal.SIGHUP):
        before[number] = signal.signal(number, pass_on)
    try:
        child = subprocess.Popen(arguments)  # noqa: S603 - our own module
        status = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status
