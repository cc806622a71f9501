"""What is told to the switcher of exposures: what this front saw, every second; what clients report, at once.

A report is answered once the switcher has stored it, and whatever went wrong before is the reporter's to try again:
nothing of it is kept here. Reports that come while a call is under way share the next one, so that many small ones cost
the switcher's database few transactions.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Final, TypeAlias

import grpc

from turnout.errors import TurnoutError, Unavailable
from turnout.reading.exposures import Exposures, Observation, Seen
from turnout.reading.front import Front
from turnout.reading.link import SwitcherLink
from turnout.status import from_rpc_error
from turnout.switcher.v1 import outcome_pb2

log = logging.getLogger(__name__)

CALL_MAX: Final = 10_000
"""Outcomes, and as many observations, that fit in one call."""
WAITING_MAX: Final = 50_000
"""Outcomes that wait for a call."""
_TELL_EVERY_S: Final = 1.0
_CALL_S: Final = 5.0
_STREAM_MAX: Final = 8  # batches of one stream on their way
_METRICS: Final = {
    Seen.EXPOSED: outcome_pb2.METRIC_UNSPECIFIED,
    Seen.FAILURE: outcome_pb2.METRIC_FAILURE,
    Seen.NOT_FOUND: outcome_pb2.METRIC_NOT_FOUND,
    Seen.SLOW: outcome_pb2.METRIC_SLOW,
}

Result: TypeAlias = "outcome_pb2.RecordOutcomesResponse.Result.ValueType"
_Report: TypeAlias = tuple[Sequence[outcome_pb2.ReportedOutcome], "asyncio.Future[Sequence[Result]]"]


class Outcomes:
    """The way of outcomes and observations to the switcher."""

    def __init__(self, front: Front, exposures: Exposures, link: SwitcherLink) -> None:
        self._front = front
        self._exposures = exposures
        self._link = link
        self._waiting: deque[_Report] = deque()
        self._due = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._complaint = ""

    def start(self) -> None:
        """Begin to tell and to pass on, in the background."""
        self._tasks = [
            asyncio.create_task(self._tell(), name="tell exposures"),
            asyncio.create_task(self._pass_on(), name="pass outcomes on"),
        ]

    async def stop(self) -> None:
        """Tell what there is once more, then end. Reports that still wait fail, unknown to be stored."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(TurnoutError):
            if self._exposures.untold:
                await self._tell_once()
        while self._waiting:
            stored = self._waiting.popleft()[1]
            if not stored.done():
                stored.set_exception(_unknown())

    async def report(self, outcomes: Sequence[outcome_pb2.ReportedOutcome]) -> Sequence[Result]:
        """What became of each outcome, once all are stored; at most CALL_MAX. Unavailable: report them again."""
        if sum(len(one) for one, _ in self._waiting) + len(outcomes) > WAITING_MAX:
            raise Unavailable(
                "OUTCOMES_BUSY", f"{WAITING_MAX} outcomes wait here for the switcher already; report them again later."
            )
        stored: asyncio.Future[Sequence[Result]] = asyncio.get_running_loop().create_future()
        self._waiting.append((outcomes, stored))
        self._due.set()
        return await stored

    async def report_each(
        self, batches: AsyncIterator[Sequence[outcome_pb2.ReportedOutcome]]
    ) -> AsyncGenerator[Sequence[Result], None]:
        """`report` for each batch, a few on their way at a time, answered in their order."""
        on_their_way: asyncio.Queue[asyncio.Task[Sequence[Result]] | None] = asyncio.Queue(_STREAM_MAX)

        async def take() -> None:
            try:
                async for batch in batches:
                    await on_their_way.put(asyncio.create_task(self.report(batch)))
            finally:
                await on_their_way.put(None)

        taking = asyncio.create_task(take())
        reporting: asyncio.Task[Sequence[Result]] | None = None
        try:
            while (reporting := await on_their_way.get()) is not None:
                yield await reporting
            await taking
        finally:
            taking.cancel()
            while not on_their_way.empty():
                if (left := on_their_way.get_nowait()) is not None:
                    left.cancel()
            if reporting is not None:
                reporting.cancel()

    # --- what clients report ---

    async def _pass_on(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            while self._waiting:
                await self._pass_one(self._next_reports())

    def _next_reports(self) -> list[_Report]:
        reports = [self._waiting.popleft()]
        left = CALL_MAX - len(reports[0][0])
        while self._waiting and len(self._waiting[0][0]) <= left:
            left -= len(self._waiting[0][0])
            reports.append(self._waiting.popleft())
        return reports

    async def _pass_one(self, reports: Sequence[_Report]) -> None:
        request = outcome_pb2.RecordOutcomesRequest(
            front=self._front.name, outcomes=[one for outcomes, _ in reports for one in outcomes]
        )
        try:
            results = (await self._call(request)).results
        except BaseException as error:
            # Whatever it was, nobody may wait for ever, and the next reports have their own call.
            for _, stored in reports:
                if not stored.done():
                    stored.set_exception(error if isinstance(error, TurnoutError) else _unknown())
            if not isinstance(error, Exception):
                raise
            if not isinstance(error, TurnoutError):
                log.exception("passing outcomes on failed")
            return
        at = 0
        for outcomes, stored in reports:
            if not stored.done():  # its reporter may have left
                stored.set_result(results[at : at + len(outcomes)])
            at += len(outcomes)

    # --- what this front saw ---

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(_TELL_EVERY_S)
            try:
                # While there is an experiment also where nothing was seen: so the switcher knows that nothing was.
                if self._exposures.untold or self._front.experiments:
                    await self._tell_once()
                self._complaint = ""
            except Exception as error:
                new, self._complaint = repr(error) != self._complaint, repr(error)
                if new and isinstance(error, TurnoutError):
                    log.warning("exposures wait to be told, %d of them: %s", self._exposures.untold, error.message)
                elif new:
                    log.exception("telling exposures failed and is tried again")

    async def _tell_once(self) -> None:
        while True:
            observations = self._exposures.next(CALL_MAX)
            complete = len(observations) == self._exposures.untold
            await self._call(
                outcome_pb2.RecordOutcomesRequest(
                    front=self._front.name,
                    observations=[_observation_message(one) for one in observations],
                    complete=complete,
                    observations_lost=self._exposures.lost,
                    reads_left_out=self._exposures.left_out,
                )
            )
            self._exposures.told(len(observations))
            if complete:
                return

    async def _call(self, request: outcome_pb2.RecordOutcomesRequest) -> outcome_pb2.RecordOutcomesResponse:
        try:
            return await self._link.stub.RecordOutcomes(request, timeout=_CALL_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "switcher") from None


def _unknown() -> Unavailable:
    return Unavailable("OUTCOMES_UNKNOWN", "It is not known whether the outcomes were stored; report them again.")


def _observation_message(one: Observation) -> outcome_pb2.Observation:
    exposure = one.exposure
    return outcome_pb2.Observation(
        experiment=exposure.experiment,
        epoch=exposure.epoch,
        version=exposure.version,
        unit=exposure.unit,
        time_s=exposure.time_s,
        metric=_METRICS[one.seen],
    )
