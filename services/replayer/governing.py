"""The governor at work: one replica looks at live work twice a second and decides, all of them follow.

Whoever holds the row replayer.governor decides; it is taken over when its holder has been silent for some seconds. What
is decided stands in replayer.throttles. A limit that a person sets is not among it: it is put together with the rest on
the spot, and so it holds at once.
"""

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from core.config import Settings
from services.replayer.budget import Capacity, copy_rates, row_rate_limits
from services.replayer.evidence import Quiet, Window, pooled
from services.replayer.governor import Decision, Governor, Seen
from services.replayer.governor_store import GovernorStore, Learnt
from services.replayer.ladder import Pressure, Throttle, effective
from services.replayer.run import Run
from services.replayer.sampler import Sampler
from services.replayer.states import State
from services.replayer.store import Store
from turnout.clock import Clock
from turnout.errors import TurnoutError, Unavailable
from turnout.names import VersionId, parse_route
from turnout.status import from_rpc_error
from turnout.switcher.v1 import front_pb2, route_pb2, switcher_pb2_grpc
from turnout.tasks import end

log = logging.getLogger(__name__)

TICK_S: Final = 0.5
KEEP_S: Final = 1.0  # between two times that an unchanged decision is stored
ROUTES_S: Final = 5.0  # between two looks at the routes
_CALL_S: Final = 1.0
_UNANSWERED_MAX: Final = 10  # then it is no longer one that just starts
_PAGE: Final = 1000


@dataclass(slots=True)
class _Term:
    """The time for which this replica governs."""

    governor: Governor
    capacity: Capacity = field(default_factory=Capacity)  # as it stood when the decision was kept last
    kept: Decision | None = None
    kept_s: float = float("-inf")


class Governing:
    """Decides for all copies, or follows the replica that does."""

    def __init__(
        self, settings: Settings, store: Store, sampler: Sampler, channel: grpc.aio.Channel, clock: Clock
    ) -> None:
        self._store = GovernorStore(store, settings.instance)
        self._sampler = sampler
        self._fronts = _Fronts(channel, clock)
        self._clock = clock
        self._sink_s_max = settings.run_lease_s / 4
        self._decision = Decision()
        self._term: _Term | None = None
        self._last_writes: dict[str, float] = {}  # of each worker, in seconds
        self._write_s: float | None = None  # the slowest one since the last tick
        self._complaint = ""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to govern or to follow."""
        self._task = asyncio.create_task(self._run(), name="govern copies")

    async def stop(self) -> None:
        """Let another replica govern."""
        await end(self._task)
        with contextlib.suppress(Unavailable):
            await self._store.stop()

    def pace_of(self, run: Run) -> tuple[Throttle | None, float | None]:
        """What holds a run down at the moment, and the seconds that a write of it should take at most; None = nothing.

        Copies alone give way; a limit that a person has set holds for a tail as well.
        """
        if run.state is State.TAILING:
            return effective(run.rate_limit, None), None
        return effective(run.rate_limit, self._decision.throttles.get(run.version)), self._decision.write_s_max

    def wrote(self, owner: str, seconds: float) -> None:
        """A worker of a copy told what its last write took. It says so again and again; each write counts once."""
        if seconds and self._last_writes.get(owner) != seconds:
            self._last_writes[owner] = seconds
            self._write_s = max(self._write_s or 0.0, seconds)

    def gone(self, owner: str) -> None:
        """The worker has ended."""
        self._last_writes.pop(owner, None)

    async def _run(self) -> None:
        while True:
            try:
                await self._tick()
                self._complaint = ""
            except TurnoutError as error:
                self._complain(error.message)
            except Exception:
                log.exception("governing failed; going on")
            await asyncio.sleep(TICK_S)

    def _complain(self, why: str) -> None:
        if why != self._complaint:
            log.warning("the governor of copies waits: %s", why)
        self._complaint = why

    async def _tick(self) -> None:
        if self._term is None:
            learnt = await self._store.govern()
            self._decision, full_per_s = await self._store.decided()
            if learnt is None:
                return
            self._term = _Term(self._governor_of(learnt, full_per_s))
        term = self._term
        decision = term.governor.tick(await self._look(term))
        now_s = self._clock.monotonic_s()
        if decision != term.kept or now_s - term.kept_s >= KEEP_S:
            capacity = await self._store.keep(self._learnt(term.governor), decision, term.governor.full_per_s)
            if capacity is None:
                log.info("another replica governs the copies by now")
                self._term = None
                return
            term.capacity, term.kept, term.kept_s = capacity, decision, now_s
        self._decision = decision

    async def _look(self, term: _Term) -> Seen:
        samples = self._sampler.samples
        write_s, self._write_s = self._write_s, None
        copying = bool(samples) and any(run.state is State.REPLAYING for run in samples[-1].runs.values())
        return Seen(
            now_s=self._clock.monotonic_s(),
            samples=samples,
            reads=await self._fronts.reads(),
            serving=await self._fronts.serving() if copying else (),
            write_s=write_s,
            ratio_max=term.capacity.read_p99_ratio_max,
            row_limits=row_rate_limits(term.capacity, copy_rates(samples[-1])) if samples else {},
        )

    def _governor_of(self, learnt: Learnt, full_per_s: dict[VersionId, float]) -> Governor:
        """One that goes on where the one before it was."""
        quiet = None
        if learnt.quiet_p99_s is not None:
            quiet = Quiet(learnt.quiet_p99_s, learnt.quiet_reads, self._clock.monotonic_s() - learnt.quiet_age_s)
        before = next(iter(self._decision.throttles.values()), None)
        cause = None if before is None else Pressure(before.reason, 1.0, "the governor before this one held it there")
        return Governor(self._sink_s_max, quiet=quiet, rung=learnt.rung, cause=cause, full_per_s=full_per_s)

    def _learnt(self, governor: Governor) -> Learnt:
        quiet = governor.evidence.quiet
        if quiet is None:
            return Learnt(governor.ladder.rung, None, 0.0, 0.0)
        age_s = max(0.0, self._clock.monotonic_s() - quiet.at_s)
        return Learnt(governor.ladder.rung, quiet.p99_s, quiet.reads, age_s)


class _Fronts:
    """Asks the switcher what the fronts say. While it does not answer nothing is known, and no copy is held for it."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock) -> None:
        self._stub: Any = switcher_pb2_grpc.SwitcherStub(channel)
        self._clock = clock
        self._ended_s: dict[str, float] = {}  # of each front's newest window
        self._serving: frozenset[VersionId] = frozenset()
        self._routes_s = float("-inf")
        self._unanswered = 0  # calls in a row

    async def reads(self) -> Window | None:
        """The windows of all fronts that have not been seen before, as one; None when there is nothing new."""
        try:
            answer = await self._stub.GetReadLoad(front_pb2.GetReadLoadRequest(), timeout=_CALL_S)
        except grpc.aio.AioRpcError as error:
            self._complain(error)
            return None
        self._unanswered = 0
        now_s = self._clock.monotonic_s()
        found = []
        ended: dict[str, float] = {}
        for front in answer.fronts:
            ended_s = now_s - front.age.ToTimedelta().total_seconds()
            load, before_s = front.read_load, self._ended_s.get(front.front, float("-inf"))
            window_s = load.window.ToTimedelta().total_seconds()
            ended[front.front] = max(ended_s, before_s)
            new = ended_s - before_s > window_s / 2  # the age is told by another clock: the same one wavers a little
            p99_s = load.p99.ToTimedelta().total_seconds()
            if new and load.reads and p99_s > 0:
                found.append(Window(ended_s - window_s, ended_s, load.reads, p99_s))
            elif not new:
                ended[front.front] = before_s
        self._ended_s = ended
        return pooled(found)

    async def serving(self) -> frozenset[VersionId]:
        """The versions that routes name; the last ones known while the switcher is away."""
        if self._clock.monotonic_s() - self._routes_s < ROUTES_S:
            return self._serving
        found: set[VersionId] = set()
        token = ""
        try:
            while True:
                page = await self._stub.ListRoutes(
                    route_pb2.ListRoutesRequest(page_size=_PAGE, page_token=token), timeout=_CALL_S
                )
                found |= {VersionId(parse_route(r.name), arm.version) for r in page.routes for arm in r.arms}
                token = page.next_page_token
                if not token:
                    break
        except grpc.aio.AioRpcError as error:
            self._complain(error)
            return self._serving
        self._serving, self._routes_s = frozenset(found), self._clock.monotonic_s()
        return self._serving

    def _complain(self, error: grpc.aio.AioRpcError) -> None:
        self._unanswered += 1
        if self._unanswered == _UNANSWERED_MAX:
            log.warning("what readers do is not known: %s", from_rpc_error(error, "switcher").message)
