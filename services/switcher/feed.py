"""What all fronts are told, in the order of the revision: read once a process, handed to every watch stream.

A heartbeat is acknowledged only behind everything that was committed before it, so that an acknowledged front has no
older route than it believes: while the feed cannot read, no front is told that it is fresh.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from services.switcher.hint import Hint
from services.switcher.records import Proposal, ProposalState
from services.switcher.store import RouteStore
from turnout.errors import Aborted, Unavailable

log = logging.getLogger(__name__)

POLL_IN_FLIGHT_S = 0.1
_POLL_IDLE_S = 0.5
_RECENT_S = 5.0  # many polls
_QUEUED_MAX = 1000
_UNACKNOWLEDGED_MAX = 64  # a front that waits for so many has given up its stream long ago


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A heartbeat that may be acknowledged now."""

    sequence: int


class Subscription:
    """The queue of one watch stream. It holds whatever the stream is to handle, not only what the feed puts there."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[object] = asyncio.Queue(_QUEUED_MAX)
        self._lagging = False
        self._unacknowledged: deque[tuple[int, int]] = deque(maxlen=_UNACKNOWLEDGED_MAX)

    def offer(self, item: Proposal | Acknowledged) -> None:
        """Put it there; a stream that has too many unread is ended instead of being waited for."""
        try:
            self.queue.put_nowait(item)
        except asyncio.QueueFull:
            self._lagging = True

    def acknowledge(self, sequence: int, revision: int) -> None:
        """Acknowledge a heartbeat once the feed has read up to a revision."""
        self._unacknowledged.append((sequence, revision))

    def read_up_to(self, revision: int) -> None:
        """Everything up to the revision is in the queue: the heartbeats that waited for it follow."""
        while self._unacknowledged and self._unacknowledged[0][1] <= revision:
            self.offer(Acknowledged(self._unacknowledged.popleft()[0]))

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
        self._subscriptions: dict[Subscription, None] = {}  # in the order in which they came, and are told
        self._open: set[str] = set()
        self._revision = 0
        self._read_at = 0.0
        self._complaint = ""

    @property
    def recent(self) -> bool:
        """Whether it has read a moment ago; else no front hears of changes from this process."""
        return time.monotonic() - self._read_at < _RECENT_S

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """A queue that gets everything from now on."""
        subscription = Subscription()
        self._subscriptions[subscription] = None
        try:
            yield subscription
        finally:
            del self._subscriptions[subscription]

    def acknowledge(self, subscription: Subscription, sequence: int, revision: int) -> None:
        """Acknowledge a heartbeat behind everything up to a revision: at once, or when that has been read."""
        subscription.acknowledge(sequence, revision)
        subscription.read_up_to(self._revision)

    async def begin(self) -> None:
        """Take the revision to start from. Before the first subscription, whose snapshot is then no older."""
        self._revision = await self._store.revision()
        self._read_at = time.monotonic()

    async def run(self) -> None:
        """Feed all subscriptions until cancelled; whatever fails is tried again."""
        while True:
            ticket = self._hint.ticket()
            try:
                await self._read()
            except Unavailable as error:
                self._complain(error.message)
            except Exception as error:
                if self._complain(repr(error)):
                    log.exception("the route watch failed and tries again")
            await self._hint.wait(ticket, POLL_IN_FLIGHT_S if self._open else _POLL_IDLE_S)

    async def _read(self) -> None:
        revision, proposals = await self._store.proposals_since(self._revision)
        for proposal in proposals:
            self._tell(proposal)
        self._revision = revision
        for subscription in self._subscriptions:
            subscription.read_up_to(revision)
        self._read_at = time.monotonic()
        self._complaint = ""

    def _complain(self, why: str) -> bool:
        """Say once why no front hears of changes; whether it was new."""
        new = why != self._complaint
        if new:
            log.warning("the route watch waits: %s", why)
        self._complaint = why
        return new

    def _tell(self, proposal: Proposal) -> None:
        if proposal.state is ProposalState.OPEN:
            self._open.add(proposal.proposal)
        else:
            self._open.discard(proposal.proposal)
        for subscription in self._subscriptions:
            subscription.offer(proposal)
