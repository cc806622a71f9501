"""A version's definition and code, asked of the registry; the code unpacked once and kept by its content hash."""

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import grpc

from turnout.errors import DataLoss, FailedPrecondition
from turnout.job.artifact import ARTIFACT_BYTES_MAX, SINGLE_FILE, unpack
from turnout.job.errors import ArtifactError
from turnout.log_range import LogRange, LogRangeError
from turnout.log_range_proto import from_proto
from turnout.names import VersionId
from turnout.registry.v1 import registry_pb2 as registry
from turnout.registry.v1.registry_pb2_grpc import RegistryStub
from turnout.schema import JobDefinition, SchemaError, decode
from turnout.status import from_rpc_error

if TYPE_CHECKING:
    from turnout.registry.v1.registry_pb2_grpc import RegistryAsyncStub

log = logging.getLogger(__name__)

_CALL_S = 10.0
_FETCH_S = 60.0


@dataclass(frozen=True, slots=True)
class Registered:
    """What the registry says of a version."""

    definition: JobDefinition
    artifact_digest: str
    runnable: bool  # neither retiring nor retired nor dropped
    reinstated: bool  # its retirement is being taken back, which resumes its run
    log_range: LogRange | None  # None = all of the log


class Artifacts:
    """The registry's versions, and their code under `directory`/<digest>."""

    def __init__(self, channel: grpc.aio.Channel, directory: Path) -> None:
        self._registry = cast("RegistryAsyncStub", RegistryStub(channel))
        self._directory = directory

    async def version(self, version: VersionId) -> Registered:
        """The registered version; NotFound (VERSION_NOT_FOUND), Unavailable (REGISTRY_UNAVAILABLE)."""
        try:
            found = await self._registry.GetVersion(registry.GetVersionRequest(name=version.name), timeout=_CALL_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "registry") from None
        try:
            definition, log_range = decode(found.definition.definition_json), from_proto(found.log_range)
        except (SchemaError, LogRangeError) as error:
            raise FailedPrecondition(
                "DEFINITION_UNREADABLE",
                f"The registered definition of {version} cannot be read: {error}. Register it again with this version "
                f"of turnout.",
            ) from None
        runnable = found.state == registry.Version.REGISTERED
        reinstated = found.state == registry.Version.RETIRING and found.retirement.step == registry.Retirement.REINSTATE
        return Registered(definition, found.artifact_digest, runnable, reinstated, log_range)

    async def unpacked(self, version: VersionId, digest: str) -> Path:
        """The version's code, to be given to `turnout.job.load`; fetched unless it is here already."""
        target = self._directory / digest
        if target.is_dir():
            return _loadable(target)
        data = await self._fetch(version)
        actual = hashlib.sha256(data).hexdigest()
        if actual != digest:
            raise DataLoss(
                "ARTIFACT_DAMAGED",
                f"The code of {version} has the digest {actual}, and {digest} was registered. Nothing was started; "
                f"look into the registry's database.",
            )
        await asyncio.to_thread(self._unpack, data, target)
        return _loadable(target)

    async def _fetch(self, version: VersionId) -> bytes:
        pieces = bytearray()
        call = self._registry.GetArtifact(registry.GetArtifactRequest(name=version.name), timeout=_FETCH_S)
        try:
            async for piece in call:
                pieces += piece.chunk
                if len(pieces) > ARTIFACT_BYTES_MAX:
                    raise DataLoss("ARTIFACT_DAMAGED", f"The code of {version} is larger than an artefact may be.")
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "registry") from None
        finally:
            call.cancel()
        return bytes(pieces)

    def _unpack(self, data: bytes, target: Path) -> None:
        """Unpack beside the target, then rename: whoever sees the directory sees all of it."""
        self._directory.mkdir(parents=True, exist_ok=True)
        scratch = self._directory / f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}"
        try:
            unpack(data, scratch)
            with contextlib.suppress(OSError):  # another was faster: the content is the same
                scratch.rename(target)
        except ArtifactError as error:
            raise DataLoss("ARTIFACT_DAMAGED", f"The stored code cannot be unpacked: {error}") from None
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _loadable(directory: Path) -> Path:
    """A single file is loaded as a file, a folder as a package. Loading leaves compiled files beside the sources."""
    single = directory / SINGLE_FILE
    others = [entry for entry in directory.iterdir() if entry.name not in (SINGLE_FILE, "__pycache__")]
    return single if single.is_file() and not others else directory
