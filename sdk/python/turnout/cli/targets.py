"""Where the services and Kafka are: options, then the environment, then what `turnout dev` wrote, then the default.

A folder whose stack does not run is not passed over: whatever answers elsewhere is somebody else's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from turnout.addresses import DEFAULT_TARGET, PORT_MAX
from turnout.cli.exits import CommandError, ExitCode, usage
from turnout.cli.suggestions import did_you_mean

SERVICES = ("registry", "replayer", "switcher", "query")
TARGET_VARIABLE = "TURNOUT_TARGET"
KAFKA_VARIABLE = "TURNOUT_KAFKA"
DEV_FOLDER = Path(".turnout")
DEV_FILE = DEV_FOLDER / "dev.json"  # there while the stack runs
STACK_LOCK = DEV_FOLDER / "stack.lock"  # there once a stack has been started; holds the process that does
STACK_DOWN = "DEV_STACK_DOWN"


@dataclass(frozen=True, slots=True)
class KafkaClient:
    """Properties for librdkafka, some of which may be secret."""

    properties: Mapping[str, str]

    @property
    def brokers(self) -> str:
        """The addresses that are asked first, HOST:PORT with commas between."""
        return self.properties["bootstrap.servers"]

    def __repr__(self) -> str:
        return f"KafkaClient({self.brokers})"


@dataclass(frozen=True, slots=True)
class DevStack:
    """What `turnout dev` says of itself in `.turnout/dev.json`; Kafka by its address or by a file of properties."""

    path: Path
    target: str
    kafka: str | None
    kafka_config: Path | None


def find_dev_stack(directory: Path) -> DevStack | None:
    """The stack of the directory or of the nearest parent that has one. UNAVAILABLE when it does not run."""
    for folder in (directory, *directory.parents):
        path = folder / DEV_FILE
        if path.is_file():
            return _read_dev_stack(path)
        lock = folder / STACK_LOCK
        if lock.is_file():
            raise _does_not_run(folder, starting=_is_alive(_pid_in(lock)))
    return None


def _pid_in(lock: Path) -> int | None:
    try:
        return int(lock.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _is_alive(pid: int | None) -> bool:
    if pid is None or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


def _does_not_run(folder: Path, *, starting: bool) -> CommandError:
    if starting:
        said, step = "is starting or stopping", "Repeat this once `turnout dev` says that Turnout is ready"
    else:
        said, step = "does not run", f"Start it with `turnout dev` in {folder}"
    return CommandError(
        ExitCode.UNAVAILABLE,
        STACK_DOWN,
        f"The stack of {folder}, with its data in {folder / DEV_FOLDER}, {said}.",
        next_step=f"{step}; or name other services with --target HOST:PORT, another Kafka with --kafka HOST:PORT.",
    )


def _read_dev_stack(path: Path) -> DevStack:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        config = found.get("kafka_config")
        stack = found["pids"]["stack"] if "pids" in found else None
        if stack is not None and not _is_alive(int(stack)):  # it was killed, and could take nothing back
            raise _does_not_run(path.parent.parent, starting=False)
        return DevStack(path, str(found["target"]), found["kafka"], Path(config) if config else None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise CommandError(
            ExitCode.USAGE,
            "DEV_FILE",
            f"{path} is not what `turnout dev` writes.",
            next_step="Start `turnout dev` again, or name the services with --target HOST:PORT.",
        ) from None


def targets(options: Sequence[str], environment: Mapping[str, str], directory: Path) -> dict[str, str]:
    """The address of each service. Options and TURNOUT_TARGET (commas between) are [SERVICE=]HOST:PORT; a service that
    one source does not name is looked for in the next.

    UNAVAILABLE when the stack of the directory would have to name one, and does not run.
    """
    variable = environment.get(TARGET_VARIABLE, "")
    found = _addresses(options, "--target")
    if len(found) < len(SERVICES) and variable:
        found = _addresses(variable.split(","), TARGET_VARIABLE) | found
    if len(found) < len(SERVICES):
        dev = find_dev_stack(directory)
        rest = _addresses([DEFAULT_TARGET], "default") if dev is None else _addresses([dev.target], str(dev.path))
        found = rest | found
    return found


def _addresses(texts: Sequence[str], source: str) -> dict[str, str]:
    """The address of each service that is named; an address without a service is for all that are not."""
    every: dict[str, str] = {}
    single: dict[str, str] = {}
    for text in texts:
        service, separator, address = text.strip().rpartition("=")
        _check_address(address, source)
        if not separator:
            every = dict.fromkeys(SERVICES, address)
        elif service in SERVICES:
            single[service] = address
        else:
            raise usage(
                f"{source}: there is no service {service!r}{did_you_mean(service, SERVICES)} "
                f"Services are {', '.join(SERVICES)}."
            )
    return every | single


def _check_address(address: str, source: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) <= PORT_MAX:
        raise usage(f"{source}: {address!r} is not an address: write HOST:PORT, such as {DEFAULT_TARGET}.")


def kafka(bootstrap: str, config: Path | None, environment: Mapping[str, str], directory: Path) -> KafkaClient:
    """How to reach Kafka: HOST:PORT, else a file of client properties, else TURNOUT_KAFKA, else dev.json."""
    if bootstrap and config is not None:
        raise usage("--kafka and --kafka-config both say where Kafka is: give one of them.")
    if config is not None:
        return KafkaClient(_properties(config))
    address = bootstrap or environment.get(KAFKA_VARIABLE, "")
    if not address:
        dev = find_dev_stack(directory)
        if dev is not None and dev.kafka_config is not None:
            return KafkaClient(_properties(dev.kafka_config))
        address = (dev.kafka if dev is not None else None) or ""
    if not address:
        raise CommandError(
            ExitCode.USAGE,
            "KAFKA_NOT_NAMED",
            "This command needs Kafka, and nothing says where it is.",
            next_step=f"Give --kafka HOST:PORT or --kafka-config FILE, set {KAFKA_VARIABLE}, or start `turnout dev`.",
        )
    for one in address.split(","):
        _check_address(one, "--kafka" if bootstrap else KAFKA_VARIABLE)
    return KafkaClient({"bootstrap.servers": address})


def _properties(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise usage(f"--kafka-config: {path} cannot be read: {error}.") from None
    properties: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith(("#", "!")):
            continue
        name, separator, value = line.partition("=")
        if not separator:
            raise usage(f"--kafka-config: {path}, line {number} is not key=value.")
        properties[name.strip()] = value.strip()
    if not properties.get("bootstrap.servers"):
        raise usage(f"--kafka-config: {path} has no bootstrap.servers.")
    return properties
