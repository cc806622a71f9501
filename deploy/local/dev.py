"""`turnout dev`: PostgreSQL, Kafka and Turnout's services on this machine until Ctrl-C, their data kept."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from core.kafka.properties import KafkaConfig
from deploy.local import kafka_jars
from deploy.local.child import Child
from deploy.local.errors import LocalStackError
from deploy.local.own import OwnPart, own_kafka, own_postgres, silent, until_all_answer
from deploy.local.ports import DEFAULT_PORT, HOST, is_free, taken
from deploy.local.stack import LocalStack, owner_of
from turnout.errors import InvalidInput

POSTGRES_VARIABLE = "TURNOUT_POSTGRES"
DEFAULT_DATA_DIR = Path(".turnout")

_SERVING_WITHIN_S = 60.0
_POLL_S = 0.2
_STOP_GRACE_S = 30.0
_LOG_LINES_SHOWN = 10
_SERVICES_LOG = Path("logs") / "services.log"
_DESCRIPTION = "dev.json"


@dataclass(frozen=True)
class Options:
    """What was asked for. None for a part means: the embedded one."""

    data_dir: Path
    port: int
    kafka: str | None
    kafka_config: Path | None
    postgres: str | None = field(repr=False)

    @property
    def embeds_kafka(self) -> bool:
        return self.kafka is None and self.kafka_config is None

    @property
    def embeds_postgres(self) -> bool:
        return self.postgres is None

    @property
    def is_found_by_itself(self) -> bool:
        """Whether `turnout` in another shell finds these services where it looks without being told."""
        return self.data_dir.absolute() == DEFAULT_DATA_DIR.absolute() and self.port == DEFAULT_PORT

    @property
    def target(self) -> str:
        return f"{HOST}:{self.port}"


def parse(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(
        prog="turnout dev", description="Run Kafka, PostgreSQL and Turnout's services on this machine until Ctrl-C."
    )
    parser.add_argument("--data-dir", type=Path, default=DEFAULT_DATA_DIR, help="data and logs (default: %(default)s)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="port of the services (default: %(default)s)")
    kafka_options = parser.add_mutually_exclusive_group()
    kafka_options.add_argument("--kafka", metavar="HOST:PORT", help="your own Kafka instead of the embedded one")
    kafka_options.add_argument(
        "--kafka-config", type=Path, metavar="FILE", help="the same, by a file of client properties"
    )
    parser.add_argument(
        "--postgres",
        metavar="URL",
        help=f"your own PostgreSQL instead of the embedded one; with a password in it, better in {POSTGRES_VARIABLE}",
    )
    given = parser.parse_args(arguments)
    return Options(
        data_dir=given.data_dir,
        port=given.port,
        kafka=given.kafka,
        kafka_config=given.kafka_config,
        postgres=given.postgres or os.environ.get(POSTGRES_VARIABLE),
    )


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0 after Ctrl-C, 1 when something could not start or ended by itself."""
    try:
        return asyncio.run(_until_stopped(parse(arguments)))
    except LocalStackError as error:
        print(f"turnout dev: {error}", file=sys.stderr)
        return 1


async def _until_stopped(options: Options) -> int:
    """Run until a signal. The first one stops everything in order; further ones change nothing."""
    work = asyncio.ensure_future(_run(options))
    stopping = False

    def stop() -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            _say("\nStopping ...")
            work.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        await work
    except asyncio.CancelledError:
        _say(f"Stopped. The data are kept in {options.data_dir}.")
    return 0


async def _run(options: Options) -> None:
    _refuse_a_second_one(options)
    own = _own_parts(options)
    _say(f"Starting {_started(options)}, with data in {options.data_dir} ...")
    if options.embeds_kafka and not kafka_jars.fetched():
        _say("Fetching the Kafka broker with Maven first (once, about 45 MB) ...")
    waited_for = await silent(own)
    for part in waited_for:
        _say(
            f"{part.name}{part.place} does not answer. Waiting for it; everything goes on by itself when it comes "
            f"(log: {options.data_dir / _SERVICES_LOG})."
        )
    async with LocalStack(
        options.data_dir, with_kafka=options.embeds_kafka, with_postgres=options.embeds_postgres
    ) as stack:
        postgres = options.postgres or stack.postgres
        kafka = stack.kafka if options.embeds_kafka else options.kafka
        services = Child(
            "services",
            run_dir=stack.data_dir,
            log=stack.data_dir / _SERVICES_LOG,
            stop_signal=signal.SIGTERM,
            grace_s=_STOP_GRACE_S,
        )
        try:
            await services.start(
                # -P: a folder "services" in the current directory is not ours.
                [sys.executable, "-P", "-m", "services", "--listen", options.target]
                + (["--kafka", kafka] if kafka else ["--kafka-config", str(options.kafka_config)])
                + ["--data-dir", str(stack.data_dir / "services")],
                environment={**os.environ, POSTGRES_VARIABLE: postgres},
            )
            await until_all_answer(waited_for, _say, lambda: _check_alive(stack, services))
            await _until_serving(options.target, stack, services)
            pids = {"stack": os.getpid(), **stack.pids, "services": services.pid}
            with _described(options, kafka=kafka, postgres=postgres, pids=pids) as description:
                _tell(options, kafka, description)
                while True:
                    _check_alive(stack, services)
                    await asyncio.sleep(_POLL_S)
        finally:
            await services.stop()


def _refuse_a_second_one(options: Options) -> None:
    """The everyday case of a port or directory that is taken: `turnout dev` runs here already."""
    owner = owner_of(options.data_dir)
    if owner is not None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            description = json.loads((options.data_dir / _DESCRIPTION).read_text())
            if description["pids"]["stack"] == owner:
                raise LocalStackError(
                    f"`turnout dev` runs on {options.data_dir} already, at {description['target']} (process {owner}): "
                    f"use that one, or end it with Ctrl-C, or start another with --data-dir and --port"
                )
    elif not is_free(options.port):
        raise taken(options.port, "Turnout's services", option="--port")


def _own_parts(options: Options) -> list[OwnPart]:
    parts = []
    try:
        if options.kafka is not None:
            parts.append(own_kafka(KafkaConfig.of_bootstrap(options.kafka)))
        if options.kafka_config is not None:
            parts.append(own_kafka(KafkaConfig.of_file(options.kafka_config)))
    except InvalidInput as error:
        raise LocalStackError(error.message) from None
    if options.postgres is not None:
        parts.append(own_postgres(options.postgres))
    return parts


def _started(options: Options) -> str:
    """What this process starts, as a list in a sentence."""
    embedded = ["Kafka"] * options.embeds_kafka + ["PostgreSQL"] * options.embeds_postgres
    return f"{', '.join(embedded)} and Turnout's services" if embedded else "Turnout's services"


async def _until_serving(target: str, stack: LocalStack, services: Child) -> None:
    deadline = asyncio.get_running_loop().time() + _SERVING_WITHIN_S
    async with grpc.aio.insecure_channel(target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        while True:
            _check_alive(stack, services)
            try:
                answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=2)
            except grpc.aio.AioRpcError:
                pass
            else:
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            if asyncio.get_running_loop().time() > deadline:
                raise LocalStackError(
                    f"Turnout's services are not ready after {_SERVING_WITHIN_S:.0f} s.{_last_lines(services)}"
                )
            await asyncio.sleep(_POLL_S)


@contextlib.contextmanager
def _described(options: Options, *, kafka: str | None, postgres: str, pids: dict[str, int | None]) -> Iterator[Path]:
    """dev.json in the data directory while everything runs: for tools, and for whoever wants to look with psql."""
    file = options.data_dir / _DESCRIPTION
    description = {
        "target": options.target,
        "kafka": kafka,
        "kafka_config": str(options.kafka_config) if options.kafka_config else None,
        "postgres": postgres,
        "pids": pids,
    }
    # Whoever waits for the file finds it whole.
    draft = file.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as writer:
        json.dump(description, writer, indent=2)
        writer.write("\n")
    draft.replace(file)
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)


def _tell(options: Options, kafka: str | None, description: Path) -> None:
    _say(f"Turnout is ready at {options.target}")
    _say(f"  Kafka       {kafka or f'as {options.kafka_config} says'}")
    _say(f"  PostgreSQL  {f'connection string in {description}' if options.embeds_postgres else 'your own'}")
    _say(f"  Logs        {options.data_dir / 'logs'}")
    if not options.is_found_by_itself:
        _say("To use it from another shell, say there:")
        _say(f"  export TURNOUT_TARGET={options.target}")
        if kafka is not None:
            _say(f"  export TURNOUT_KAFKA={kafka}")
    _say("Ctrl-C stops everything; the data stay.")


def _say(line: str) -> None:
    print(line, flush=True)


def _check_alive(stack: LocalStack, services: Child) -> None:
    ended = stack.ended
    if ended is not None:
        raise _has_ended(ended, f"{ended.name} was", f"{ended.name} ended by itself")
    if not services.running:
        raise _has_ended(services, "Turnout's services were", "Turnout's services ended by themselves")


def _has_ended(child: Child, was: str, by_itself: str) -> LocalStackError:
    number = child.killed_by
    if number is None:
        return LocalStackError(f"{by_itself}, so everything was stopped.{_last_lines(child)}")
    killed = f"{was} killed by signal {number} ({number.name}), so everything was stopped."
    if number is signal.SIGKILL:  # the victim could write nothing: its last lines would only lead astray
        return LocalStackError(f"{killed} The system does that when memory runs out. Its log: {child.log}")
    return LocalStackError(f"{killed}{_last_lines(child)}")


def _last_lines(child: Child) -> str:
    lines = child.log_since_start().splitlines()[-_LOG_LINES_SHOWN:]
    return "".join([f" The end of {child.log}:", *(f"\n    {line}" for line in lines)])
