"""A registry small enough for the replayer's tests: a real gRPC server that knows the versions given to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from core.rpc.interceptors import Watches, chain
from turnout.errors import NotFound
from turnout.job import Job, load
from turnout.job.artifact import Artifact, pack
from turnout.log_range import LogRange
from turnout.log_range_proto import to_proto
from turnout.registry.v1 import registry_pb2, registry_pb2_grpc
from turnout.schema import encode

_PIECE_BYTES = 1 << 20


@dataclass
class Registered:
    """A version as the tests made it."""

    name: str
    job: Job[..., Any]
    artifact: Artifact
    state: registry_pb2.Version.State.ValueType = registry_pb2.Version.REGISTERED
    step: registry_pb2.Retirement.Step.ValueType = registry_pb2.Retirement.STEP_UNSPECIFIED
    log_range: LogRange | None = None
    asked_before_retired: int | None = None  # after so many answers it is RETIRED


class SmallRegistry(registry_pb2_grpc.RegistryServicer):
    """GetVersion and GetArtifact; the other methods answer UNIMPLEMENTED, as the generated base class does."""

    def __init__(self, directory: Path) -> None:
        self.versions: dict[str, Registered] = {}
        self._directory = directory
        self._server = grpc.aio.server(interceptors=chain(Watches()))
        registry_pb2_grpc.add_RegistryServicer_to_server(self, self._server)
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(0)

    def register(self, source: str, number: int, log_range: LogRange | None = None) -> Registered:
        """The next version of the job in this source."""
        file = self._directory / f"job_{len(self.versions)}.py"
        file.write_text(source, encoding="utf-8")
        job = load(file)
        name = f"jobs/{job.definition.job}/versions/{number}"
        self.versions[name] = Registered(name, job, pack(file), log_range=log_range)
        return self.versions[name]

    async def GetVersion(self, request: registry_pb2.GetVersionRequest, context: Any) -> registry_pb2.Version:
        found = self._find(request.name)
        if found.asked_before_retired is not None:
            found.asked_before_retired -= 1
            if found.asked_before_retired < 0:
                found.state = registry_pb2.Version.RETIRED
        return registry_pb2.Version(
            name=found.name,
            state=found.state,
            retirement=registry_pb2.Retirement(step=found.step),
            definition=registry_pb2.Definition(definition_json=encode(found.job.definition).decode()),
            artifact_digest=found.artifact.digest,
            artifact_bytes=len(found.artifact.data),
            log_range=to_proto(found.log_range),
        )

    async def GetArtifact(
        self, request: registry_pb2.GetArtifactRequest, context: Any
    ) -> AsyncIterator[registry_pb2.GetArtifactResponse]:
        data = self._find(request.name).artifact.data
        for begin in range(0, len(data), _PIECE_BYTES):
            yield registry_pb2.GetArtifactResponse(chunk=data[begin : begin + _PIECE_BYTES])

    def _find(self, name: str) -> Registered:
        found = self.versions.get(name)
        if found is None:
            raise NotFound("VERSION_NOT_FOUND", f"There is no {name}.")
        return found
