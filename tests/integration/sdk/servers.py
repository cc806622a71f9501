"""Servers that a test scripts: real gRPC, with the project's own interceptors."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from core.rpc.server import RpcServer, ServiceApp
from turnout.query.v1 import query_pb2_grpc
from turnout.registry.v1 import registry_pb2_grpc
from turnout.replayer.v1 import replayer_pb2_grpc
from turnout.switcher.v1 import switcher_pb2_grpc

_UPLOADS = ("CreateVersion",)
_TOLD_AT_ONCE = ("CutOverRoute", "Scan")  # that it was heard
_STREAMS = ("Scan", "WatchRun", "GetArtifact")


class Script:
    """What each method does: a list of answers, one for each call, the last for all further ones.

    An exception is raised. An answer of a stream is a list whose exceptions are raised at their place; None holds the
    stream (or the call) until it is cancelled. `requests` has what was asked; of an upload the list of its messages.
    """

    def __init__(self, **answers: list[Any]) -> None:
        self.answers = answers
        self.requests: defaultdict[str, list[Any]] = defaultdict(list)
        self.metadata: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self.cancelled: defaultdict[str, int] = defaultdict(int)

    def _next(self, method: str, request: Any, context: Any) -> Any:
        self.requests[method].append(request)
        self.metadata[method].append(dict(context.invocation_metadata() or ()))
        answers = self.answers[method]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def _hold(self, method: str) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled[method] += 1
            raise

    def unary(self, method: str) -> Any:
        async def answer(_: Any, request: Any, context: Any) -> Any:
            if method in _UPLOADS:
                request = [message async for message in request]
            if method in _TOLD_AT_ONCE:
                await context.send_initial_metadata(())
            response = self._next(method, request, context)
            if response is None:
                await self._hold(method)
            if isinstance(response, Exception):
                raise response
            return response

        return answer

    def stream(self, method: str) -> Any:
        async def answers(_: Any, request: Any, context: Any) -> AsyncIterator[Any]:
            if method in _TOLD_AT_ONCE:
                await context.send_initial_metadata(())
            for response in self._next(method, request, context):
                if response is None:
                    await self._hold(method)
                if isinstance(response, Exception):
                    raise response
                yield response

        return answers


_SERVICERS: list[tuple[str, type[Any], Any]] = [
    ("registry", registry_pb2_grpc.RegistryServicer, registry_pb2_grpc.add_RegistryServicer_to_server),
    ("replayer", replayer_pb2_grpc.ReplayerServicer, replayer_pb2_grpc.add_ReplayerServicer_to_server),
    ("switcher", switcher_pb2_grpc.SwitcherServicer, switcher_pb2_grpc.add_SwitcherServicer_to_server),
    ("query", query_pb2_grpc.QueryServicer, query_pb2_grpc.add_QueryServicer_to_server),
]


class ScriptedApp(ServiceApp):
    """All four services, as far as the script goes."""

    name = "scripted"
    service_names: tuple[str, ...] = tuple(f"turnout.{name}.v1.{name.capitalize()}" for name, *_ in _SERVICERS)

    def __init__(self, script: Script) -> None:
        self._script = script

    def register(self, server: grpc.aio.Server) -> None:
        for name, base, add in _SERVICERS:
            methods = {
                method: (self._script.stream if method in _STREAMS else self._script.unary)(method)
                for method in self._script.answers
                if hasattr(base, method)
            }
            add(type(f"Scripted{name}", (base,), methods)(), server)

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


@asynccontextmanager
async def serving(script: Script, listen: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """The script on a port; HOST:PORT."""
    server = RpcServer(listen, [ScriptedApp(script)])
    try:
        yield f"127.0.0.1:{await server.start()}"
    finally:
        await server.stop(0.1)
