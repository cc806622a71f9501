"""A front's watch stream: hello, then heartbeats and reports one way; a snapshot, then proposals the other way."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from core.domain.errors import InvalidInput
from services.switcher import convert
from services.switcher.feed import Feed
from services.switcher.presence import FrontStore, Registration
from services.switcher.records import Proposal
from turnout.switcher.v1 import switcher_pb2 as pb

# A stream that breaks looks at first like one that the front has ended; the news that it broke follows at once. Only
# a stream that is still whole after this long was ended on purpose.
_GOODBYE_CHECK_S = 0.05

_GOODBYE = object()


class Watch:
    """Serves watch streams."""

    def __init__(self, fronts: FrontStore, feed: Feed) -> None:
        self._fronts = fronts
        self._feed = feed

    async def serve(
        self, requests: AsyncIterator[pb.WatchRoutesRequest], whole: Callable[[], bool]
    ) -> AsyncGenerator[pb.WatchRoutesResponse, None]:
        """Everything that one front is sent; `whole` tells whether the stream is not broken.

        Who ends its side says goodbye, and its lease ends at once; a lease whose stream breaks expires by time.
        """
        hello = await _hello(requests)
        with self._feed.subscribe() as subscription:
            registration = await self._fronts.register(hello.front, hello.address)
            yield convert.snapshot_message(registration, self._fronts.lease)
            for proposal in registration.open_proposals:
                yield convert.watch_message(proposal)
            listening = asyncio.create_task(
                self._listen(requests, registration, subscription.queue, whole), name=f"watch {hello.front}"
            )
            try:
                while (item := await subscription.next()) is not _GOODBYE:
                    if isinstance(item, Exception):
                        raise item
                    if isinstance(item, pb.WatchRoutesResponse):
                        yield item
                    elif isinstance(item, Proposal) and item.revision > registration.revision:
                        yield convert.watch_message(item)
            finally:
                listening.cancel()

    async def _listen(
        self,
        requests: AsyncIterator[pb.WatchRoutesRequest],
        registration: Registration,
        queue: asyncio.Queue[object],
        whole: Callable[[], bool],
    ) -> None:
        front, stream = registration.front, registration.stream
        try:
            async for request in requests:
                match request.WhichOneof("message"):
                    case "heartbeat":
                        await self._fronts.renew(front, stream)
                        await queue.put(convert.acknowledgement(request.heartbeat.sequence))
                    case "report":
                        await self._fronts.report(front, *convert.report_of(request.report))
                    case _:
                        raise InvalidInput("UNEXPECTED_MESSAGE", "After hello come heartbeats and reports only.")
            await asyncio.sleep(_GOODBYE_CHECK_S)
            if whole():
                await self._fronts.end(front, stream)
            await queue.put(_GOODBYE)
        except Exception as error:
            await queue.put(error)


async def _hello(requests: AsyncIterator[pb.WatchRoutesRequest]) -> pb.Hello:
    first = await anext(aiter(requests), None)
    if first is None or not first.hello.front:
        raise InvalidInput("HELLO_MISSING", "A watch begins with a hello that names the front.")
    if len(first.hello.front) > convert.TEXT_MAX or len(first.hello.address) > convert.TEXT_MAX:
        raise InvalidInput("TEXT_TOO_LONG", f"A front's id and address have at most {convert.TEXT_MAX} characters.")
    return first.hello
