"""A front's watch stream: hello, then heartbeats and reports one way; a snapshot, then proposals the other way."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping

from services.switcher import convert
from services.switcher.feed import Acknowledged, Feed, Subscription
from services.switcher.presence import FrontStore, Registration
from services.switcher.records import Proposal, RouteRecord
from turnout.errors import InvalidInput
from turnout.switcher.v1 import front_pb2

# A stream that breaks looks at first like one that the front has ended; the news that it broke follows at once. Only
# a stream that is still whole after this long was ended on purpose.
_GOODBYE_CHECK_S = 0.05

_HELLO_WITHIN_S = 5.0

_GOODBYE = object()


class Watch:
    """Serves watch streams."""

    def __init__(self, fronts: FrontStore, feed: Feed, keys: Mapping[int, bytes]) -> None:
        self._fronts = fronts
        self._feed = feed
        self._routes: tuple[RouteRecord, ...] | None = None
        self._encoded = b""
        self._keys = keys

    async def serve(
        self, requests: AsyncIterator[front_pb2.WatchRoutesRequest], whole: Callable[[], bool]
    ) -> AsyncGenerator[front_pb2.WatchRoutesResponse | bytes, None]:
        """Everything that one front is sent; `whole` tells whether the stream is not broken.

        Who ends its side says goodbye, and its lease ends at once; a lease whose stream breaks expires by time.
        """
        hello = await _hello(requests)
        with self._feed.subscribe() as subscription:
            registration = await self._fronts.register(hello.front, hello.address, hello.may_serve_for)
            yield self._snapshot(registration)
            for proposal in registration.open_proposals:
                yield convert.watch_message(proposal)
            listening = asyncio.create_task(
                self._listen(requests, registration, subscription, whole), name=f"watch {hello.front}"
            )
            try:
                while (item := await subscription.next()) is not _GOODBYE:
                    if isinstance(item, Exception):
                        raise item
                    if isinstance(item, Acknowledged):
                        yield convert.acknowledgement(item.sequence)
                    elif isinstance(item, Proposal) and item.revision > registration.revision:
                        yield convert.watch_message(item)
            finally:
                listening.cancel()

    def _snapshot(self, registration: Registration) -> bytes:
        """The snapshot, encoded once for all fronts that are given the same routes."""
        if self._routes is not registration.routes:
            message = convert.snapshot_message(registration, self._fronts.lease, self._keys)
            self._encoded = message.SerializeToString()
            self._routes = registration.routes
        return self._encoded

    async def _listen(
        self,
        requests: AsyncIterator[front_pb2.WatchRoutesRequest],
        registration: Registration,
        subscription: Subscription,
        whole: Callable[[], bool],
    ) -> None:
        front, stream = registration.front, registration.stream
        try:
            async for request in requests:
                match request.WhichOneof("message"):
                    case "heartbeat":
                        load = convert.read_load_of(request.heartbeat)
                        revision = await self._fronts.renew(front, stream, load)
                        self._feed.acknowledge(subscription, request.heartbeat.sequence, revision)
                    case "report":
                        await self._fronts.report(front, *convert.report_of(request.report))
                    case _:
                        raise InvalidInput("UNEXPECTED_MESSAGE", "After hello come heartbeats and reports only.")
            await asyncio.sleep(_GOODBYE_CHECK_S)
            if whole():
                await self._fronts.end(front, stream)
            await subscription.queue.put(_GOODBYE)
        except Exception as error:
            await subscription.queue.put(error)


async def _hello(requests: AsyncIterator[front_pb2.WatchRoutesRequest]) -> convert.Hello:
    try:
        async with asyncio.timeout(_HELLO_WITHIN_S):
            first = await anext(aiter(requests), None)
    except TimeoutError:
        first = None
    return convert.hello_of(front_pb2.Hello() if first is None else first.hello)
