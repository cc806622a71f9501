"""Flink's Kafka and JDBC connectors and PostgreSQL's driver, which its PyPI package lacks: fetched once, 12 MB."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from deploy.local.maven import Jars

JARS: Final = Jars(
    pom=Path(__file__).with_name("pom.xml"),
    cache=Path(__file__).parents[2] / ".cache" / "flink",
    marker="flink-connector-jdbc-core-*.jar",
    what="Flink's connectors",
)
