"""How changes of routes are carried out: gates, proposal, PREPARED, gates again, commit, SERVING, view.

One command may change the routes of several jobs: all of them in one proposal and one commit, or none. Until the commit
nothing has changed: whatever fails before, or whoever gives up, cancels the proposal, and a proposal whose proposer is
not heard of any more is cancelled by any replica. After the commit the change stands: what is left (adoption, the
view, runs to be woken) is reported, and goes on by itself, and whoever repeats the request waits for it too.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from services.switcher.adoption import Front
from services.switcher.barrier import Barrier, Limits
from services.switcher.convert import change_message, decode_changes, encode_changes
from services.switcher.feed import POLL_IN_FLIGHT_S
from services.switcher.gates import refuse_failed
from services.switcher.hint import Hint
from services.switcher.questions import GateQuestion
from services.switcher.records import ChangeRecord, CommandKind, GateAnswer, Intent, RouteRecord, View
from services.switcher.replayer_client import ReplayerClient
from services.switcher.requests import Answered, RequestStore
from services.switcher.rows import Fence
from services.switcher.shadow_report import shadow_gate
from services.switcher.shadow_store import ShadowStore
from services.switcher.store import NOT_PREPARED, Committed, Decided, RouteStore, Terms
from services.switcher.switch import (
    Change,
    Conduct,
    CutOver,
    RequireGates,
    RollBack,
    SetShadow,
    SetTraffic,
    Withdraw,
    decide,
)
from services.switcher.views import Views
from services.switcher.wakes import Wakes
from services.switcher.way_back import way_back_gate
from turnout.errors import Aborted, TurnoutError
from turnout.routing import Route
from turnout.switcher.v1 import change_pb2
from turnout.telemetry import current_traceparent, tracer

log = logging.getLogger(__name__)
_tracer = tracer("turnout.switcher")

_ANSWER_MARGIN_S = 0.5  # left of the caller's deadline for the answer
_COMMITS_MAX = 3  # attempts, each after all fronts were prepared: fronts may come and go


RouteCommand = SetTraffic | CutOver | RollBack | Conduct | SetShadow | RequireGates | Withdraw
"""The commands that change a route."""
Order = tuple[str, RouteCommand]
"""What is asked of a job."""
Fences = tuple[Fence | None, Fence | None]
"""What is asked in the transaction that opens the proposal, and in the one that commits."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What a change asks of the replayer, and follows up there; and what fronts have said of shadows."""

    replayer: ReplayerClient
    shadows: ShadowStore
    views: Views
    wakes: Wakes


class Changes:
    """Carries out SetTraffic, CutOver, RollBack, SetShadow and RequireGates, of one route or of several."""

    def __init__(
        self,
        store: RouteStore,
        requests: RequestStore,
        barrier: Barrier,
        neighbours: Neighbours,
        hint: Hint,
        limits: Limits,
    ) -> None:
        self._store = store
        self._requests = requests
        self._barrier = barrier
        self._replayer = neighbours.replayer
        self._shadows = neighbours.shadows
        self._views = neighbours.views
        self._wakes = neighbours.wakes
        self._hint = hint
        self._limits = limits

    async def change(
        self,
        orders: Sequence[Order],
        intent: Intent,
        *,
        validate_only: bool,
        time_left_s: float,
        fence: Fence | None = None,
        opening: Fence | None = None,
    ) -> list[change_pb2.RouteChange]:
        """Carry out a command and answer it, by job; `time_left_s` is what the caller's deadline leaves.

        fence: asked in the transaction that commits; what it raises keeps everything as it is. opening: the same of the
        transaction that opens the proposal.

        A request that was made before, here or at another replica, is not carried out a second time: it gets the first
        one's answer, for which it waits.
        """
        answer_by = time.monotonic() + time_left_s - _ANSWER_MARGIN_S
        while True:
            ticket = self._hint.ticket()
            found, under_way = await self._before(intent)
            if found is not None:
                return await self._answered(found, intent, answer_by)
            if under_way and time.monotonic() < answer_by:
                await self._hint.wait(ticket, POLL_IN_FLIGHT_S)
                continue
            try:
                return await self._carried_out(
                    orders, intent, validate_only=validate_only, answer_by=answer_by, fences=(opening, fence)
                )
            except TurnoutError:  # of whatever kind: it may have been decided on the route that the first one made
                if time.monotonic() >= answer_by or not await self._taken(intent):
                    raise

    async def _before(self, intent: Intent) -> tuple[Answered | None, bool]:
        """The first answer to the request, where there is one, and whether it is being carried out.

        In this order: what is committed between the two reads is found by the second.
        """
        if not intent.request_id:
            return None, False
        under_way = await self._requests.in_flight(intent)
        return await self._requests.find(intent), under_way

    async def _taken(self, intent: Intent) -> bool:
        """Whether somebody else has carried out the same request, or is about to."""
        found, under_way = await self._before(intent)
        return found is not None or under_way

    async def _answered(self, found: Answered, intent: Intent, answer_by: float) -> list[change_pb2.RouteChange]:
        """The first answer; if nobody has seen the adoption yet, once that is seen."""
        first = decode_changes(found.answer)
        if not found.proposal:
            return first
        committed = Committed(found.proposal, found.records, found.counted)
        return await self._finished(committed, [one for one in first if not one.changed], intent, answer_by)

    async def _carried_out(
        self,
        orders: Sequence[Order],
        intent: Intent,
        *,
        validate_only: bool,
        answer_by: float,
        fences: Fences,
    ) -> list[change_pb2.RouteChange]:
        to_check: list[tuple[RouteRecord, Change]] = []
        unchanged: list[ChangeRecord] = []
        for job, command in orders:
            before = await self._store.read(job)
            decision = decide(before.state, command, before.now, self._limits.protection)
            if isinstance(decision, Change):
                to_check.append((before, decision))
            else:
                unchanged.append(_unchanged(before, intent))
        decided = await self._checked(to_check, intent)
        if validate_only:
            return _by_job([change_message(one) for one in [*unchanged, *(each.record for each in decided)]])
        if not decided:
            return await self._nothing(unchanged, intent, answer_by)
        committed = await self._committed(decided, unchanged, intent, fences)
        return await self._finished(committed, [change_message(one) for one in unchanged], intent, answer_by)

    async def _nothing(
        self, unchanged: Sequence[ChangeRecord], intent: Intent, answer_by: float
    ) -> list[change_pb2.RouteChange]:
        if not intent.request_id:
            return [change_message(one) for one in unchanged]
        first = await self._requests.store(intent, encode_changes(unchanged))
        return await self._answered(first, intent, answer_by)

    # --- before the commit ---

    async def _checked(self, to_check: Sequence[tuple[RouteRecord, Change]], intent: Intent) -> list[Decided]:
        """The changes with their evidence; refused where a gate fails. A rollback asks none and looks at its runs."""
        answers = await self._passed([change for _, change in to_check], ())
        warnings = await asyncio.gather(*(self._warnings(before, change, intent) for before, change in to_check))
        together = {change.route.job for _, change in to_check}
        partners = [await self._partners(change, together, intent) for _, change in to_check]
        return [
            Decided(change, _checked_record(change, intent, before, gates, told + more))
            for (before, change), gates, told, more in zip(to_check, answers, warnings, partners, strict=True)
        ]

    async def _warnings(self, before: RouteRecord, change: Change, intent: Intent) -> tuple[str, ...]:
        if intent.command is not CommandKind.ROLL_BACK:
            return change.warnings
        return change.warnings + await self._replayer.look_at_runs(before.state.job, change.route.versions)

    async def _partners(self, change: Change, together: set[str], intent: Intent) -> tuple[str, ...]:
        """Of a rollback: the jobs that were cut over in the same step and are not rolled back with it."""
        back = change.route
        if intent.command is not CommandKind.ROLL_BACK:
            return ()
        left = [job for job in await self._store.partners(back.job) if job not in together]
        if not left:
            return ()
        return (
            f"{back.job} was cut over together with {', '.join(left)}, which stay as they are; to take back all of "
            f"them: turnout rollback {' '.join(sorted([*together, *left]))}",
        )

    async def _passed(self, changes: Sequence[Change], fronts: Sequence[Front]) -> list[tuple[GateAnswer, ...]]:
        """The answers of each change's gates; FailedPrecondition where one fails and is not passed over."""
        answers = await asyncio.gather(*(self._gates(change, fronts) for change in changes))
        for change, gates in zip(changes, answers, strict=True):
            refuse_failed(change.route.job, gates)
        return answers

    async def _gates(self, change: Change, fronts: Sequence[Front]) -> tuple[GateAnswer, ...]:
        job = change.route.job
        left = change.way_back.versions - {change.route.active_version} if change.way_back and change.moves_on else ()
        asked, shadows, runs = await asyncio.gather(
            self._replayer.gates(job, change.gates, change.overridden),
            asyncio.gather(*(self._shadow(change, question) for question in change.gates)),
            self._replayer.runs(job, left),
        )
        return asked + tuple(one for some in shadows for one in some) + way_back_gate(change, runs, fronts)

    async def _shadow(self, change: Change, question: GateQuestion) -> tuple[GateAnswer, ...]:
        if not question.shadow or question.baseline is None:
            return ()
        said = await self._shadows.between(change.route.job, question.candidate, question.baseline)
        return (shadow_gate(change.route.job, question.candidate, said, change.overridden),)

    async def _committed(
        self, decided: Sequence[Decided], unchanged: Sequence[ChangeRecord], intent: Intent, fences: Fences
    ) -> Committed:
        opening, fence = fences
        changes = [one.change for one in decided]
        jobs = [change.route.job for change in changes]
        terms = Terms(
            lifetime=timedelta(seconds=self._limits.proposal_s),
            described=_described(intent, jobs),
            traceparent=current_traceparent(),
            emergency=all(change.emergency for change in changes),
            rolls_back=intent.command is CommandKind.ROLL_BACK,
        )
        with _tracer.start_as_current_span("switcher.propose"):
            proposal = await self._store.propose(changes, intent, terms, opening)
        log.info("%s: proposal %s (%s)", ", ".join(jobs), proposal, terms.described)
        try:
            async with self._barrier.proposing(proposal):
                committed = await self._ready_and_committed(proposal, decided, unchanged, intent, fence)
        except BaseException:
            await asyncio.shield(self._cancel(jobs, proposal))
            raise
        log.info("%s: committed (%s)", ", ".join(f"{c.route.job} epoch {c.route.epoch}" for c in changes), proposal)
        return committed

    async def _ready_and_committed(
        self,
        proposal: str,
        decided: Sequence[Decided],
        unchanged: Sequence[ChangeRecord],
        intent: Intent,
        fence: Fence | None,
    ) -> Committed:
        """Commit once the fronts are prepared; once more where one has come that was not asked yet."""
        attempt = 0
        while True:
            ready = await self._ready(proposal, decided, emergency=all(one.change.emergency for one in decided))
            attempt += 1
            try:
                with _tracer.start_as_current_span("switcher.commit"):
                    return await self._store.commit(
                        proposal, ready, intent, lambda records: encode_changes(_sorted([*records, *unchanged])), fence
                    )
            except Aborted as error:
                if error.reason != NOT_PREPARED or attempt == _COMMITS_MAX:
                    raise

    async def _ready(self, proposal: str, decided: Sequence[Decided], *, emergency: bool) -> list[Decided]:
        """The changes as they may be committed: every front is prepared, and the gates have passed once more."""
        changes = [one.change for one in decided]
        with _tracer.start_as_current_span("switcher.await_prepared"):
            jobs = [change.route.job for change in changes]
            prepared = await self._barrier.prepared(jobs, proposal, emergency=emergency)
        with _tracer.start_as_current_span("switcher.gates_again"):
            # They passed before the fronts prepared; a run may have been stopped or fallen behind since. What Kafka
            # said of its topics stands: one that is made anew in this moment fails the run, as it does right after.
            answers = await self._passed(changes, prepared.fronts)
        return [
            replace(one, record=replace(one.record, gates=gates, warnings=one.record.warnings + prepared.warnings))
            for one, gates in zip(decided, answers, strict=True)
        ]

    async def _cancel(self, jobs: Sequence[str], proposal: str) -> None:
        try:
            await self._store.cancel(jobs, proposal, "its proposer gave up")
        except TurnoutError as error:  # its time limit does it then
            log.warning("%s: proposal %s was not cancelled at once: %s", ", ".join(jobs), proposal, error.message)

    # --- after the commit ---

    async def _finished(
        self, committed: Committed, unchanged: Iterable[change_pb2.RouteChange], intent: Intent, answer_by: float
    ) -> list[change_pb2.RouteChange]:
        """See to what follows a commit, as long as the caller allows, and answer."""
        with _tracer.start_as_current_span("switcher.await_adoption"):
            woken, records = await asyncio.gather(
                asyncio.gather(*(self._woken(one.route.job, intent, answer_by) for one in committed.records)),
                self._barrier.adopted(committed, answer_by),
            )
        views = await asyncio.gather(*(self._view(one.route.job, answer_by) for one in records))
        whole = [
            replace(record, warnings=record.warnings + told, view=view)
            for record, told, view in zip(records, woken, views, strict=True)
        ]
        answer = _by_job([*unchanged, *map(change_message, whole)])
        if not intent.request_id or not all(_adopted(record) for record in whole):
            return answer  # the next one who repeats the request waits for the fronts that are late
        stored = change_pb2.CutOverRoutesResponse(route_changes=answer).SerializeToString()
        return decode_changes(await self._requests.complete(intent, stored))

    async def _woken(self, job: str, intent: Intent, answer_by: float) -> tuple[str, ...]:
        """After a rollback: resume its runs, as long as the caller allows; what a person must know of that."""
        if intent.command is not CommandKind.ROLL_BACK:
            return ()
        try:
            async with asyncio.timeout(max(0.0, answer_by - time.monotonic())):
                return await self._wakes.wake(job)
        except TimeoutError:
            return (f"The runs of {job} are resumed later: there was no time left for it.",)

    async def _view(self, job: str, answer_by: float) -> View:
        """Try to move the SQL view, as long as the caller allows; how it stands."""
        try:
            async with asyncio.timeout(max(0.0, answer_by - time.monotonic())):
                return await self._views.follow(job)
        except TimeoutError:
            return (await self._store.read(job)).view


def _described(intent: Intent, jobs: Sequence[str]) -> str:
    together = f" of {', '.join(jobs)} together" if len(jobs) > 1 else ""
    return f"{intent.command.words}{together} by {intent.claimed_actor or 'somebody who gave no name'}"


def _unchanged(before: RouteRecord, intent: Intent) -> ChangeRecord:
    assert before.state.route is not None, "a command without a route is refused or changes something"
    return replace(_record(before.state.route, intent, before), changed=False)


def _checked_record(
    change: Change, intent: Intent, before: RouteRecord, gates: tuple[GateAnswer, ...], warnings: tuple[str, ...]
) -> ChangeRecord:
    return replace(
        _record(change.route, intent, before),
        rollback_version=change.way_back.active_version if change.way_back else 0,
        protected_until=change.protected_until,
        gates=gates,
        warnings=warnings,
    )


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


def _adopted(record: ChangeRecord) -> bool:
    return all(one.after is not None for one in record.adoptions)


def _sorted(records: Iterable[ChangeRecord]) -> list[ChangeRecord]:
    return sorted(records, key=lambda record: record.route.job)


def _by_job(changes: Iterable[change_pb2.RouteChange]) -> list[change_pb2.RouteChange]:
    return sorted(changes, key=lambda change: change.route.name)
