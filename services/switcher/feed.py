"""What all fronts are told, in the order of the revision: read once a process, handed to every watch stream."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from core.domain.errors import Aborted, Unavailable
from services.switcher.hint import Hint
from services.switcher.records import Proposal, ProposalState
from services.switcher.store import RouteStore

log = logging.getLogger(__name__)

POLL_IN_FLIGHT_S = 0.1
_POLL_IDLE_S = 0.5
_QUEUED_MAX = 1000


class Subscription:
    """The queue of one watch stream. It holds whatever the stream is to handle, not only what the feed puts there."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[object] = asyncio.Queue(_QUEUED_MAX)
        self._lagging = False

    def offer(self, proposal: Proposal) -> None:
        """Put a proposal there; a stream that has too many unread is ended instead of being waited for."""
        try:
            self.queue.put_nowait(proposal)
        except asyncio.QueueFull:
            self._lagging = True

    async def next(self) -> object:
        """What comes next. Aborted for a stream that did not keep up: it must start again with a snapshot."""
        item = await self.queue.get()
        if self._lagging:
            raise Aborted("WATCH_LAGGING", f"More than {_QUEUED_MAX} messages are unread; open the watch again.")
        return item


class Feed:
    """Polls for proposals that changed, sooner after a hint."""

    def __init__(self, store: RouteStore, hint: Hint) -> None:
        self._store = store
        self._hint = hint
        self._subscriptions: set[Subscription] = set()
        self._open: set[str] = set()

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """A queue that gets everything from now on."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    async def run(self) -> None:
        """Feed all subscriptions until cancelled; waits while PostgreSQL is away."""
        revision: int | None = None
        while True:
            ticket = self._hint.ticket()
            try:
                if revision is None:
                    revision = await self._store.revision()
                for proposal in await self._store.proposals_since(revision):
                    self._tell(proposal)
                    revision = proposal.revision
            except Unavailable as error:
                log.warning("the route watch waits: %s", error.message)
            await self._hint.wait(ticket, POLL_IN_FLIGHT_S if self._open else _POLL_IDLE_S)

    def _tell(self, proposal: Proposal) -> None:
        if proposal.state is ProposalState.OPEN:
            self._open.add(proposal.proposal)
        else:
            self._open.discard(proposal.proposal)
        for subscription in self._subscriptions:
            subscription.offer(proposal)
