"""How a change of a route is carried out: gates, proposal, PREPARED, gates again, commit, SERVING, view.

Until the commit nothing has changed: whatever fails before, or whoever gives up, cancels the proposal, and a proposal
whose proposer died is cancelled when its time is over. After the commit the change stands: what is left (adoption, the
view, runs to be woken) is reported, and goes on by itself.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from core.domain.errors import TurnoutError
from services.switcher.adoption import Front, Verdict, adopted, not_counted, readiness
from services.switcher.convert import change_message, decode_change, encode_change
from services.switcher.feed import POLL_IN_FLIGHT_S
from services.switcher.gates import refuse_failed
from services.switcher.hint import Hint
from services.switcher.presence import FrontStore
from services.switcher.records import Adoption, ChangeRecord, CommandKind, GateAnswer, Intent, RouteRecord, View
from services.switcher.replayer_client import ReplayerClient
from services.switcher.store import Committed, RouteStore, not_prepared
from services.switcher.switch import Change, CutOver, RollBack, SetTraffic, decide
from services.switcher.views import Views
from services.switcher.wakes import Wakes
from turnout.routing import Route
from turnout.switcher.v1 import switcher_pb2 as pb
from turnout.telemetry import current_traceparent, tracer

log = logging.getLogger(__name__)
_tracer = tracer("turnout.switcher")

_ANSWER_MARGIN_S = 0.5  # left of the caller's deadline for the answer


RouteCommand = SetTraffic | CutOver | RollBack
"""The commands that change a route."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits of a change."""

    protection: timedelta  # how long a cutover's way back is kept from retirement
    prepare_s: float = 2.0  # for every live front to be PREPARED
    adopt_s: float = 5.0  # for every live front to be SERVING
    proposal_s: float = 6.0  # after which an open proposal has lost its proposer


class Changes:
    """Carries out SetTraffic, CutOver and RollBack."""

    def __init__(
        self,
        store: RouteStore,
        fronts: FrontStore,
        replayer: ReplayerClient,
        views: Views,
        wakes: Wakes,
        hint: Hint,
        limits: Limits,
    ) -> None:
        self._store = store
        self._fronts = fronts
        self._replayer = replayer
        self._views = views
        self._wakes = wakes
        self._hint = hint
        self._limits = limits

    async def change(
        self,
        job: str,
        command: RouteCommand,
        intent: Intent,
        *,
        validate_only: bool,
        time_left_s: float,
    ) -> pb.RouteChange:
        """Carry out a command and answer it; `time_left_s` is what the caller's deadline leaves."""
        answer_by = time.monotonic() + time_left_s - _ANSWER_MARGIN_S
        if intent.request_id and (stored := await self._store.first_answer(intent.request_id, intent.fingerprint)):
            return decode_change(stored)
        before = await self._store.read(job)
        decision = decide(before.state, command, before.now, self._limits.protection)
        if not isinstance(decision, Change):
            return await self._unchanged(before, intent, validate_only)
        record = await self._checked(job, before, decision, intent)
        if validate_only:
            return change_message(record)
        committed = await self._committed(decision, record, intent)
        woken, record = await asyncio.gather(self._woken(job, intent, answer_by), self._adopted(committed, answer_by))
        record = replace(record, warnings=record.warnings + woken)
        record = replace(record, view=await self._view(job, answer_by))
        if intent.request_id:
            await self._store.complete_answer(intent.request_id, encode_change(record))
        return change_message(record)

    async def _unchanged(self, before: RouteRecord, intent: Intent, validate_only: bool) -> pb.RouteChange:
        assert before.state.route is not None, "a command without a route is refused or changes something"
        record = replace(_record(before.state.route, intent, before), changed=False)
        if intent.request_id and not validate_only:
            return decode_change(await self._store.store_answer(intent, encode_change(record)))
        return change_message(record)

    async def _checked(self, job: str, before: RouteRecord, change: Change, intent: Intent) -> ChangeRecord:
        """The change with its evidence; refused where a gate fails. A rollback asks no gate and looks at its runs."""
        gates = await self._passed(change)
        warnings = change.warnings
        if intent.command is CommandKind.ROLL_BACK:
            warnings += await self._replayer.look_at_runs(job, change.route.versions)
        return replace(
            _record(change.route, intent, before),
            rollback_version=change.way_back.active_version if change.way_back else 0,
            protected_until=change.protected_until,
            gates=gates,
            warnings=warnings,
        )

    async def _passed(self, change: Change) -> tuple[GateAnswer, ...]:
        """The answers of the change's gates; FailedPrecondition where one fails and is not passed over."""
        gates = await self._replayer.gates(change.route.job, change.gates, change.overridden)
        refuse_failed(change.route.job, gates)
        return gates

    async def _woken(self, job: str, intent: Intent, answer_by: float) -> tuple[str, ...]:
        """After a rollback: resume its runs, as long as the caller allows; what a person must know of that."""
        if intent.command is not CommandKind.ROLL_BACK:
            return ()
        try:
            async with asyncio.timeout(max(0.0, answer_by - time.monotonic())):
                return await self._wakes.wake(job)
        except TimeoutError:
            return (f"The runs of {job} are resumed later: there was no time left for it.",)

    async def _committed(self, change: Change, record: ChangeRecord, intent: Intent) -> Committed:
        route = change.route
        described = f"{intent.command.value} by {intent.claimed_actor or 'somebody who gave no name'}"
        with _tracer.start_as_current_span("switcher.propose"):
            proposal = await self._store.propose(
                route, timedelta(seconds=self._limits.proposal_s), described, current_traceparent()
            )
        log.info("%s: proposal %s for epoch %d (%s)", route.job, proposal, route.epoch, described)
        try:
            with _tracer.start_as_current_span("switcher.await_prepared"):
                emergency = intent.command is CommandKind.ROLL_BACK
                record = await self._prepared(proposal, record, emergency=emergency)
            with _tracer.start_as_current_span("switcher.gates_again"):
                # They passed before the fronts prepared; a run may have been stopped or fallen behind since.
                record = replace(record, gates=await self._passed(change))
            with _tracer.start_as_current_span("switcher.commit"):
                committed = await self._store.commit(proposal, change, record, intent, encode_change)
        except BaseException:
            await asyncio.shield(self._cancel(route.job, proposal))
            raise
        log.info("%s: epoch %d committed (%s)", route.job, route.epoch, described)
        return committed

    async def _prepared(self, proposal: str, record: ChangeRecord, *, emergency: bool) -> ChangeRecord:
        """Wait until the proposal may be committed; Aborted with the fronts that cannot serve it."""

        def settled(fronts: Sequence[Front]) -> bool:
            return readiness(fronts, emergency=emergency, overdue=False).verdict is not Verdict.WAIT

        fronts = await self._await_fronts(proposal, settled, time.monotonic() + self._limits.prepare_s)
        ready = readiness(fronts, emergency=emergency, overdue=True)
        if ready.verdict is not Verdict.COMMIT:
            raise not_prepared(record.route.job, ready.complaint)
        return replace(record, warnings=record.warnings + _prepared_warnings(fronts, ready.not_ready))

    async def _adopted(self, committed: Committed, answer_by: float) -> ChangeRecord:
        """Wait until every live front serves the committed route, as long as the limit and the caller allow."""
        with _tracer.start_as_current_span("switcher.await_adoption"):
            limit = min(time.monotonic() + self._limits.adopt_s, answer_by)
            fronts = await self._await_fronts(committed.proposal, adopted, limit)
        record = committed.record
        assert record.commit_time is not None, "the change is committed"
        counted = {front.front for front in committed.fronts if front.live}
        adoptions = tuple(
            Adoption(front.front, _after(record.commit_time, front.serving_at))
            for front in fronts
            if front.front in counted
        )
        late = [adoption.front for adoption in adoptions if adoption.after is None]
        warnings = (f"Not serving the new route yet: {', '.join(late)}.",) if late else ()
        return replace(
            record,
            adoptions=adoptions,
            fronts_not_counted=not_counted(fronts),
            warnings=record.warnings + warnings,
        )

    async def _view(self, job: str, answer_by: float) -> View:
        """Try to move the SQL view, as long as the caller allows; how it stands."""
        try:
            async with asyncio.timeout(max(0.0, answer_by - time.monotonic())):
                return await self._views.follow(job)
        except TimeoutError:
            return (await self._store.read(job)).view

    async def _await_fronts(
        self, proposal: str, settled: Callable[[Sequence[Front]], bool], until: float
    ) -> list[Front]:
        """The fronts once they are settled, or when the time (of the monotonic clock) is over."""
        while True:
            ticket = self._hint.ticket()
            fronts = await self._fronts.fronts(proposal)
            left = until - time.monotonic()
            if settled(fronts) or left <= 0:
                return fronts
            await self._hint.wait(ticket, min(left, POLL_IN_FLIGHT_S))

    async def _cancel(self, job: str, proposal: str) -> None:
        try:
            await self._store.cancel(job, proposal)
        except TurnoutError as error:  # its time limit does it then
            log.warning("%s: proposal %s was not cancelled at once: %s", job, proposal, error.message)


def _record(route: Route, intent: Intent, before: RouteRecord) -> ChangeRecord:
    back = before.state.open_way_back
    return ChangeRecord(
        route=route,
        command=intent.command,
        claimed_actor=intent.claimed_actor,
        reason=intent.reason,
        rollback_version=back.active_version if back else 0,
        protected_until=before.state.protected_until if back else None,
        view=before.view,
    )


def _prepared_warnings(fronts: Sequence[Front], not_ready: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    if not any(front.live for front in fronts):
        return ("No query front is live: the route stands, and nobody reads by it yet.",)
    return tuple(f"The front {front} was not waited for: {why}." for front, why in not_ready)


def _after(commit_time: datetime, serving_at: datetime | None) -> timedelta | None:
    return None if serving_at is None else max(serving_at - commit_time, timedelta())
