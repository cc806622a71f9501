"""Settings of a services process: flags for what an operator chooses, environment for what is secret."""

import argparse
import os
import secrets
import socket
from dataclasses import dataclass, field
from pathlib import Path

from core.kafka.properties import KafkaConfig
from turnout.addresses import DEFAULT_TARGET
from turnout.errors import InvalidInput

SERVICES = ("registry", "replayer", "switcher", "query")
NEIGHBOURS = {  # whom each service calls
    "registry": ("replayer", "switcher"),
    "replayer": ("registry", "switcher"),
    "switcher": ("registry", "replayer"),
    "query": ("registry", "switcher"),
}
POSTGRES_VARIABLE = "TURNOUT_POSTGRES"


def _unique_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


@dataclass(frozen=True)
class Settings:
    """What a process needs to know. Durations are in seconds."""

    listen: str
    kafka: KafkaConfig | None  # None = not told; the replayer alone needs it
    postgres: str = field(repr=False)  # DSN, with a password
    data_dir: Path
    registry_target: str
    replayer_target: str
    switcher_target: str
    run_lease_s: float = 10.0
    reader_lease_s: float = 3.0
    max_stale_active_s: float = 60.0
    max_stale_experiment_s: float = 15.0
    rollback_protection_s: float = 24 * 3600.0
    query_processes: int = 1
    process: int = 0  # which of several behind one port this is, from 1; 0 = it is alone
    instance: str = field(default_factory=_unique_name)  # unique among live processes: front, replica

    @property
    def brokers(self) -> KafkaConfig:
        """How the replayer reaches Kafka."""
        assert self.kafka is not None, "a replayer is not started without"
        return self.kafka


def parse(arguments: list[str]) -> tuple[list[str], Settings]:
    """The services to run and their settings; InvalidInput says what is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m services",
        description="Run Turnout's services; without a name all four in one process.",
    )
    parser.add_argument("service", nargs="*", choices=[*SERVICES, []], help="services to run (default: all four)")
    parser.add_argument("--listen", default=DEFAULT_TARGET, metavar="HOST:PORT", help="default: %(default)s")
    kafka = parser.add_mutually_exclusive_group()
    kafka.add_argument("--kafka", metavar="HOST:PORT", help="bootstrap servers, plain text; for the replayer")
    kafka.add_argument("--kafka-config", type=Path, metavar="FILE", help="client properties, key=value lines")
    parser.add_argument("--data-dir", type=Path, default=Path(".turnout"), help="default: %(default)s")
    for name in ("registry", "replayer", "switcher"):
        parser.add_argument(f"--{name}", metavar="HOST:PORT", help=f"where the {name} is, unless it runs here")
    defaults = {
        "run-lease-s": (Settings.run_lease_s, "time after which a silent worker or replayer loses its partitions"),
        "reader-lease-s": (Settings.reader_lease_s, "time after which a silent front no longer counts"),
        "max-stale-active-s": (Settings.max_stale_active_s, "time a front serves without the switcher"),
        "max-stale-experiment-s": (
            Settings.max_stale_experiment_s,
            "the same for versions beside the active one",
        ),
        "rollback-protection-s": (
            Settings.rollback_protection_s,
            "time a cutover's way back is kept from retirement",
        ),
    }
    for flag, (default, text) in defaults.items():
        parser.add_argument(
            f"--{flag}", type=_positive, default=default, metavar="S", help=f"{text} (default: {default:g})"
        )
    parser.add_argument(
        "--query-processes",
        type=_count,
        default=Settings.query_processes,
        metavar="N",
        help="processes of a front that runs alone, behind one port (default: %(default)s)",
    )
    parser.add_argument("--process", type=int, default=Settings.process, help=argparse.SUPPRESS)  # one of those
    given = parser.parse_args(arguments)
    services = given.service or list(SERVICES)
    if given.query_processes > 1 and services != ["query"]:
        parser.error("--query-processes is for the query service alone: the others have one process a port")
    missing = {
        name for one in services for name in NEIGHBOURS[one] if name not in services and not getattr(given, name)
    }
    if missing:
        flags = " and ".join(f"--{name} HOST:PORT" for name in sorted(missing))
        parser.error(f"{' and '.join(services)} alone must be told where to find the others: give {flags}")
    kafka_config = _kafka(given)
    if kafka_config is None and "replayer" in services:
        parser.error("the replayer must be told where Kafka is: give --kafka HOST:PORT or --kafka-config FILE")
    postgres = os.environ.get(POSTGRES_VARIABLE)
    if not postgres:
        raise InvalidInput("POSTGRES_MISSING", f"Set {POSTGRES_VARIABLE} to the URL of a PostgreSQL database.")
    settings = Settings(
        listen=given.listen,
        kafka=kafka_config,
        postgres=postgres,
        data_dir=given.data_dir / f"process-{given.process}" if given.process else given.data_dir,
        registry_target=given.registry or given.listen,
        replayer_target=given.replayer or given.listen,
        switcher_target=given.switcher or given.listen,
        run_lease_s=given.run_lease_s,
        reader_lease_s=given.reader_lease_s,
        max_stale_active_s=given.max_stale_active_s,
        max_stale_experiment_s=given.max_stale_experiment_s,
        rollback_protection_s=given.rollback_protection_s,
        query_processes=given.query_processes,
        process=given.process,
    )
    return services, settings


def _kafka(given: argparse.Namespace) -> KafkaConfig | None:
    if given.kafka:
        return KafkaConfig.of_bootstrap(given.kafka)
    return KafkaConfig.of_file(given.kafka_config) if given.kafka_config is not None else None


def _positive(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value
