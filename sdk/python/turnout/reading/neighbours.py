"""What a front asks the other services while a read waits, each in a call bounded by the read's deadline."""

import logging
from typing import cast

import grpc

from turnout.errors import NotFound, TurnoutError
from turnout.names import VersionId, route_name
from turnout.reading.deadline import Deadline
from turnout.reading.front import Front
from turnout.reading.link import SwitcherLink
from turnout.reading.reads import version_not_found
from turnout.reading.route_proto import route_of
from turnout.reading.routing import Committed
from turnout.registry.v1 import registry_pb2, registry_pb2_grpc
from turnout.status import from_rpc_error
from turnout.switcher.v1 import route_pb2

log = logging.getLogger(__name__)

_WITHIN_S = 1.0

_Version = registry_pb2.Version


class SwitcherRoutes:
    """One route, outside of the watch."""

    def __init__(self, front: Front, link: SwitcherLink) -> None:
        self._front = front
        self._link = link

    async def refetch(self, job: str, deadline: Deadline) -> bool:
        """Bring the front's route of the job up to date; False, and it stays as it is, when the switcher is away."""
        request = route_pb2.GetRouteRequest(name=route_name(job))
        try:
            message = await self._link.stub.GetRoute(request, timeout=min(_WITHIN_S, deadline.left_s))
            route = route_of(message)
        except grpc.aio.AioRpcError as error:
            log.warning("the route of %s was asked for again: %s", job, from_rpc_error(error, "switcher").message)
            return False
        except (ValueError, TurnoutError) as error:
            log.warning("the route of %s was asked for again and cannot be served by: %s", job, error)
            return False
        table = self._front.table
        # Without a revision of its own: the commit will still come by the watch, and be reported then.
        self._front.table = table.with_commit(Committed(table.revision, "", route, message.group))
        return True


class RegistryVersions:
    """What became of a version."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = cast("registry_pb2_grpc.RegistryAsyncStub", registry_pb2_grpc.RegistryStub(channel))

    async def was_dropped(self, version: VersionId, deadline: Deadline) -> bool:
        """Whether the version's table is gone for good; False when it has none yet. NotFound; Unavailable."""
        request = registry_pb2.GetVersionRequest(name=version.name)
        try:
            found = await self._stub.GetVersion(request, timeout=min(_WITHIN_S, deadline.left_s))
        except grpc.aio.AioRpcError as error:
            answer = from_rpc_error(error, "registry")
            raise version_not_found(version) if isinstance(answer, NotFound) else answer from None
        return found.state != _Version.REGISTERED
