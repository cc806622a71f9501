"""The jars of the embedded Kafka broker: about 10 s and 45 MB to fetch, once."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from deploy.local.errors import LocalStackError
from deploy.local.maven import Jars

_POM = Path(__file__).with_name("pom.xml")
_CACHE = Path(__file__).parents[2] / ".cache" / "kafka"


def directory() -> Path:
    """Where the jars of the pinned version are, or will be."""
    return _jars().directory()


def fetched() -> bool:
    return _jars().fetched()


async def ensure() -> Path:
    """The folder with the jars, fetched first if need be. Safe from several processes at once."""
    return await _jars().ensure()


def _jars() -> Jars:
    return Jars(
        pom=_POM,
        cache=_CACHE,
        marker="kafka_*.jar",
        what="the embedded Kafka broker",
        otherwise=", or use your own Kafka with --kafka HOST:PORT",
    )


if __name__ == "__main__":
    try:
        asyncio.run(ensure())
    except LocalStackError as error:
        sys.exit(f"turnout: {error}")
