"""This process among the replicas of the replayer: there while it renews its row, gone once it has said goodbye.

The row names the session that renews it, which this process keeps for that alone: when the process is killed, its
system closes the session, and the others need not wait for the lease to run out.
"""

import asyncio
import logging
from datetime import timedelta

from core.postgres import Connection, connect, postgres_errors
from services.replayer.replicas import ReplicaLease, sharing
from services.replayer.run import Sample
from services.replayer.store import QUERIES, Store
from turnout.clock import Clock
from turnout.errors import Unavailable
from turnout.postgres.pool import COMMAND_TIMEOUT_S

log = logging.getLogger(__name__)

_GOODBYE_S = 2.0


class Presence:
    """Renewed by the sampler, so that a replica which cannot measure does not count as there."""

    def __init__(self, dsn: str, store: Store, instance: str, lease_s: float, clock: Clock) -> None:
        self.instance = instance
        self._dsn = dsn
        self._store = store
        self._clock = clock
        self._lease = ReplicaLease(lease_s)
        self._left = False
        self._session: Connection | None = None
        self._one_at_a_time = asyncio.Lock()  # a renewal under way would undo a goodbye

    @property
    def holds(self) -> bool:
        """Whether the others count on this replica."""
        return not self._left and self._lease.holds(self._clock.monotonic_s())

    def sharing(self, sample: Sample | None) -> tuple[str, ...]:
        """Among which replicas the work is dealt, as seen from here; empty when this one has no share."""
        if sample is None or self._left:
            return ()
        return sharing(self.instance, sample.replicas.keys(), holds=self.holds)

    async def renew(self) -> None:
        """Renew the lease when it is time to, or its session is gone. Unavailable while PostgreSQL is away."""
        async with self._one_at_a_time:
            sent_s = self._clock.monotonic_s()
            there = self._session is not None and not self._session.is_closed()
            if self._left or (there and not self._lease.due(sent_s)):
                return
            try:
                with postgres_errors():
                    await self._renew()
            except BaseException:
                self._end_session()
                raise
            self._lease.renewed(sent_s)

    async def _renew(self) -> None:
        if self._session is None or self._session.is_closed():
            name = "turnout replica"
            self._session = await connect(self._dsn, application_name=name, command_timeout_s=COMMAND_TIMEOUT_S)
        async with self._session.transaction():
            await self._session.execute("set local synchronous_commit = on")
            await self._session.execute(QUERIES.renew_replica, self.instance, timedelta(seconds=self._lease.length_s))
            await self._session.execute(QUERIES.forget_replicas)

    async def leave(self) -> None:
        """Say goodbye: the others take over at once. From now on this replica has no share in any run."""
        self._left = True
        try:
            async with asyncio.timeout(_GOODBYE_S), self._one_at_a_time:
                await self._store.remove_replica(self.instance)
        except (Unavailable, TimeoutError) as error:
            log.warning("this replica leaves without a goodbye; the end of its session says the same: %r", error)
        finally:
            self._end_session()

    def _end_session(self) -> None:
        if self._session is not None:
            self._session.terminate()
            self._session = None
