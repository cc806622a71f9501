"""Versions with a topic, on the test's own database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path

import pytest

from core.kafka import KafkaConfig, TopicAdmin
from services.replayer.protocol import TopicPartition
from tests.integration.engine.workers import Version
from tests.support.topics import Topics


class Make:
    """Makes versions and ends their workers; knows the ends of logs."""

    def __init__(self, dsn: str, bootstrap: str, directory: Path) -> None:
        self._dsn = dsn
        self._bootstrap = bootstrap
        self._directory = directory
        self._admin = TopicAdmin(KafkaConfig.of_bootstrap(bootstrap))
        self._made: list[Version] = []

    async def __call__(
        self,
        source: str,
        topics: Iterable[str],
        lease_s: float = 3.0,
        range_ends: Mapping[TopicPartition, int] | None = None,
    ) -> Version:
        """A version of the job file, with its positions at the starts of the logs, and where told an end."""
        version = Version(self._dsn, self._bootstrap, self._directory / str(len(self._made)), source, lease_s)
        self._made.append(version)
        starts = {}
        for topic in topics:
            for partition, known in (await self._admin.log_range(topic)).items():
                starts[TopicPartition(topic, partition)] = known.start
        await version.create(starts, range_ends)
        return version

    async def ends(self, *topics: str) -> dict[TopicPartition, int]:
        """The ends of the logs, read_committed."""
        return {
            TopicPartition(topic, partition): known.end
            for topic in topics
            for partition, known in (await self._admin.log_range(topic)).items()
        }

    async def end(self) -> None:
        for version in self._made:
            await version.end()


@pytest.fixture
async def make(postgres: str, kafka: Topics, tmp_path: Path) -> AsyncIterator[Make]:
    maker = Make(postgres, kafka.bootstrap, tmp_path)
    yield maker
    await maker.end()
