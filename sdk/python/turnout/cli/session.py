"""What every command works with: its output, and the way to the services and to Kafka."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from turnout.cli import targets
from turnout.cli.output import Output
from turnout.cli.targets import KafkaClient
from turnout.errors import FailedPrecondition, NotFound

if TYPE_CHECKING:
    from turnout.cli.failures import Named
    from turnout.client import Client


@dataclass(frozen=True, slots=True)
class Session:
    """One invocation. timeout_s: deadline of each call, None = each method's own."""

    output: Output
    target: tuple[str, ...]
    actor: str | None
    timeout_s: float | None

    @asynccontextmanager
    async def client(self, job: str = "", *versions: int | None, named: Named | None = None) -> AsyncIterator[Client]:
        """The client. With the `job` and `versions` of the command, or with all that are `named`, what is not found is
        explained by what there is, and what is refused by what stands against it."""
        from turnout.client import Client  # imports grpc, which help and mistakes need not wait for

        found = targets.targets(self.target, os.environ, Path.cwd())
        asked = named or ({job: versions} if job else {})
        async with Client(targets=found, actor=self.actor, timeout_s=self.timeout_s) as client:
            try:
                yield client
            except NotFound as error:
                if not asked:
                    raise
                from turnout.cli.failures import explained

                raise await explained(client, error, asked) from None
            except FailedPrecondition as refusal:
                from turnout.cli.refusals import EXPLAINED, explained_refusal

                if refusal.reason not in EXPLAINED:
                    raise
                raise await explained_refusal(client, refusal, asked) from None

    def kafka(self, bootstrap: str, config: Path | None) -> KafkaClient:
        """How to reach Kafka."""
        return targets.kafka(bootstrap, config, os.environ, Path.cwd())
