"""A registry that answers as a test tells it to, over a real channel."""

from typing import Any

import grpc

from core.rpc.interceptors import Watches, chain
from turnout.definition_proto import to_proto
from turnout.errors import FailedPrecondition, NotFound
from turnout.names import parse_version
from turnout.registry.v1 import registry_pb2 as pb
from turnout.registry.v1 import registry_pb2_grpc as rpc
from turnout.schema import JobDefinition


class RegistryOnDemand(rpc.RegistryServicer):
    """Versions 1 to 90 are there, until they are retired."""

    target: str

    def __init__(self) -> None:
        self.retired: set[int] = set()
        self.asked: list[str] = []
        """Request ids of all retirements that were asked for."""
        self.refuses: tuple[str, str] | None = None
        """Reason and message, of retirements."""
        self.unreleased = ""
        """What every retirement waits for, which may be refused yet; "" = none does."""
        self.reinstated: list[int] = []
        """Versions whose retirement was taken back, one entry for each request."""
        self.definitions: dict[int, JobDefinition] = {}
        """Of versions, by number; of the others it says none."""

    async def start(self) -> None:
        """Listen at `target`."""
        self._server = grpc.aio.server(interceptors=chain(Watches()))
        rpc.add_RegistryServicer_to_server(self, self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        self.target = f"127.0.0.1:{port}"

    async def stop(self) -> None:
        await self._server.stop(None)

    async def GetVersion(self, request: pb.GetVersionRequest, context: Any) -> pb.Version:
        number = parse_version(request.name).number
        if number > 90:
            raise NotFound("VERSION_NOT_FOUND", f"There is no version {number}.")
        return self._version(request.name, number)

    async def RetireVersion(self, request: pb.RetireVersionRequest, context: Any) -> pb.Version:
        self.asked.append(request.request_id)
        if self.refuses is not None:
            raise FailedPrecondition(*self.refuses)
        number = parse_version(request.name).number
        if self.unreleased:
            waiting = pb.Retirement(step=pb.Retirement.RELEASE, waiting_for=self.unreleased)
            return pb.Version(name=request.name, state=pb.Version.RETIRING, retirement=waiting)
        self.retired.add(number)
        return self._version(request.name, number)

    async def UnretireVersion(self, request: pb.UnretireVersionRequest, context: Any) -> pb.Version:
        number = parse_version(request.name).number
        self.retired.discard(number)
        self.reinstated.append(number)
        return self._version(request.name, number)

    def _version(self, name: str, number: int) -> pb.Version:
        known = self.definitions.get(number)
        return pb.Version(
            name=name,
            state=pb.Version.RETIRING if number in self.retired else pb.Version.REGISTERED,
            definition=None if known is None else to_proto(known),
        )
